"""Batches that threads make ahead: the same ones in the same order, whatever happens."""

import os
import threading
from itertools import pairwise

import pytest
import torch

from models.threads import usable_cores
from storage.errors import DataError
from storage.shards import pack
from storage.vocabulary import load_vocabulary
from training.config import AugmentationConfig, NegativesConfig, TrainingConfig
from training.data import Batches, BatchPlan, SampleFiles, find_shards
from training.loop import view_threads

VOCABULARY = load_vocabulary("miniature")
STEPS = [[first, first + 4] for first in range(0, 96, 8)]


def batches_of(folder, **changes):
    plan = {
        "side": 32,
        "classes_per_image": 5,
        "negatives": NegativesConfig(),
        "augmentation": AugmentationConfig(),
        "padding": (1, 2, 3),
        "seed": 0,
    }
    return Batches(SampleFiles(find_shards(str(folder)), VOCABULARY), BatchPlan(**plan | changes))


def workers():
    return [each for each in threading.enumerate() if each.name.startswith("views")]


def assert_same(first, second):
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(second, name)), name


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("mixed_shards", [None, 1])
def test_any_number_of_threads_gives_the_same_batches_in_order(tars, kept, threads, mixed_shards):
    batches = batches_of(tars, mixed_shards=mixed_shards)
    inline = [batches.batch(first, 4) for step in STEPS for first in step]
    threaded = kept(batches_of(tars, mixed_shards=mixed_shards).stream(iter(STEPS), 4, threads))
    assert len(inline) == len(threaded) == 24
    for first, second in zip(inline, threaded, strict=True):
        assert_same(first, second)
    assert not workers()


def test_a_batch_of_many_is_the_batches_of_one(tars):
    batches = batches_of(tars)
    whole = batches.batch(3, 6)
    for place in range(6):
        [alone] = [batches.batch(3 + place, 1)]
        for name in ("image", "counterfactual", "targets", "class_ids", "active", "present"):
            assert torch.equal(getattr(whole, name)[place], getattr(alone, name)[0]), name


@pytest.mark.parametrize("threads", [1, 8])
def test_memory_is_used_again_and_not_before_the_next_batch_is_asked_for(tars, threads):
    batches = batches_of(tars)
    places = []
    for number, step in enumerate(batches.stream(iter(STEPS * 4), 4, threads)):
        places.append([batch.image.data_ptr() for batch in step])
        first = STEPS[number % len(STEPS)]
        for batch, position in zip(step, first, strict=True):
            assert_same(batch, batches.batch(position, 4))
    assert len({place for step in places for place in step}) <= 2 * 5
    assert all(not set(one) & set(other) for one, other in pairwise(places))


@pytest.mark.parametrize("threads", [0, 1, 2, 8])
def test_a_damaged_sample_is_told_at_its_batch_after_all_before_it(draw, tmp_path, threads):
    data = bytearray(pack([draw(number) for number in range(12)]))
    place = data.index(b"IDAT", data.index(b"0000000000000007.mask.png"))
    data[place + 8] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(data)
    batches = batches_of(tmp_path)
    [position] = (p for p in range(12) if batches._epochs.place(p)[1] == 7)
    stream = batches.stream(iter([p] for p in range(0, 24, 2)), 2, threads)
    for _ in range(position // 2):
        next(stream)
    with pytest.raises(DataError, match=r"a\.tar: 0000000000000007\.mask\.png"):
        next(stream)
    assert not workers()


@pytest.mark.parametrize("threads", [1, 8])
def test_a_stream_that_is_left_leaves_no_thread(tars, threads):
    def endless():
        step = 0
        while True:
            yield [step]
            step += 4

    stream = batches_of(tars).stream(endless(), 4, threads)
    for _ in range(3):
        next(stream)
    assert workers()
    stream.close()
    assert not workers()


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_than_a_few_batches_are_made_ahead(tars, threads):
    asked = []

    def firsts():
        for step in range(40):
            asked.append(step)
            yield [4 * step]

    for number, _ in enumerate(batches_of(tars).stream(firsts(), 4, threads)):
        assert len(asked) <= number + 4
    assert len(asked) == 40


def test_every_core_of_this_process_makes_views_unless_a_number_is_given(settings, monkeypatch):
    assert view_threads(TrainingConfig(**settings)) == 0
    del settings["threads"]
    config = TrainingConfig(**settings)
    assert view_threads(config) == usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(usable_cores()))
    assert view_threads(config) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(4 * usable_cores()))
    assert view_threads(config) == 1
    assert config.identity() == config.model_copy(update={"threads": 4}).identity()
