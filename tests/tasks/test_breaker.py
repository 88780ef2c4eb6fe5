import dataclasses

import pytest

from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from storage.exit_codes import EXIT_WORK_LEFT, exit_code
from storage.records import Mention, Prompt, Reason, Rejected, Stage
from tasks.breaker import Breaker, BreakerError
from tasks.declarations import Made
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES


def rejected(number, reason=Reason.CLASS_NOT_FOUND, detail="cat not found (best score 0.01)"):
    return Rejected(key=f"k{number}", stage=Stage.DETECTIONS, reason=reason, detail=detail)


def passed(number):
    return Prompt(
        key=f"k{number}",
        text="a cat",
        counterfactual_text="nothing",
        mentions=(Mention(class_id=0, start=2, end=5),),
        writer="test",
    )


def test_it_names_stage_reason_counts_an_example_and_the_ways_out():
    breaker = Breaker(10, 0.9)
    breaker.note(Stage.DETECTIONS, [rejected(number) for number in range(10)])
    with pytest.raises(BreakerError) as stopped:
        breaker.check()
    assert str(stopped.value) == (
        "stopped, because 10 of the last 10 samples of stage detections were dropped for one "
        "reason, class-not-found: k9 for one (cat not found (best score 0.01)); expected at most "
        "9. Mend the cause and run again, what is finished is kept; or let it go on with --set "
        "breaker_samples=0"
    )
    assert exit_code(stopped.value) == EXIT_WORK_LEFT


@pytest.mark.parametrize(
    ("rows", "samples", "share", "stops"),
    [
        ([rejected(n) for n in range(9)], 10, 0.9, False),  # too few to judge
        ([*map(rejected, range(9)), passed(9)], 10, 0.9, False),  # not more than the share
        ([*map(rejected, range(9)), passed(9)], 10, 0.8, True),
        ([rejected(n, list(Reason)[n % 2]) for n in range(10)], 10, 0.9, False),  # two reasons
        ([*map(passed, range(50)), *map(rejected, range(10))], 10, 0.9, True),  # the last ones
        ([*map(rejected, range(9)), *map(passed, range(9))], 10, 0.9, False),
        ([rejected(n, Reason.WRITER_FAILED) for n in range(10)], 10, 0.9, True),
        ([rejected(n, detail="") for n in range(10)], 10, 1.0, False),
        ([rejected(n) for n in range(10)], 0, 0.0, False),  # switched off
    ],
)
def test_it_stops_when_more_than_the_share_of_the_last_samples_has_one_reason(
    rows, samples, share, stops
):
    breaker = Breaker(samples, share)
    for row in rows:
        breaker.note(Stage.DETECTIONS, [row])
    if stops:
        with pytest.raises(BreakerError):
            breaker.check()
    else:
        breaker.check()


def test_what_early_stages_drop_is_not_held_against_later_ones():
    """All texts of a shard are judged before its first image: half of them lost is no alarm."""
    breaker = Breaker(10, 0.9)
    breaker.note(Stage.PROMPTS, [(rejected if n % 2 else passed)(n) for n in range(40)])
    breaker.note(Stage.DETECTIONS, map(rejected, range(9)))
    breaker.check()


@pytest.mark.parametrize("off", [False, True])
def test_a_run_begins_no_more_pieces_and_goes_on_when_that_is_switched_off(tmp_path, off):
    values = {"root": str(tmp_path), "samples": 24, "samples_per_shard": 8, "breaker_samples": 10}
    parameters = GenerationParameters.model_validate({**values, "texts_per_class_set": 1})

    def refuse(work):
        return Made.of_rows([refused(sample.key) for sample in work.samples])

    prompts = dataclasses.replace(STAGES[Stage.PROMPTS], make=refuse)
    with prepare(parameters) as run:
        for shard in run.planned[:2]:
            make_stage(prompts, run.work(shard))
        with pytest.raises(BreakerError, match=r"10 of the last 10 .*stage prompts.*refused"):
            make_stage(prompts, run.work(run.planned[2]))
        assert len(run.store.commits(Stage.PROMPTS)) == 2
    again = parameters.model_copy(update={"breaker_samples": 0} if off else {})
    with prepare(again) as run:
        for shard in run.planned:  # what is finished is kept, and counts no more
            make_stage(prompts, run.work(shard))
        assert len(run.store.commits(Stage.PROMPTS)) == 3


def refused(key):
    return Rejected(key=key, stage=Stage.PROMPTS, reason=Reason.WRITER_REFUSED, detail="no")
