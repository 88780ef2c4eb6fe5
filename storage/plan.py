"""The plan: which classes and which seed every sample has, as a pure function.

Any shard can be planned alone, in time that grows with its own samples and the number of classes,
and never with its index. The numbers follow from closed forms:

* Samples come in groups of ``texts_per_class_set`` that share their classes: sample i is in group
  g = i // texts_per_class_set. A writer is asked once for all texts of a group.
* With the share s of two-class groups, group g has two classes if floor((g + 1) s) > floor(g s),
  else one. Every class of a group fills a slot; the first slot of group g is g + floor(g s).
* With C classes, slot k belongs to round k // C, and each round is a permutation of the classes, so
  that after any number of groups no class has had more than one slot more than another.
* A group that begins with the last slot of a round must not meet its class again in the first slot
  of the next one: a round that starts with the class that ended the round before has its first two
  classes exchanged. With two classes that exchange would move the end as well, so all rounds have
  the same order there. With a single class every sample has one class, whatever the share.

The permutations are sorted by SHA-256 rather than drawn, so no library's generator is part of the
plan.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from pydantic import BaseModel, Field

from storage.errors import InputError
from storage.identity import derive_seed
from storage.layout import cell_name, shard_name
from storage.records import PlannedSample, PlannedShard
from storage.slices import Slice

__all__ = ["DatasetSpec", "plan_shard"]

MAX_SAMPLES = 10**8
"""A sample key has eight digits for the index in the slice."""
MAX_SHARDS = 10**6
"""A shard name has six."""

_CELL_SAMPLES = 64
_COMMON_BATCH = 8


class DatasetSpec(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What fixes the plan of a dataset, the slice apart."""

    vocabulary: str
    """Name of the vocabulary."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of every random choice."""
    samples_per_shard: int = Field(default=1000, ge=1)
    """Samples that are packed into one tar; changing it packs anew and makes nothing again."""
    two_class_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the samples that name two classes; the others name one."""
    texts_per_class_set: int = Field(default=10, ge=1)
    """Consecutive samples with the same classes, whose texts are asked for at once."""


@dataclass(frozen=True, slots=True)
class ShardRange:
    """Which samples of a slice a shard holds.

    Attributes:
        slice_id: 8 hex digits.
        index: Position of the shard in the slice.
        start: Position of its first sample in the slice.
        stop: One past the position of its last sample.
        capacity: Samples of a full shard.
    """

    slice_id: str
    index: int
    start: int
    stop: int
    capacity: int

    @property
    def name(self) -> str:
        """``<slice id>-<six digits>``."""
        return shard_name(self.slice_id, self.index)

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.stop - self.start


@dataclass(frozen=True)
class CellPart:
    """Samples of a cell that are wanted.

    A cell is a fixed run of a slice's samples, the same however they are packed into shards. What
    is made of its samples is committed together, and only one worker at a time makes it.

    Attributes:
        name: ``<slice id>-p<seven digits>``.
        samples: The samples that are wanted.
        class_sets: All samples of the class sets that these belong to: their texts are asked for
            together, so a text does not depend on which samples are wanted.
    """

    name: str
    samples: tuple[PlannedSample, ...]
    class_sets: tuple[PlannedSample, ...]


def most_samples(spec: DatasetSpec) -> int:
    """Samples of the longest slice that keys and names can count."""
    return min(MAX_SAMPLES, MAX_SHARDS * spec.samples_per_shard)


def count_shards(spec: DatasetSpec, num_samples: int) -> int:
    """Count the shards of a slice.

    Raises:
        InputError: If the number of samples is below 1 or above what keys and names can count.
    """
    most = most_samples(spec)
    if not 1 <= num_samples <= most:
        message = (
            f"{num_samples} samples cannot be planned: expected 1 to {most} for a slice with "
            f"{spec.samples_per_shard} samples per shard"
        )
        raise InputError(message)
    return -(-num_samples // spec.samples_per_shard)


def shard_range(spec: DatasetSpec, classes: Slice, index: int, num_samples: int) -> ShardRange:
    """Say which samples a shard holds, without planning them.

    Args:
        spec: What fixes the plan.
        classes: The slice.
        index: Position of the shard in the slice.
        num_samples: Samples of the whole slice; only the last shard depends on it.

    Raises:
        InputError: If there is no such shard, or the number of samples is out of range.
    """
    count = count_shards(spec, num_samples)
    if not 0 <= index < count:
        message = f"shard {index} does not exist: the slice has {count}, numbered from 0"
        raise InputError(message)
    start = index * spec.samples_per_shard
    stop = min(start + spec.samples_per_shard, num_samples)
    return ShardRange(classes.slice_id, index, start, stop, spec.samples_per_shard)


def plan_shard(spec: DatasetSpec, classes: Slice, index: int, num_samples: int) -> PlannedShard:
    """Plan one shard of a slice.

    Args:
        spec: What fixes the plan.
        classes: The slice.
        index: Position of the shard in the slice.
        num_samples: Samples of the whole slice; only the last shard depends on it.

    Raises:
        InputError: If there is no such shard, or the number of samples is out of range.
    """
    wanted = shard_range(spec, classes, index, num_samples)
    samples = plan_samples(spec, classes, wanted.start, wanted.stop)
    return PlannedShard(slice_id=wanted.slice_id, index=index, samples=samples)


def plan_samples(
    spec: DatasetSpec, classes: Slice, start: int, stop: int
) -> tuple[PlannedSample, ...]:
    """Plan consecutive samples of a slice.

    Args:
        spec: What fixes the plan.
        classes: The slice.
        start: Position of the first sample.
        stop: One past the position of the last.
    """
    groups = range(start // spec.texts_per_class_set, (stop - 1) // spec.texts_per_class_set + 1)
    rounds = _Rounds(spec.seed, classes)
    sets = {group: _class_set(spec, rounds, group) for group in groups}
    return tuple(
        _sample(spec, classes, i, sets[i // spec.texts_per_class_set]) for i in range(start, stop)
    )


def cell_size(spec: DatasetSpec) -> int:
    """Samples of a cell: about 64, a whole number of class sets and of batches of 8."""
    unit = math.lcm(spec.texts_per_class_set, _COMMON_BATCH)
    return unit * max(1, round(_CELL_SAMPLES / unit))


def cell_parts(spec: DatasetSpec, classes: Slice, start: int, stop: int) -> Iterator[CellPart]:
    """Cut consecutive samples of a slice at the borders of its cells.

    Args:
        spec: What fixes the plan; `samples_per_shard` has no part in it.
        classes: The slice.
        start: Position of the first sample.
        stop: One past the position of the last.
    """
    size, group = cell_size(spec), spec.texts_per_class_set
    for index in range(start // size, -(-stop // size)):
        first, last = max(start, index * size), min(stop, (index + 1) * size)
        low, high = first // group * group, min(-(-last // group) * group, MAX_SAMPLES)
        planned = plan_samples(spec, classes, low, high)
        yield CellPart(
            cell_name(classes.slice_id, index), planned[first - low : last - low], planned
        )


def index_of(sample_key: str) -> int:
    """The position in its slice that a sample's key stands for."""
    return int(sample_key[8:])


def _sample(
    spec: DatasetSpec, classes: Slice, index: int, class_ids: tuple[int, ...]
) -> PlannedSample:
    key = f"{classes.slice_id}{index:08d}"
    seed = derive_seed(spec.seed, f"{classes.classes_id}{index:08d}")
    return PlannedSample(key=key, index=index, class_ids=class_ids, seed=seed)


def _class_set(spec: DatasetSpec, rounds: "_Rounds", group: int) -> tuple[int, ...]:
    """The classes of a group, in the order in which its texts should name them."""
    share = _share(spec.two_class_share) if rounds.size > 1 else Fraction(0)
    first, end = (
        number + number * share.numerator // share.denominator for number in (group, group + 1)
    )
    return tuple(rounds.class_of(slot) for slot in range(first, end))


class _Rounds:
    """The classes of a slice, slot by slot; each round is ordered once.

    Args:
        seed: Seed of every random choice.
        classes: The slice.
    """

    def __init__(self, seed: int, classes: Slice) -> None:
        self.size = len(classes.class_ids)
        self._seed, self._classes = seed, classes
        self._known: dict[int, tuple[int, ...]] = {}

    def class_of(self, slot: int) -> int:
        number, position = divmod(slot, self.size)
        if number not in self._known:
            self._known[number] = self._round(number)
        return self._known[number][position]

    def _round(self, number: int) -> tuple[int, ...]:
        """The classes in the order of one round."""
        if self.size <= 2:
            return _shuffled(self._seed, self._classes, 0)
        order = _shuffled(self._seed, self._classes, number)
        if number > 0 and order[0] == _shuffled(self._seed, self._classes, number - 1)[-1]:
            return (order[1], order[0], *order[2:])
        return order


@lru_cache(maxsize=64)
def _shuffled(seed: int, classes: Slice, number: int) -> tuple[int, ...]:
    return tuple(
        sorted(
            classes.class_ids,
            key=lambda class_id: derive_seed(seed, classes.classes_id, number, class_id),
        )
    )


@lru_cache(maxsize=64)
def _share(share: float) -> Fraction:
    """The share as it was written: 0.3 is three tenths, not the nearest binary fraction."""
    return Fraction(repr(share))
