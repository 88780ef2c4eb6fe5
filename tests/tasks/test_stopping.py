"""A run is stopped in the middle of each stage: what was finished stays, nothing is made twice."""

import functools
import json
import threading
import time
from collections import Counter

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency

from fakes import (
    FakeDetector,
    FakeInpainter,
    FakePainter,
    FakeScout,
    FakeSegmenter,
    FakeWriter,
)
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from models.protocols import TextAnswer
from models.registry import Role, kind_of
from storage.errors import TransientError
from storage.layout import ENGINE_FOLDER
from storage.leases import take_lease
from storage.records import Stage
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.pipeline import IN_FLIGHT
from tasks.progress import StoppedError
from tasks.resident import ResidentModels
from tasks.stage_tasks import STAGE_TASKS, make_stage
from tasks.stages import STAGES

SAMPLES = 64
MADE_IN_PIECES = [stage for stage, each in STAGES.items() if each.make is not None]
IN_STEPS = [stage for stage in MADE_IN_PIECES if stage is not Stage.PROMPTS]
USUAL, PAINTED_OVER = {}, {"twins": {"way": "inpaint", "grow": 0.1}}
LATER = {"twins": {"way": "later"}}
LOOKED_THROUGH = {"others": {"way": "ignore"}}
STEPS_OF_RECIPES = [
    *((stage, USUAL) for stage in IN_STEPS if not stage.is_optional),
    *((stage, PAINTED_OVER) for stage in IN_STEPS if stage is not Stage.OTHERS),
    (Stage.TWINS, LATER),
    (Stage.OTHERS, LOOKED_THROUGH),
]


class SecondThoughts(FakeWriter):
    """Needs a second round for every other class set."""

    def __init__(self):
        self.asked = []
        self.on_round = lambda number: None

    def write(self, requests):
        self.asked += requests
        answers = super().write(requests)
        self.on_round(requests[0].round)
        return [
            TextAnswer(answer.texts[:1] if number % 2 and not request.round else answer.texts)
            for number, (request, answer) in enumerate(zip(requests, answers, strict=True))
        ]


class Fakes(ResidentModels):
    """Fakes for all models; counts what each is asked for."""

    def __init__(self):
        super().__init__()
        vocabulary = load_vocabulary("miniature")
        self.painted = Counter()
        self.fakes = {
            Role.WRITER: SecondThoughts(),
            Role.PAINTER: CountingPainter(vocabulary, self.painted),
            Role.DETECTOR: FakeDetector(),
            Role.SEGMENTER: FakeSegmenter(),
            Role.INPAINTER: FakeInpainter(),
            Role.SCOUT: FakeScout(),
        }

    def model(self, config, objects):
        return self.fakes[kind_of(config).role]


class CountingPainter(FakePainter):
    def __init__(self, vocabulary, painted):
        super().__init__(vocabulary)
        self._painted = painted

    def paint(self, requests):
        self._painted.update(request.seed for request in requests)
        return super().paint(requests)

    def paint_images(self, requests):
        self._painted.update((request.seed, request.is_twin) for request in requests)
        return super().paint_images(requests)


def parameters(root, **recipe):
    return GenerationParameters(
        root=str(root),
        samples=SAMPLES,
        samples_per_shard=SAMPLES,
        texts_per_class_set=4,
        batch_size=8,
        masks={"min_area": 0.0, "max_area": 1.0},
        **recipe,
    )


def make(run):
    """Run the stages of the only shard until one is stopped; returns that one, or nothing."""
    [shard] = run.planned
    work = run.work(shard)
    for stage in run.keys.stages:
        outcome = make_stage(STAGES[stage], work)
        if getattr(outcome, "type", None) == "CANCELLED":
            assert isinstance(outcome.data, StoppedError)
            return stage
    return None


def decided(root, stage):
    """How often a stage has decided each sample."""
    return Counter(key for piece in Store.open(root).commits(stage) for key in piece.verdicts)


def tar(root):
    store = Store.open(root)
    [shard] = store.shards()
    return store.read(shard.commit)


@pytest.fixture(scope="module")
def whole_of(tmp_path_factory):
    """Gives the tar of a run that nobody stopped, by the recipe."""

    @functools.cache
    def make_whole(way):
        root = tmp_path_factory.mktemp("whole") / "d"
        recipe = {
            "": USUAL,
            "inpaint": PAINTED_OVER,
            "later": LATER,
            "ignore": LOOKED_THROUGH,
        }[way]
        with prepare(parameters(root, **recipe), Fakes()) as run:
            assert make(run) is None
        return tar(root)

    return lambda recipe: make_whole(next((own["way"] for own in recipe.values()), ""))


@pytest.fixture
def whole(whole_of):
    """The tar of a run that nobody stopped, with the usual recipe."""
    return whole_of(USUAL)


@pytest.mark.parametrize(("stage", "recipe"), STEPS_OF_RECIPES)
def test_a_stop_within_a_stage_commits_what_is_finished_and_the_next_run_makes_the_rest(
    stage, recipe, tmp_path, whole_of
):
    models = Fakes()
    with prepare(parameters(tmp_path / "d", **recipe), models) as run:
        progress = run.machine.progress
        progress.listen(
            lambda step: progress.stop() if step.stage == stage and 0 < step.done < 64 else None
        )
        assert make(run) is stage
    kept = decided(tmp_path / "d", stage)
    short = (stage, recipe) in [(Stage.TWINS, PAINTED_OVER), (Stage.PAIRS, USUAL)]
    step = 8 if short else 16
    assert len(kept) in range(step, IN_FLIGHT * step + 1, step), "what had begun is finished"
    with prepare(parameters(tmp_path / "d", **recipe), models) as run:
        assert make(run) is None
    assert tar(tmp_path / "d") == whole_of(recipe)
    for each in run.keys.inputs:
        assert set(decided(tmp_path / "d", each).values()) == {1}
    assert set(models.painted.values()) == {1}


def test_a_stop_between_two_rounds_of_a_writer_commits_the_class_sets_that_are_finished(
    tmp_path, whole
):
    models = Fakes()
    writer = models.fakes[Role.WRITER]
    with prepare(parameters(tmp_path / "d"), models) as run:
        writer.on_round = lambda _number: run.machine.progress.stop()
        assert make(run) is Stage.PROMPTS
    assert len(decided(tmp_path / "d", Stage.PROMPTS)) == SAMPLES // 2
    asked = len(writer.asked)
    writer.on_round = lambda _number: None
    with prepare(parameters(tmp_path / "d"), models) as run:
        assert make(run) is None
    first = [request for request in writer.asked if request.round == 0]
    assert len(first) == asked + asked // 2, "the finished class sets are not asked for again"
    assert len(decided(tmp_path / "d", Stage.PROMPTS)) == SAMPLES


def test_a_stage_that_was_done_when_the_stop_came_is_committed_whole(tmp_path):
    with prepare(parameters(tmp_path / "d"), Fakes()) as run:
        progress = run.machine.progress
        progress.listen(
            lambda step: progress.stop() if (step.stage, step.done) == (Stage.PAIRS, 64) else None
        )
        assert make(run) is Stage.DETECTIONS
    assert len(decided(tmp_path / "d", Stage.PAIRS)) == SAMPLES
    assert decided(tmp_path / "d", Stage.DETECTIONS) == {}


def test_who_waited_for_a_turn_does_not_begin_after_the_stop(tmp_path):
    models = Fakes()
    with prepare(parameters(tmp_path / "d"), models) as run:
        [shard] = run.planned
        work = run.work(shard)
        make_stage(STAGES[Stage.PROMPTS], work)
        turn = run.machine.turns.turn

        def late(device, *, of):
            run.machine.progress.stop()
            return turn(device, of=of)

        run.machine.turns.turn = late
        assert make_stage(STAGES[Stage.PAIRS], work).is_cancelled()
    assert not models.painted
    assert decided(tmp_path / "d", Stage.PAIRS) == {}


@pytest.mark.parametrize(("stage", "recipe"), STEPS_OF_RECIPES)
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_stopped_run_leaves_no_lease_behind(stage, recipe, place, tmp_path, request):
    root = tmp_path / "d" if place == "folder" else request.getfixturevalue("bucket").root
    with prepare(parameters(root, **recipe), Fakes()) as run:
        progress = run.machine.progress
        progress.listen(lambda step: progress.stop() if step.stage == stage else None)
        [shard] = run.planned
        with run.store.claim(shard.name):
            make(run)
    objects = Store.open(root).objects
    leases = [path for path in objects.paths(f"{ENGINE_FOLDER}/leases") if path.endswith(".lock")]
    assert leases
    for path in leases:
        if place == "bucket":
            assert json.loads(objects.read(path))["released"], path
        take_lease(objects, path).release()


class Unreachable:
    """A painter behind a line that is down; calls back a second after it was asked."""

    def __init__(self, call):
        self.call = call

    def paint(self, requests):
        threading.Timer(1, self.call).start()
        message = "no answer"
        raise TransientError(message)


@pytest.mark.server
def test_a_stop_ends_the_wait_before_a_stage_is_tried_again(server, tmp_path):
    models = Fakes()
    with prepare(parameters(tmp_path / "d"), models) as run:
        models.fakes[Role.PAINTER] = Unreachable(run.machine.progress.stop)
        [shard] = run.planned
        work = run.work(shard)
        make_stage(STAGES[Stage.PROMPTS], work)
        began = time.monotonic()
        state = STAGE_TASKS[Stage.PAIRS](work, return_state=True)
    assert state.is_cancelled()
    assert "the wait for pairs" in state.message
    assert 1 < time.monotonic() - began < 30


@pytest.mark.server
def test_a_stop_ends_the_wait_for_a_slot_of_a_paid_service(server, tmp_path):
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name="calls", limit=1, active=True)
        )
    writer = {"kind": "chat", "model": "m", "base_url": "http://127.0.0.1:9", "api_key_env": None}
    changed = {**parameters(tmp_path / "d").model_dump(), "writer": writer, "writer_limit": "calls"}
    with prepare(GenerationParameters.model_validate(changed), Fakes()) as run:
        [shard] = run.planned
        work = run.work(shard)
        threading.Timer(1, run.machine.progress.stop).start()
        began = time.monotonic()
        with concurrency("calls", strict=True):
            state = make_stage(STAGES[Stage.PROMPTS], work)
        assert state.is_cancelled()
        assert "the wait for a slot of calls" in state.message
        assert time.monotonic() - began < 20
