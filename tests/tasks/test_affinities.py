"""Affinities are trained on a dataset's own maps, go on after a kill, and carry masks."""

import hashlib
import signal
import subprocess
import time

import pytest

from processes import end_processes
from recorded import generated
from storage.codecs import decode_label_map
from storage.errors import InputError
from storage.exclusions import exclude_samples, include_samples
from storage.store import Store
from tasks.affinities import AffinityJob, AffinityTraining, RecordedSeeds

RECORD = {"pairs": {"record": {"cross": [8], "cells": None}}}
QUICK = {
    "network": {"stride": 2, "widths": [16, 16, 16], "embeddings": [16, 16, 16]},
    "crop": 32,
    "epochs": 1,
    "batch_size": 2,
    "checkpoint_every": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("recorded") / "dataset"
    samples, _ = generated(root, **RECORD)
    return root, samples


def job(dataset, out, **changes):
    config = QUICK | changes.pop("config", {})
    return AffinityJob.model_validate(
        {"dataset": str(dataset), "out": str(out), "cross_resolutions": {8: 1.0}, "config": config}
        | changes
    )


def test_seeds_lie_in_the_objects_that_the_painter_looked_for(dataset, tmp_path):
    root, samples = dataset
    items = RecordedSeeds(job(root, tmp_path))
    assert len(items) == len(samples)
    by_class = {}
    for sample in samples.values():
        for class_id in sample.class_ids:
            by_class.setdefault(class_id, []).append(decode_label_map(sample.mask_bytes))
    for number in range(len(items)):
        seeds = items[number].labels
        for label in set(seeds[(seeds > 0) & (seeds < 65535)].tolist()):
            assert any(
                (exact[seeds == label] == label).mean() > 0.5 for exact in by_class[label - 1]
            )


def test_excluded_samples_are_left_out_and_another_choice_is_another_training(tmp_path):
    root = tmp_path / "dataset"
    samples, _ = generated(root, **RECORD)
    store = Store.open(root)
    first, second, *_ = sorted(sample.key for sample in samples.values())
    of_all = RecordedSeeds(job(root, tmp_path))
    exclude_samples(store, [first], who="eve", why="blurred")
    without_first = RecordedSeeds(job(root, tmp_path))
    assert len(without_first) == len(of_all) - 1
    include_samples(store, [first], who="eve", why="it is fine")
    assert RecordedSeeds(job(root, tmp_path)).identity() == of_all.identity()
    exclude_samples(store, [second], who="eve", why="blurred")
    without_second = RecordedSeeds(job(root, tmp_path))
    assert len(without_second) == len(without_first)
    assert without_second.identity() != without_first.identity()


def test_a_class_has_a_network_of_its_own(dataset, tmp_path):
    root, samples = dataset
    name = next(iter(samples.values())).class_names[0]
    some = RecordedSeeds(job(root, tmp_path, classes=(name,)))
    assert 0 < len(some) < len(samples)
    assert name in some.classes
    with pytest.raises(InputError, match="unicorn"):
        RecordedSeeds(job(root, tmp_path, classes=("unicorn",)))


def test_a_killed_training_ends_with_the_same_network(dataset, tmp_path):
    root, _ = dataset
    whole = AffinityTraining(job(root, tmp_path / "whole"))
    record = whole.work()
    assert whole.work() == whole.collect() == record
    step = AffinityTraining(job(root, tmp_path / "killed"))
    step.folder.mkdir()
    child = subprocess.Popen(step.program())
    try:
        while not list(step.folder.glob("checkpoints/step-*")) and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not (step.folder / "model.safetensors").exists()
    finally:
        end_processes([child])
    subprocess.run(step.program(), check=True)
    first, second = (
        hashlib.sha256((each.folder / "model.safetensors").read_bytes()).hexdigest()
        for each in (whole, step)
    )
    assert first == second


def test_masks_walk_along_them(dataset, tmp_path):
    root, samples = dataset
    folder = tmp_path / "affinities"
    AffinityTraining(job(root, folder)).work()
    labeller = {
        "kind": "diffumask",
        "cross_resolutions": {"8": 1.0},
        "min_presence": 0.5,
        "affinity": str(folder),
        "device": "cpu",
    }
    rules = {"masks": {"min_area": 0, "max_area": 1}, "detections": {"require": "any"}}
    other, asked = generated(
        tmp_path / "walked", **RECORD, **rules, labeller=labeller, reuse=str(root)
    )
    assert not {"painter", "writer"} & {role.value for role in asked}
    assert len(other) > len(samples) // 2
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="train again into another folder"):
        generated(tmp_path / "broken", **RECORD, labeller=labeller, reuse=str(root))


def test_a_dataset_without_maps_is_told(tmp_path):
    generated(tmp_path / "plain")
    with pytest.raises(InputError, match=r"no finished sample with attention maps.*pairs\.record"):
        RecordedSeeds(job(tmp_path / "plain", tmp_path / "out"))
    with pytest.raises(InputError, match="nowhere"):
        RecordedSeeds(job(tmp_path / "nowhere", tmp_path / "out"))
