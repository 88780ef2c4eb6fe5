"""Models that are loaded ahead: those that are needed first, and nobody's trouble if it fails."""

import threading
from contextlib import nullcontext

import pytest

from benchmarks.resume_scan import fabricate_pieces
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from models.profiles import load_profile
from models.registry import Role, kind_of
from storage.errors import InputError
from storage.records import Stage
from tasks.ahead import loading_ahead, next_stages
from tasks.resident import ResidentModels
from tasks.stages import STAGES


class Asked(ResidentModels):
    """Notes what is asked for, and builds nothing."""

    def __init__(self, answer=lambda: None):
        super().__init__()
        self.roles = []
        self._answer = answer

    def model(self, config, objects):
        self.roles.append(kind_of(config).role)
        return self._answer()

    def tokens(self, config):
        self.roles.append("tokens")
        return self._answer()


def parameters(root, **others):
    return GenerationParameters(root=str(root), samples=4, slice="cat", **others)


def all_loaded():
    """Wait until nothing is left to be loaded ahead."""
    for thread in threading.enumerate():
        if thread.name == "loading-ahead":
            thread.join(60)


def first(run):
    return run.work(run.planned[0])


def chat(mode):
    return {"kind": "chat", "model": "m", "base_url": "http://127.0.0.1:9", "mode": mode}


def test_a_new_shard_needs_the_painter_and_its_tokens_and_no_labeller_yet(tmp_path):
    models = Asked()
    with prepare(parameters(tmp_path), models) as run, loading_ahead(first(run)):
        all_loaded()
    assert models.roles == ["tokens", Role.PAINTER]


@pytest.mark.parametrize(
    ("mode", "stages"),
    [("sync", [Stage.PROMPTS, Stage.PAIRS]), ("batch", [Stage.PROMPTS]), ("auto", [Stage.PROMPTS])],
)
def test_nothing_is_painted_soon_where_texts_come_hours_later(tmp_path, monkeypatch, mode, stages):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    with prepare(parameters(tmp_path, writer=chat(mode))) as run:
        assert next_stages(first(run)) == stages


def test_a_shard_that_has_its_texts_needs_the_painter_alone(tmp_path):
    with prepare(parameters(tmp_path)) as run:
        work = first(run)
        work.make_missing(STAGES[Stage.PROMPTS], nullcontext)
    models = Asked()
    with prepare(parameters(tmp_path), models) as run:
        assert next_stages(first(run)) == [Stage.PAIRS]
        with loading_ahead(first(run)):
            all_loaded()
    assert models.roles == [Role.PAINTER]


def test_a_shard_that_is_only_packed_needs_no_model(tmp_path):
    models = Asked()
    with prepare(fabricate_pieces(tmp_path / "d", 1), models) as run, loading_ahead(first(run)):
        all_loaded()
    assert models.roles == []


def test_what_goes_wrong_is_told_to_the_stage_that_needs_the_model(tmp_path):
    def refuse():
        message = "the weights are gone"
        raise InputError(message)

    models = Asked(refuse)
    with prepare(parameters(tmp_path), models) as run, loading_ahead(first(run)):
        with pytest.raises(InputError, match="the weights are gone"):
            first(run).make_missing(STAGES[Stage.PROMPTS], nullcontext)
        assert not run.machine.progress.is_stopping


def test_a_run_that_is_stopped_waits_for_the_model_that_is_built_and_begins_no_other(tmp_path):
    begun, may_go_on = threading.Event(), threading.Event()

    def build():
        begun.set()
        may_go_on.wait(60)

    models = Asked(build)
    with prepare(parameters(tmp_path), models) as run:

        def interrupted():
            with loading_ahead(first(run)):
                begun.wait(60)
                raise KeyboardInterrupt

        waiting = threading.Timer(0.2, may_go_on.set)
        waiting.start()
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert may_go_on.is_set()
        waiting.join()
    assert models.roles == ["tokens"]


def test_threads_that_ask_at_once_get_one_model():
    painter, models, found = load_profile("miniature").painter, ResidentModels(), []
    threads = [
        threading.Thread(target=lambda: found.append(models.tokens(painter))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({id(each) for each in found}) == 1


def test_who_asks_after_a_failure_tries_again(tmp_path):
    models = ResidentModels()
    painter = load_profile("miniature").painter
    missing = painter.model_copy(update={"model": str(tmp_path / "none")})
    for _ in range(2):
        with pytest.raises(InputError, match="none"):
            models.tokens(missing)
    assert models.tokens(painter) is not None
