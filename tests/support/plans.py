"""Whole slices, planned shard by shard."""

from collections.abc import Iterator

from storage.plan import DatasetSpec, count_shards, plan_shard
from storage.records import PlannedShard
from storage.slices import Slice

__all__ = ["plan"]


def plan(spec: DatasetSpec, classes: Slice, num_samples: int) -> Iterator[PlannedShard]:
    """Plan all shards of a slice, in order."""
    count = count_shards(spec, num_samples)
    return (plan_shard(spec, classes, index, num_samples) for index in range(count))
