"""Repacking: shards of another size make way, once everything in them is there as pieces."""

from collections.abc import Iterable, Sequence

from storage.commits import Commit
from storage.errors import InputError
from storage.plan import ShardRange
from storage.records import Stage
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


def make_way(work: ShardWork, commit: Commit) -> None:
    """Put a finished shard aside whose samples are to be packed in another way.

    Args:
        work: The samples that it holds.
        commit: Its record.

    Raises:
        InputError: Images of its samples are in its tar alone.
        LeaseHeldError: Somebody else works on it.
    """
    take_over(work)
    written = sum(
        bool(verdict and verdict.output)
        for state in work.states()
        for sample in state.part.samples
        for verdict in [state.found[Stage.MASKS].get(sample.key)]
    )
    if written < commit.counts.written:
        message = (
            f"shard {commit.shard} cannot be packed with another samples_per_shard: the pieces of "
            f"{commit.counts.written - written} of its {commit.counts.written} samples were freed, "
            f"expected all; go back to samples_per_shard={work.shard.capacity}"
        )
        raise InputError(message)
    work.store.withdraw(commit, "its samples are packed with another samples_per_shard")
