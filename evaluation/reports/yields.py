"""Yields: where the planned samples of a dataset went, by stage, reason and class.

Everything is counted from manifest rows, one for each planned sample, so that at every level
``requested = written + rejected + failed``.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from storage.errors import DataError
from storage.manifest import ManifestRow
from storage.records import Reason, Stage


@dataclass(frozen=True)
class StageYield:
    """What a stage did with the samples that reached it.

    Attributes:
        stage: The stage.
        entered: Samples that reached it.
        dropped: Samples that left here, by reason.
    """

    stage: Stage
    entered: int
    dropped: dict[Reason, int]

    @property
    def passed(self) -> int:
        """Samples that went on."""
        return self.entered - sum(self.dropped.values())


@dataclass(frozen=True)
class ClassYield:
    """What became of the samples of one class; a sample of two classes counts for both.

    Attributes:
        name: Display name.
        written: Samples in the dataset.
        rejected: Samples that were not good enough.
        failed: Samples that a service did not deliver.
        reasons: The last two by reason, the most frequent first.
    """

    name: str
    written: int
    rejected: int
    failed: int
    reasons: dict[Reason, int]

    @property
    def requested(self) -> int:
        """All of them."""
        return self.written + self.rejected + self.failed

    @property
    def share(self) -> float:
        """Written of requested, in [0, 1]."""
        return self.written / self.requested


@dataclass(frozen=True)
class Yields:
    """The fate of every planned sample of the committed shards.

    Attributes:
        requested: Planned samples.
        written: Samples in the dataset.
        rejected: Samples that were not good enough.
        failed: Samples that a service did not deliver.
        stages: In the order in which a sample passes them.
        classes: By name.
    """

    requested: int
    written: int
    rejected: int
    failed: int
    stages: tuple[StageYield, ...]
    classes: tuple[ClassYield, ...]

    @property
    def share(self) -> float:
        """Written of requested, in [0, 1]; 1 if nothing was requested."""
        return self.written / self.requested if self.requested else 1.0

    @property
    def reasons(self) -> list[tuple[Stage, Reason, int]]:
        """Stage, reason and samples, in the order of the stages."""
        return [(s.stage, why, count) for s in self.stages for why, count in s.dropped.items()]


@dataclass
class _Counts:
    written: int = 0
    rejected: int = 0
    failed: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)

    def add(self, row: ManifestRow) -> None:
        if row.status == "written":
            self.written += 1
            return
        self.reasons[Reason(row.reason)] += 1
        if row.status == "rejected":
            self.rejected += 1
        else:
            self.failed += 1


def count_yields(rows: Iterable[ManifestRow]) -> Yields:
    """Count what became of the planned samples.

    Raises:
        DataError: If two rows have the same key.
    """
    total, dropped = _Counts(), Counter[tuple[Stage, Reason]]()
    by_class: defaultdict[str, _Counts] = defaultdict(_Counts)
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            message = f"sample {row.key} has two manifest rows, expected one: verify the dataset"
            raise DataError(message)
        seen.add(row.key)
        total.add(row)
        for name in row.class_names:
            by_class[name].add(row)
        if row.status != "written":
            dropped[Stage(row.stage), Reason(row.reason)] += 1
    return Yields(
        requested=len(seen),
        written=total.written,
        rejected=total.rejected,
        failed=total.failed,
        stages=_stages(len(seen), dropped),
        classes=tuple(_class_yield(name, by_class[name]) for name in sorted(by_class)),
    )


def _stages(requested: int, dropped: Counter[tuple[Stage, Reason]]) -> tuple[StageYield, ...]:
    stages, entered = [], requested
    for stage in Stage:
        lost = {why: dropped[stage, why] for why in Reason if dropped[stage, why]}
        stages.append(StageYield(stage, entered, lost))
        entered = stages[-1].passed
    return tuple(stages)


def _class_yield(name: str, counts: _Counts) -> ClassYield:
    reasons = dict(counts.reasons.most_common())
    return ClassYield(name, counts.written, counts.rejected, counts.failed, reasons)
