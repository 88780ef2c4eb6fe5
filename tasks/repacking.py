"""Repacking: shards of another size make way, once everything in them is there as pieces."""

from collections.abc import Iterable, Sequence

from storage.commits import Commit
from storage.errors import InputError
from storage.plan import ShardRange
from storage.store import Store
from tasks.earlier_layout import take_over
from tasks.work import ShardWork


def other_packing(
    store: Store, commits: Iterable[Commit], planned: Sequence[ShardRange]
) -> list[tuple[Commit, ShardRange]]:
    """The finished shards that hold planned samples, but in tars of another size.

    Args:
        store: The dataset.
        commits: Records of finished shards of the slice.
        planned: The wanted shards of the slice, in order.

    Returns:
        The records, each with the samples it holds.
    """
    if not planned:
        return []
    first, last, capacity = planned[0].start, planned[-1].stop, planned[0].capacity
    found: list[tuple[Commit, ShardRange]] = []
    for commit in commits:
        held = store.range_of(commit)
        if held is None:
            continue
        start, stop = held
        index = int(commit.shard.rpartition("-")[2])
        fits = start == index * capacity and stop <= start + capacity
        if not fits and start < last and stop > first:
            found.append((commit, ShardRange(commit.slice_id, index, start, stop, stop - start)))
    return found


def make_way(shards: Sequence[tuple[ShardWork, Commit]]) -> None:
    """Put finished shards aside whose samples are to be packed in another way: all, or none.

    Args:
        shards: The samples that they hold, and their records.

    Raises:
        InputError: Images of their samples are in a tar alone.
        LeaseHeldError: Somebody else works on one of them.
    """
    for work, commit in shards:
        take_over(work)
        _refuse_freed(work, commit)
    for work, commit in shards:
        work.store.withdraw(commit, "its samples are packed with another samples_per_shard")


def _refuse_freed(work: ShardWork, commit: Commit) -> None:
    samples = [(state, sample) for state in work.states() for sample in state.part.samples]
    undelivered = sum(sample.key in state.undelivered for state, sample in samples)
    decided = sum(state.is_decided(sample) for state, sample in samples)
    # of what failed in version 0.1 there is no piece
    failed = max(undelivered, sum(commit.counts.failed.values()))
    freed = len(samples) - decided - failed
    if freed > 0:
        message = (
            f"shard {commit.shard} cannot be packed with another samples_per_shard: the pieces of "
            f"{freed} of its {work.shard.count} samples were freed, expected all; go back to "
            f"samples_per_shard={work.shard.capacity}"
        )
        raise InputError(message)
