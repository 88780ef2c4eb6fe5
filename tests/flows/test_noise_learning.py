"""Noise learning from end to end: what it says of samples, and runs that are killed."""

import json
import signal
import time

import pytest

from evaluation.scoring.agreement import Agreement
from noisy_scenes import SLICE, VOCABULARY, commit_scenes, is_wrong
from storage.exclusions import exclude_samples, excluded_keys, include_samples, read_exclusions
from storage.folds import Fold
from storage.store import Store
from tasks.noise import NoiseRules, apply_noise
from training.data import SampleFiles, find_shards


@pytest.fixture
def store(tmp_path, commit_drawn):
    return commit_drawn(tmp_path / "d", 6)


def judged(count, low=()):
    return {
        f"{n:016x}": Agreement(classes={n: 0.1 if n in low else 0.9}, objects=0.5)
        for n in range(count)
    }


def test_noise_is_left_out_and_taken_back_and_the_same_twice_is_nothing(store):
    rules = NoiseRules(keep=0.67, ranking="all")
    verdict = apply_noise(store, judged(6, low=(1, 4)), rules, who="me")
    assert (verdict.judged, verdict.dropped, verdict.changed) == (6, 2, 2)
    assert (verdict.mean_kept, verdict.mean_dropped) == pytest.approx((0.9, 0.1))
    assert excluded_keys(store.objects) == {f"{1:016x}", f"{4:016x}"}
    line = read_exclusions(store.objects)[0]
    assert (line.by, line.score, line.who) == ("noise-learning", 0.1, "me")
    assert line.why == "the agreement is not among the best 67 % of all samples"
    assert apply_noise(store, judged(6, low=(1, 4)), rules, who="me").changed == 0
    assert len(read_exclusions(store.objects)) == 2
    later = apply_noise(store, judged(6, low=(1, 5)), rules, who="me")
    assert later.changed == 2
    assert excluded_keys(store.objects) == {f"{1:016x}", f"{5:016x}"}


def test_what_people_said_stands(store):
    one, two = f"{1:016x}", f"{4:016x}"
    rules = NoiseRules(keep=0.67, ranking="all")
    apply_noise(store, judged(6, low=(1, 4)), rules, who="me")
    include_samples(store, [one], who="ann", why="it is right")
    exclude_samples(store, [f"{0:016x}"], who="ann", why="it is wrong")
    again = apply_noise(store, judged(6, low=(1, 4)), rules, who="me")
    assert (again.changed, again.dropped, again.by_hand) == (0, 1, 1)
    assert excluded_keys(store.objects) == {two, f"{0:016x}"}


def test_nothing_is_written_where_it_is_only_asked(store):
    rules = NoiseRules(keep=0.67, ranking="all")
    verdict = apply_noise(store, judged(6, low=(1, 4)), rules, who="me", change=False)
    assert verdict.changed == 2
    assert read_exclusions(Store.open(store.root).objects) == []


def test_a_part_that_is_held_out_is_not_trained_on_whatever_was_said_of_it(tmp_path):
    store = commit_scenes(tmp_path / "d", [8, 8])
    fold = Fold(number=0, of=2)
    whole = len(SampleFiles(find_shards(store.root), VOCABULARY))
    noise = {f"{SLICE}00000001": Agreement(classes={1: 0.0}, objects=0.0)}
    apply_noise(store, noise, NoiseRules(keep=0.3), who="me")
    exclude_samples(store, [f"{SLICE}00000002"], who="ann", why="torn")
    parts = [find_shards(store.root, held_out=Fold(number=n, of=2)) for n in range(2)]
    sizes = [len(SampleFiles(part, VOCABULARY)) for part in parts]
    in_first = fold.has(f"{SLICE}00000002")
    kept = sum(sizes)  # each sample is in one of the two trainings, but for the torn one
    assert kept == whole - 1
    assert sizes[0 if not in_first else 1] < whole
    assert len(SampleFiles(find_shards(store.root), VOCABULARY)) == whole - 2


QUICK = ["--set", "optimiser.steps=30", "--set", "checkpoint_every=10", "--set", "compile=false"]


def denoise(run, root, out, *more):
    code, said, err = run("denoise", root, "--out", out, "--folds", 2, *QUICK, *more, "--json")
    assert code == 0, err
    return json.loads(said)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_a_second_one_changes_nothing(magicseg, run, tmp_path):
    root, out = tmp_path / "d", tmp_path / "noise"
    store = commit_scenes(root, [12, 12])
    killed = magicseg("denoise", root, "--out", out, "--folds", 2, *QUICK)
    first, second = (out / f"fold-{number}-of-2" for number in (1, 2))
    deadline = time.monotonic() + 300
    while not list(second.glob("checkpoints/step-*/checkpoint.json")):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert read_exclusions(store.objects) == []
    made = {path: path.stat().st_mtime_ns for path in first.rglob("*.safetensors")}
    only_asked = denoise(run, root, out, "--dry-run")
    assert (only_asked["judged"], only_asked["changed"]) == (24, 7)
    assert read_exclusions(store.objects) == []
    verdict = denoise(run, root, out)
    assert (verdict["dropped"], verdict["changed"]) == (7, 7)
    assert made == {path: path.stat().st_mtime_ns for path in first.rglob("*.safetensors")}
    again = denoise(run, root, out)
    assert again == {**verdict, "changed": 0}
    stricter = denoise(run, root, out, "--keep", 0.5)
    assert (stricter["dropped"], stricter["changed"]) == (12, 5)
    assert len(SampleFiles(find_shards(store.root), VOCABULARY)) == 12
    code, _, err = run("denoise", root, "--out", out, "--folds", 2, "--set", "optimiser.steps=31")
    assert code == 2
    assert "optimiser.steps" in err


@pytest.mark.full
def test_students_find_four_of_five_masks_of_other_scenes(tmp_path):
    from rich.console import Console

    from flows.noise_learning import NoiseParameters, learn_noise_locally

    root = tmp_path / "d"
    store = commit_scenes(root, [80, 80])
    parameters = NoiseParameters(dataset=str(root), out=str(tmp_path / "noise"))
    verdict = learn_noise_locally(parameters, Console(quiet=True))
    planted = {f"{SLICE}{index:08d}" for index in range(160) if is_wrong(index)}
    assert (verdict.judged, verdict.dropped, len(planted)) == (160, 48, 32)
    found = excluded_keys(store.objects) & planted
    assert len(found) >= 0.8 * len(planted)
    assert verdict.mean_dropped < verdict.mean_kept - 0.2


@pytest.mark.slow
@pytest.mark.server
def test_the_flow_runs_each_step_as_a_task_and_a_closed_set_may_judge(server, tmp_path):
    from flows.noise_learning import learn_noise

    store = commit_scenes(tmp_path / "d", [12, 12])
    form = {
        "dataset": store.root,
        "out": str(tmp_path / "noise"),
        "folds": 2,
        "closed_set": {
            "recipe": "deeplabv3_miniature",
            "classes": "cat,boat",
            "settings": {"steps": 2, "checkpoint_every": 2, "workers": 0},
        },
    }
    verdict = learn_noise(**form)
    shown = [
        row
        for shard in store.shards()
        for row in store.manifest(shard.commit)
        if {"cat", "boat"} & set(row.class_names)
    ]
    assert verdict.judged == len(shown)  # the others show no class that it knows, and stay
    assert verdict.changed == verdict.dropped
    assert learn_noise(**form) == verdict.model_copy(update={"changed": 0})
