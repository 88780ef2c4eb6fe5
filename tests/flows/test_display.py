import io
import itertools
import threading

import pytest
from rich.console import Console

from flows.display import SampleCounts, describe, show_progress, show_steps
from storage.records import Stage
from tasks.progress import Progress, Step

STAGES = [stage for stage in Stage if not stage.is_optional]


def test_samples_that_never_arrive_count_with_the_rest_of_their_shard():
    counts = SampleCounts({"a": 10, "b": 10}, STAGES)
    counts.note(Step(Stage.PAIRS, "a", 10, 10))
    counts.note(Step(Stage.MASKS, "a", 6, 6))
    counts.note(Step(Stage.MASKS, "b", 1, 4))
    assert counts.done(Stage.PAIRS) == 10
    assert counts.done(Stage.MASKS) == 12


def test_a_shard_without_survivors_is_done():
    counts = SampleCounts({"a": 10}, STAGES)
    counts.note(Step(Stage.MASKS, "a", 0, 0))
    assert counts.done(Stage.MASKS) == 10


def test_the_time_left_follows_from_the_pace_so_far():
    counts = SampleCounts({"a": 10}, STAGES)
    assert "time left unknown" in describe(counts, 5.0)
    for stage in STAGES[:-1]:
        counts.note(Step(stage, "a", 10, 10))
    assert "80 s: prompts 10/10" in describe(counts, 80.0)
    assert "20 s left" in describe(counts, 80.0)


def test_elsewhere_than_on_a_terminal_progress_is_a_plain_line():
    out = io.StringIO()
    progress = Progress()
    counts = SampleCounts({"a": 4}, STAGES)
    with show_progress(progress, counts, Console(file=out, width=200), str):
        progress.tell(Step(Stage.PROMPTS, "a", 4, 4, cached=True))
        assert counts.cached() == 1
    assert "prompts 4/4, pairs 0/4" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_progress_is_a_bar_for_each_stage():
    out = io.StringIO()
    progress = Progress()
    counts, screen = (
        SampleCounts({"a": 4}, STAGES),
        Console(file=out, width=120, force_terminal=True),
    )
    with show_progress(progress, counts, screen, str):
        progress.tell(Step(Stage.PROMPTS, "a", 4, 4))
    for stage in STAGES:
        assert stage.value in out.getvalue()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_what_was_spent_stands_beside_the_progress(monkeypatch, is_terminal):
    monkeypatch.setattr("flows.display.PLAIN_SECONDS", 0.01)
    out, progress, told = io.StringIO(), Progress(), threading.Event()
    asked = itertools.count(1)

    def note():
        if next(asked) == 3:  # the first is to compare with, the second is shown by now
            told.set()
        return "1.25 USD spent"

    screen = Console(file=out, width=200, force_terminal=is_terminal)
    with show_progress(progress, SampleCounts({"a": 4}, STAGES), screen, note):
        assert told.wait(10)
    assert "1.25 USD spent" in out.getvalue()


def test_training_progress_shows_steps_and_loss():
    out = io.StringIO()
    with show_steps(2, Console(file=out, width=200)) as note:
        note({"step": 0, "loss": 2.0})
        note({"step": 1, "loss": 1.5})
    assert "step 2 of 2, loss 1.5" in out.getvalue()
