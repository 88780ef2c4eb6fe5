"""Garbage: bytes that no finished shard needs any more, and how they are freed.

The painted pictures of a shard are nearly all of the bytes below `.engine/objects`. Once the shard
is packed its tar has them too; they are needed only to pack them in another way. A shard that can
still grow, and the last one of each slice, keep theirs.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.batches import delete_batch, find_batch, restore_files
from storage.checks import defect
from storage.commit_log import BadRecord, record_path
from storage.commits import Commit
from storage.errors import LeaseHeldError
from storage.layout import INTENT_FOLDER, OBJECT_FOLDER, QUARANTINE_FOLDER, cell_name, is_cell
from storage.plan import index_of
from storage.quarantine import put_aside
from storage.records import Stage
from storage.spans import Spans
from storage.store import Store


@dataclass(frozen=True)
class Garbage:
    """What can be freed.

    Attributes:
        outputs: Records of painted pictures whose samples are all packed.
        loose: Paths of objects that no record and no intent names.
        unreadable: Files among the records and intents that cannot be read. As long as there are
            any, nothing counts as loose.
        num_bytes: Of the objects that would go.
        failed: Samples of the shards of these pictures that a service did not deliver.
    """

    outputs: tuple[Commit, ...]
    loose: tuple[str, ...]
    unreadable: tuple[str, ...]
    num_bytes: int
    failed: int

    @property
    def samples(self) -> int:
        """Samples whose pictures can be freed."""
        by_stage: Counter[Stage] = Counter()
        for output in self.outputs:
            by_stage[output.stage] += output.counts.requested
        return max(by_stage.values(), default=0)  # of most samples two stages hold one each


@dataclass
class Freed:
    """What was freed.

    Attributes:
        outputs: How many records.
        objects: How many objects.
        num_bytes: Of the objects.
        held: Shards and cells that were left alone, because somebody works there.
    """

    outputs: int = 0
    objects: int = 0
    num_bytes: int = 0
    held: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class _Named:
    """Who vouches for the objects.

    Attributes:
        commits: All records.
        begun: Objects that intents name.
        bad: Records and intents that cannot be read.
    """

    commits: tuple[Commit, ...]
    begun: frozenset[str]
    bad: tuple[str, ...]

    def names(self, without: Iterable[Commit] = ()) -> set[str]:
        """The objects that are named, if some records were not there."""
        gone = {record_path(each) for each in without}
        kept = [each for each in self.commits if record_path(each) not in gone]
        return {ref.path for each in kept for ref in each.objects} | self.begun


def find_garbage(store: Store) -> Garbage:
    """Find what can be freed; changes nothing.

    Args:
        store: The dataset.
    """
    # the objects first: what a worker writes from now on is not among them
    objects = store.objects.paths(OBJECT_FOLDER)
    named = _read_names(store)
    packed = _packed_shards(store)
    outputs = tuple(_packed_outputs(store, named.commits, packed))
    loose = () if named.bad else tuple(sorted(set(objects) - named.names()))
    sizes = {ref.path: ref.size for each in outputs for ref in each.objects}
    only = sizes.keys() - named.names(without=outputs)
    num_bytes = sum(sizes[path] for path in only)
    num_bytes += sum(store.objects.size(path) or 0 for path in loose)
    return Garbage(outputs, loose, named.bad, num_bytes, _count_failed(store, outputs, packed))


def free_garbage(store: Store, garbage: Garbage) -> Freed:
    """Free what was found, for good: of each output first the record, then its bytes.

    Args:
        store: The dataset.
        garbage: What `find_garbage` found.
    """
    freed = Freed()
    packed = _packed_shards(store) if garbage.outputs else {}
    for output in garbage.outputs:
        try:
            _free_output(store, output, packed, freed)
        except LeaseHeldError:
            freed.held.append(output.shard)
    if garbage.loose:
        _free_loose(store, garbage.loose, freed)
    return freed


def _read_names(store: Store) -> _Named:
    # intents before records: a commit that ends meanwhile has its record before its intent goes
    begun: list[Commit] = []
    commits: list[Commit] = []
    bad: list[str] = []
    for paths, found in ((store.objects.paths(INTENT_FOLDER), begun), (None, commits)):
        for each in store.log.scan(store.log.paths() if paths is None else paths):
            if isinstance(each, BadRecord):
                bad.append(each.path)
            else:
                found.append(each)
    named = frozenset(ref.path for each in begun for ref in each.objects)
    return _Named(tuple(commits), named, tuple(bad))


def _packed_shards(store: Store) -> dict[str, list[Commit]]:
    """The finished shards that cannot grow any more, by slice; never the last one of a slice."""
    by_slice: dict[str, list[Commit]] = {}
    for commit in store.log.shards().values():
        if store.range_of(commit) is not None:
            by_slice.setdefault(commit.slice_id, []).append(commit)
    return {slice_id: _full(store, commits) for slice_id, commits in by_slice.items()}


def _full(store: Store, commits: Sequence[Commit]) -> list[Commit]:
    ranges = {commit.shard: store.range_of(commit) or (0, 0) for commit in commits}
    last = max(commits, key=lambda commit: ranges[commit.shard])
    # a shard's place tells how many samples fit into it, save for the first, which is at 0
    sizes = {
        start // index
        for shard, (start, _) in ranges.items()
        if (index := int(shard.rpartition("-")[2]))
    }
    full: list[Commit] = []
    for commit in commits:
        start, stop = ranges[commit.shard]
        index = int(commit.shard.rpartition("-")[2])
        fits = stop - start == start // index if index else stop - start in sizes
        if commit is not last and fits and not defect(store.objects, commit, deep=False):
            full.append(commit)
    return full


def _spans(store: Store, commits: Iterable[Commit]) -> Spans:
    spans = Spans()
    for commit in commits:
        spans.add(*(store.range_of(commit) or (0, 0)))
    return spans


def _packed_outputs(
    store: Store, commits: Iterable[Commit], packed: Mapping[str, Sequence[Commit]]
) -> Iterator[Commit]:
    """The records of pictures whose samples are all in these shards."""
    spans = {slice_id: _spans(store, shards) for slice_id, shards in packed.items()}
    for commit in commits:
        if commit.stage.holds_pictures and commit.slice_id in spans:
            places = _places(store, commit)
            if places and all(spans[commit.slice_id].has(place) for place in places):
                yield commit


def _places(store: Store, output: Commit) -> Sequence[int]:
    """The positions of the samples that an output is about, in their slice."""
    if output.is_piece:
        return sorted(index_of(key) for key in {**output.verdicts, **output.undelivered})
    plan: dict[str, Any] = store.spec.get("plan") or {}
    size = plan.get("samples_per_shard")
    if size is None or is_cell(output.shard):
        return ()
    start = int(output.shard.rpartition("-")[2]) * int(size)
    return range(start, start + int(size))


def _holders(store: Store, output: Commit, packed: Mapping[str, Sequence[Commit]]) -> list[Commit]:
    """The shards that hold samples of an output."""
    places = _places(store, output)
    found: list[Commit] = []
    for shard in packed.get(output.slice_id, ()):
        start, stop = store.range_of(shard) or (0, 0)
        if start <= places[-1] and places[0] < stop:
            found.append(shard)
    return found


def _count_failed(
    store: Store, outputs: Iterable[Commit], packed: Mapping[str, Sequence[Commit]]
) -> int:
    shards = {shard.shard: shard for output in outputs for shard in _holders(store, output, packed)}
    return sum(sum(shard.counts.failed.values()) for shard in shards.values())


def _free_output(
    store: Store, output: Commit, packed: Mapping[str, Sequence[Commit]], freed: Freed
) -> None:
    units = {output.shard}
    if not is_cell(output.shard):  # pieces of its cells may be made of it, with the same bytes
        size = store.cell_samples
        units |= {cell_name(output.slice_id, place // size) for place in _places(store, output)}
    with contextlib.ExitStack() as stack:
        for unit in sorted(units):
            stack.enter_context(store.lease(output.stage, unit))
        if not _is_packed(store, output, packed):
            freed.held.append(output.shard)
            return
        begun = [
            path
            for unit in units
            for path in store.objects.paths(f"{INTENT_FOLDER}/{output.stage}/{unit}")
        ]
        kept = store.log.shared(output)
        store.objects.delete(record_path(output))
        freed.outputs += 1
        for ref in output.objects:
            if ref.path not in kept and not begun:
                store.objects.delete(ref.path)
                freed.objects += 1
                freed.num_bytes += ref.size


def _is_packed(store: Store, output: Commit, packed: Mapping[str, Sequence[Commit]]) -> bool:
    """Whether the shards that hold an output's samples are still there."""
    holders = [
        shard
        for shard in _holders(store, output, packed)
        if store.objects.size(record_path(shard)) is not None
        and not defect(store.objects, shard, deep=False)
    ]
    spans = _spans(store, holders)
    return all(spans.has(place) for place in _places(store, output))


def _free_loose(store: Store, paths: Sequence[str], freed: Freed) -> None:
    """Free objects that nobody names.

    A worker may be about to adopt one of them. So they are put aside first, and those that are
    named by then go back: its intent came before it looked.
    """
    sizes = {path: store.objects.size(path) or 0 for path in paths}
    reason = "named by no record: to be deleted by 'magicseg gc'"
    folder = put_aside(store.objects, paths, reason, level=logging.INFO)
    batch = find_batch(store.objects, folder.removeprefix(f"{QUARANTINE_FOLDER}/"))
    named = _read_names(store)
    wanted = list(paths) if named.bad else sorted(set(paths) & named.names())
    restore_files(store.objects, batch, wanted)
    delete_batch(store.objects, batch)
    gone = set(paths) - set(wanted)
    freed.objects += len(gone)
    freed.num_bytes += sum(sizes[path] for path in gone)
