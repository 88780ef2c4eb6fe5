import itertools
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from plans import plan
from storage.errors import InputError
from storage.identity import derive_seed
from storage.plan import MAX_SAMPLES, DatasetSpec, count_shards, plan_shard
from storage.slices import Slice, resolve_slice
from storage.vocabulary import load_vocabulary


def slice_of(num_classes):
    return resolve_slice(load_vocabulary("lvis1205"), f"7:{7 + num_classes}")


def spec_of(**fields):
    return DatasetSpec(vocabulary="lvis1205", **fields)


def random_cases():
    rng = np.random.default_rng(3)
    sizes = [1, 2, 3, 4, 5, 14, 31]
    shares = [0.0, 1.0, 0.5, 0.3, 0.1, 1 / 3, 0.999, 0.77]
    cases = []
    for size, share in itertools.product(sizes, shares):
        fields = {
            "seed": int(rng.integers(2**63)),
            "samples_per_shard": int(rng.integers(1, 41)),
            "two_class_share": share,
            "texts_per_class_set": int(rng.integers(1, 5)),
        }
        cases.append(pytest.param(size, fields, id=f"{size}-{share:.3f}"))
    return cases


@pytest.mark.parametrize(("size", "fields"), random_cases())
def test_no_class_ever_has_more_than_one_slot_more_than_another(size, fields):
    spec, classes = spec_of(**fields), slice_of(size)
    shards = plan(spec, classes, 9 * size * spec.texts_per_class_set)
    samples = [sample for shard in shards for sample in shard.samples]
    slots = Counter(dict.fromkeys(classes.class_ids, 0))
    for first in range(0, len(samples), spec.texts_per_class_set):
        group = samples[first : first + spec.texts_per_class_set]
        assert len({sample.class_ids for sample in group}) == 1
        assert len(set(group[0].class_ids)) == len(group[0].class_ids)
        slots.update(group[0].class_ids)
        assert max(slots.values()) - min(slots.values()) <= 1
    assert set(slots) == set(classes.class_ids)


@pytest.mark.parametrize(("size", "fields"), random_cases())
def test_any_shard_alone_is_the_shard_of_the_whole_plan(size, fields):
    spec, classes = spec_of(**fields), slice_of(size)
    num_samples = 5 * spec.samples_per_shard + 1
    whole = list(plan(spec, classes, num_samples))
    assert len(whole) == count_shards(spec, num_samples) == 6
    for index in (5, 2, 0):
        assert plan_shard(spec, classes, index, num_samples) == whole[index]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 1 / 3, 0.7, 1.0])
def test_the_share_of_two_class_groups_is_met_to_within_one_group(share):
    spec = spec_of(two_class_share=share, texts_per_class_set=1, samples_per_shard=1000)
    (shard,) = plan(spec, slice_of(20), 1000)
    pairs = 0
    for groups, sample in enumerate(shard.samples, start=1):
        pairs += len(sample.class_ids) == 2
        assert abs(pairs - groups * Fraction(repr(share))) < 1


def test_a_share_of_three_tenths_is_exact():
    spec = spec_of(two_class_share=0.3, texts_per_class_set=1)
    samples = next(plan(spec, slice_of(20), 1000)).samples
    assert sum(len(sample.class_ids) == 2 for sample in samples) == 300


def test_a_slice_of_one_class_has_one_class_per_sample():
    (shard,) = plan(spec_of(two_class_share=1.0), slice_of(1), 50)
    assert {sample.class_ids for sample in shard.samples} == {(7,)}


def test_rounds_differ_in_order_so_that_pairs_do_not_repeat():
    spec = spec_of(two_class_share=1.0, texts_per_class_set=1)
    (shard,) = plan(spec, slice_of(30), 150)
    assert len({frozenset(sample.class_ids) for sample in shard.samples}) > 120


def test_more_samples_leave_every_full_shard_as_it_is():
    spec, classes = spec_of(samples_per_shard=16), slice_of(14)
    small, large = list(plan(spec, classes, 70)), list(plan(spec, classes, 200))
    assert [len(shard.samples) for shard in small] == [16, 16, 16, 16, 6]
    assert small[:4] == large[:4]
    assert small[4].name == large[4].name
    assert small[4].samples == large[4].samples[:6]


def test_keys_sort_in_plan_order_and_seeds_are_their_own():
    classes = slice_of(14)
    samples = [
        s for shard in plan(spec_of(samples_per_shard=7), classes, 300) for s in shard.samples
    ]
    keys = [sample.key for sample in samples]
    assert keys == sorted(keys)
    assert keys[12] == f"{classes.slice_id}00000012"
    assert [sample.index for sample in samples] == list(range(300))
    assert len({sample.seed for sample in samples}) == 300


def test_another_seed_is_another_plan():
    classes = slice_of(14)
    one, other = (next(plan(spec_of(seed=seed), classes, 50)) for seed in (1, 2))
    assert [s.class_ids for s in one.samples] != [s.class_ids for s in other.samples]
    assert {s.seed for s in one.samples}.isdisjoint(s.seed for s in other.samples)


def test_the_plan_does_not_change_between_versions():
    # a dataset that is half made would otherwise be continued with another plan
    classes = Slice(
        slice_id="0123abcd", classes_id="0123abcd", class_ids=(3, 5, 8, 13), label="pinned"
    )
    spec = spec_of(seed=42, texts_per_class_set=1)
    samples = next(plan(spec, classes, 8)).samples
    assert [sample.class_ids for sample in samples] == [
        (8,),
        (3, 5),
        (13,),
        (3, 13),
        (8,),
        (5, 3),
        (13,),
        (5, 8),
    ]
    assert samples[7].seed == 8233503982893884950


def test_one_shard_of_a_plan_of_any_length_takes_no_longer_than_its_samples():
    spec, classes = spec_of(samples_per_shard=100), slice_of(1198)
    started = time.process_time()
    shard = plan_shard(spec, classes, MAX_SAMPLES // 100 - 1, MAX_SAMPLES)
    assert time.process_time() - started < 1
    assert shard.samples[-1].key.endswith("99999999")


def test_the_papers_380000_samples_over_1205_classes_are_planned_in_seconds():
    classes = resolve_slice(load_vocabulary("lvis1205"), "all")
    started = time.process_time()
    counts = Counter(
        i for s in plan(spec_of(), classes, 380_000) for x in s.samples for i in x.class_ids
    )
    assert time.process_time() - started < 20
    assert len(counts) == 1205
    assert max(counts.values()) - min(counts.values()) <= 10  # texts per class set


@pytest.mark.parametrize("num_samples", [0, -1, MAX_SAMPLES + 1])
def test_a_number_of_samples_out_of_range_is_refused(num_samples):
    with pytest.raises(InputError, match=f"{num_samples} samples .* expected 1 to"):
        plan(spec_of(), slice_of(3), num_samples)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_shard_outside_the_plan_is_refused(index):
    with pytest.raises(InputError, match=f"shard {index} does not exist: the slice has 3"):
        plan_shard(spec_of(samples_per_shard=10), slice_of(3), index, 30)


def test_every_sample_has_the_seed_that_its_key_had_before():
    (shard,) = plan(spec_of(seed=7), slice_of(3), 10)
    assert [each.seed for each in shard.samples] == [
        derive_seed(7, each.key) for each in shard.samples
    ]
