"""Tallies: what became of the samples of a shard that somebody asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from storage.commits import ClassOutcomes, Commit, OtherOutcomes
from storage.manifest import ManifestRow, count_classes
from storage.records import Reason
from storage.store import Store


@dataclass(frozen=True)
class Tally:
    """Where some planned samples went.

    Attributes:
        requested: Planned samples.
        written: Of these, samples in tars.
        dropped: The others, by reason.
        classes: What became of the samples of each class.
        others: What became of objects that nobody asked for, in whole shards: manifests do not
            tell of them. None where nobody looked.
    """

    requested: int = 0
    written: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter[Reason])
    classes: Mapping[int, ClassOutcomes] = field(default_factory=dict[int, ClassOutcomes])
    others: OtherOutcomes | None = None

    @classmethod
    def of_record(cls, commit: Commit) -> Self:
        """Count the samples of a finished shard by its record, which must have its classes."""
        dropped = Counter(commit.counts.rejected) + Counter(commit.counts.failed)
        counts = commit.counts
        return cls(counts.requested, counts.written, dropped, commit.classes, commit.found_others)

    @classmethod
    def of_rows(cls, rows: Iterable[ManifestRow]) -> Self:
        """Count the rows of a manifest."""
        kept = list(rows)
        dropped = Counter(Reason(row.reason) for row in kept if row.status != "written")
        return cls(len(kept), len(kept) - dropped.total(), dropped, count_classes(kept))

    def __add__(self, other: "Tally") -> "Tally":
        classes = dict(self.classes)
        for class_id, more in other.classes.items():
            known = classes.get(class_id, ClassOutcomes(planned=0, written=0))
            classes[class_id] = ClassOutcomes(
                planned=known.planned + more.planned, written=known.written + more.written
            )
        looked = [each for each in (self.others, other.others) if each is not None]
        return Tally(
            self.requested + other.requested,
            self.written + other.written,
            self.dropped + other.dropped,
            classes,
            sum(looked, OtherOutcomes()) if looked else None,
        )


class Tallies:
    """Counts samples of finished shards, each shard at most once.

    Args:
        store: The dataset.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str, str, int, int], Tally] = {}

    def of(self, commit: Commit, start: int, stop: int) -> Tally:
        """Count those samples of a finished shard that lie in a range of its slice.

        Its record tells if the range holds all of them, its manifest if not.

        Args:
            commit: The record of the shard.
            start: Position of the first sample.
            stop: One past the position of the last.

        Raises:
            DamagedError: The manifest is not the one that was committed.
        """
        about = (commit.shard, commit.key, commit.created, start, stop)
        if about not in self._known:
            self._known[about] = self._count(commit, start, stop)
        return self._known[about]

    def _count(self, commit: Commit, start: int, stop: int) -> Tally:
        held = self._store.range_of(commit)
        if commit.classes and held is not None and start <= held[0] and held[1] <= stop:
            return Tally.of_record(commit)
        rows = self._store.manifest(commit)
        return Tally.of_rows(row for row in rows if start <= row.index < stop)
