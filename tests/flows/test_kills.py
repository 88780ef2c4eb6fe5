"""A generating process is killed at random and at every fault point, and a rerun goes on.

`MAGICSEG_KILLS` says how many random kills there are; 40 or more take every fault point too.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import yaml

import generating
from cards import card_without_cost
from fault_points import FIRST_COMMIT, PIECE, RUN
from flows.kept_parameters import kept_parameters
from models.profiles import load_profile
from processes import end_processes
from storage.exit_codes import EXIT_INTERRUPTED
from storage.plan import plan_samples
from storage.records import Stage
from storage.slices import resolve_slice
from storage.store import Store
from storage.verification import verify_bytes
from storage.vocabulary import load_vocabulary

pytestmark = [pytest.mark.server, pytest.mark.slow]

KILLS = int(os.environ.get("MAGICSEG_KILLS", "6"))
SAMPLES, SIZE = 4, 2
NUM_CLASSES = 14

PLACES = ("intents", "commits", "leases")


def of_stage(step, stage):
    """The same step, of one stage only."""
    for place in PLACES:
        step = step.replace(f".engine/{place}/*", f".engine/{place}/{stage}/*")
    return step


FAULTS = [
    *(of_stage(step, "shards") for step in FIRST_COMMIT),
    *(of_stage(step, stage) for stage in ("prompts", "pairs", "masks", "others") for step in PIECE),
    *RUN,
]


class Generator:
    """Runs of one process, see `generating`."""

    def __init__(self, process, parameters):
        self._process = process
        self._parameters = parameters

    def changed(self, **changes):
        """The same with other parameters."""
        return Generator(self._process, {**self._parameters, **changes})

    def run(self, root, crash_at=None, kill_after=None, painted=None, stop_at=None):
        """One run in a process of its own; returns its exit code."""
        parameters = {**self._parameters, "root": str(root)}
        order = {"parameters": parameters, "crash_at": crash_at, "kill_after": kill_after}
        order |= {"painted": painted and str(painted), "stop_at": stop_at}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def generator(server, tmp_path_factory):
    from prefect.settings import PREFECT_API_URL

    folder = tmp_path_factory.mktemp("generator")
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    document["painter"] |= {"steps": 3, "batch_size": 4}
    document["labeller"]["detector"] |= {
        "box_threshold": 0.02,
        "text_threshold": 0.01,
        "batch_size": 4,
    }
    (folder / "quick.yaml").write_text(yaml.safe_dump(document))
    parameters = {
        "profile": str(folder / "quick.yaml"),
        "texts_per_class_set": 1,
        "detections": {"counterfactual": "record", "require": "any"},
        "masks": {"min_area": 0.0, "max_area": 1.0},
        "others": {"way": "ignore", "min_score": 0.0},
        "samples": SAMPLES,
        "samples_per_shard": SIZE,
    }
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, generating.__file__],
            env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    yield Generator(process, parameters)
    end_processes([process])


@pytest.fixture(scope="module")
def whole(generator, tmp_path_factory):
    """The dataset of a run that nobody killed, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("whole")
    assert generator.run(folder / "first") == 0
    root = folder / "d"
    began = time.monotonic()
    assert generator.run(root) == 0
    return contents(root), time.monotonic() - began


def contents(root):
    """Tars, manifests and card; a dead writer's temporary file stays for a minute, hidden."""
    paths = [*root.glob("data/[!.]*"), *root.glob(".engine/manifests/[!.]*")]
    return {"card": card_without_cost(root), **{path.name: path.read_bytes() for path in paths}}


def records(root):
    folder = root / ".engine/commits"
    return {path: path.read_bytes() for path in folder.rglob("*.json")}


def require_right(root, whole):
    """The same bytes, no finding, and no sample decided twice at any stage."""
    assert contents(root) == whole
    store = Store.open(root)
    assert verify_bytes(store, NUM_CLASSES) == []
    for stage in list(Stage)[:-1]:
        decided = Counter(key for commit in store.commits(stage) for key in commit.verdicts)
        assert set(decided.values()) <= {1}, stage
    aside = {path.name for path in root.glob(".engine/quarantine/*/*")}
    assert aside <= {"intents", "reason.txt"}, "a kill damages nothing"


def test_random_kills_lose_nothing_and_nothing_is_made_twice(generator, whole, tmp_path):
    expected, seconds = whole
    moments = np.random.default_rng(0)
    kills = runs = datasets = 0
    while kills < KILLS:
        datasets += 1
        root, code = tmp_path / f"d{datasets}", -signal.SIGKILL
        while code:
            before = records(root)
            moment = moments.uniform(0.0, seconds) if kills < KILLS else None
            code = generator.run(root, kill_after=moment)
            runs += 1
            kills += code == -signal.SIGKILL
            assert code in {0, -signal.SIGKILL}
            assert before.items() <= records(root).items(), "a record was changed or lost"
        require_right(root, expected)
    (tmp_path / "counts.txt").write_text(f"{kills} kills, {runs} runs, {datasets} datasets")
    assert kills >= KILLS


@pytest.mark.parametrize("step", FAULTS if KILLS >= 40 else FAULTS[::5])
def test_a_kill_at_a_fault_point_loses_nothing(generator, whole, tmp_path, step):
    root = tmp_path / "d"
    assert generator.run(root, step) == -signal.SIGKILL
    before = records(root)
    assert generator.run(root) == 0
    assert before.items() <= records(root).items()
    require_right(root, whole[0])


@pytest.fixture(scope="module")
def over(generator):
    """A generator that paints objects over, one shard after the other, one picture at once."""
    return generator.changed(twins={"way": "inpaint"}, shards_in_flight=1, batch_size=1)


@pytest.fixture(scope="module")
def whole_over(over, tmp_path_factory):
    """Its dataset when nobody kills it."""
    root = tmp_path_factory.mktemp("whole") / "d"
    assert over.run(root) == 0
    return contents(root)


TWINS = [of_stage(step, stage) for stage in ("twins", "checks") for step in PIECE]


def seeds_of(root, stage):
    """The seeds of the samples that a stage has decided about, by the records that are there."""
    decided = {key for commit in Store.open(root).commits(stage) for key in commit.verdicts}
    return {each.seed for each in planned(root) if each.key in decided}


def planned(root):
    """The samples of the only slice."""
    store = Store.open(root)
    [slice_id] = {commit.shard[:8] for commit in store.commits(Stage.PROMPTS)}
    kept = kept_parameters(store, str(root), slice_id)
    classes = store.specification.named(
        resolve_slice(load_vocabulary(kept.spec.vocabulary), kept.slice)
    )
    return plan_samples(kept.spec, classes, 0, SAMPLES)


def test_kills_while_twins_are_painted_over_and_checked_cost_no_picture(over, whole_over, tmp_path):
    """One dataset is killed at step after step of its two stages more, and goes on each time."""
    root, painted, told = tmp_path / "d", tmp_path / "painted", 0
    painted.touch()
    for step in [*(TWINS if KILLS >= 40 else TWINS[1::3]), None]:
        there = root.exists()
        before = records(root)
        done = seeds_of(root, Stage.TWINS) if there else set()
        code = over.run(root, step, painted=painted)
        assert code == (-signal.SIGKILL if step else 0), step
        assert before.items() <= records(root).items()
        lines = painted.read_text().splitlines()
        again = {line.split()[1] for line in lines[told:] if line.startswith("inpaint ")}
        assert not {int(seed) for seed in again} & done, step
        told = len(lines)
    require_right(root, whole_over)
    counts = Counter(lines)
    images = {line: count for line, count in counts.items() if line.startswith("paint_images ")}
    assert sorted(images.values()) == [1] * SAMPLES
    assert seeds_of(root, Stage.TWINS) == {int(line.split()[1]) for line in images}


def test_a_stop_while_twins_are_painted_over_keeps_those_that_are_painted(
    over, whole_over, tmp_path, type_line
):
    root, painted = tmp_path / "d", tmp_path / "painted"
    assert over.run(root, painted=painted, stop_at=2) == EXIT_INTERRUPTED
    done = seeds_of(root, Stage.TWINS)
    assert done
    assert len(done) < SIZE + 1
    code, said = type_line("status", root, "--json")
    assert code == 0
    [about] = json.loads(said)["slices"]
    assert [about["under_way"][stage] for stage in ("masks", "twins", "checks")] == [
        SIZE,
        len(done),
        0,
    ]
    for stage in ("twins", "checks"):
        assert "nothing to retry" in type_line("retry", root, "--stage", stage)[1]
    before = records(root)
    assert over.run(root, painted=painted) == 0
    assert before.items() <= records(root).items()
    require_right(root, whole_over)
    assert type_line("verify", root, "--deep") == (0, f"0 findings in {root}\n")
    counts = Counter(painted.read_text().splitlines())
    assert len(counts) == 2 * SAMPLES
    assert all(counts[f"inpaint {seed}"] == 1 for seed in done)
