"""Summaries of what is committed: finished shards, and how far each slice is."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Self

from storage.commit_log import CommitLog
from storage.commits import Commit, OtherOutcomes
from storage.layout import is_cell
from storage.plan import index_of
from storage.records import Reason, Stage
from storage.spans import Spans

DEVICE_STAGES = (
    Stage.PAIRS,
    Stage.DETECTIONS,
    Stage.MASKS,
    Stage.TWINS,
    Stage.CHECKS,
    Stage.OTHERS,
)
"""The stages whose models compute on a device."""


@dataclass(frozen=True)
class CommittedShard:
    """A finished shard, as training sees it.

    Attributes:
        name: ``<slice id>-<six digits>``.
        path: Absolute path or URL of the tar; None if no sample survived.
        samples: Samples in the tar.
        sha256: Digest of the tar, or an empty string.
        share_written: Yield in [0, 1].
        degraded: Whether the yield is below the spec's minimum; not counted as training data.
        commit: The whole record.
    """

    name: str
    path: str | None
    samples: int
    sha256: str
    share_written: float
    degraded: bool
    commit: Commit

    @classmethod
    def of(cls, commit: Commit, root: str, min_yield: float) -> Self:
        """Read a record of the last stage.

        Args:
            commit: The record.
            root: Path or URL of the dataset.
            min_yield: Smallest share of written samples with which a shard is not degraded. It
                does not hold for shards of a single class: their yield tells about the class.
        """
        share = commit.counts.share_written
        least = min_yield if len(commit.classes) != 1 else 0.0
        return cls(
            name=commit.shard,
            path=f"{root}/{commit.object.path}" if commit.object else None,
            samples=commit.counts.written,
            sha256=commit.object.sha256 if commit.object else "",
            share_written=share,
            degraded=share < least or commit.object is None,
            commit=commit,
        )


@dataclass
class SliceStatus:
    """What is committed of one slice.

    Attributes:
        slice_id: 8 hex digits.
        shards: Finished shards.
        requested: Samples of the finished shards.
        written: Samples in tars.
        dropped: Samples lost on the way, by reason.
        degraded: Names of finished shards below the minimum yield.
        num_bytes: Bytes of the tars.
        seconds: Wall time spent, by stage.
        device_seconds: The same by what computed, for the stages that need a device; the name is
            empty where older records do not say.
        others: Written samples with an object that nobody asked for, by its class; empty where that
            was not looked for.
        found_others: What became of such objects; None where nobody looked.
        under_way: Samples of unfinished shards that are decided, by stage.
        still_open: Why samples of unfinished shards are not decided, by sample key: a service did
            not deliver them, or they were opened again.
    """

    slice_id: str
    shards: int = 0
    requested: int = 0
    written: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter[Reason])
    degraded: list[str] = field(default_factory=list[str])
    num_bytes: int = 0
    seconds: dict[Stage, float] = field(default_factory=dict[Stage, float])
    device_seconds: dict[Stage, dict[str, float]] = field(
        default_factory=dict[Stage, dict[str, float]]
    )
    others: Counter[int] = field(default_factory=Counter[int])
    found_others: OtherOutcomes | None = None
    under_way: Counter[Stage] = field(default_factory=Counter[Stage])
    still_open: dict[str, Reason] = field(default_factory=dict[str, Reason])

    @property
    def undelivered(self) -> Counter[Reason]:
        """Samples of unfinished shards that are still open, by reason."""
        return Counter(self.still_open.values())

    def add_shard(self, commit: Commit, min_yield: float) -> None:
        """Add a finished shard of this slice."""
        self.shards += 1
        self.requested += commit.counts.requested
        self.written += commit.counts.written
        self.dropped.update(commit.counts.rejected)
        self.dropped.update(commit.counts.failed)
        self.others.update(commit.others)
        if commit.found_others is not None:
            self.found_others = (self.found_others or OtherOutcomes()) + commit.found_others
        self.num_bytes += commit.object.size if commit.object else 0
        for stage, seconds in (*commit.stage_seconds.items(), (Stage.SHARDS, commit.seconds)):
            devices = commit.device_seconds.get(stage) or {"": seconds}
            self._spend(stage, seconds, devices)
        if CommittedShard.of(commit, "", min_yield).degraded:
            self.degraded.append(commit.shard)

    def add_piece(self, commit: Commit, finished: Spans, decided: Set[tuple[Stage, str]]) -> None:
        """Add a piece, as far as its samples are in no finished shard.

        Args:
            commit: Its record.
            finished: The samples that are.
            decided: Stages and sample keys that any piece has a verdict about.
        """
        verdicts = [key for key in commit.verdicts if not finished.has(index_of(key))]
        self.under_way[commit.stage] += len(verdicts)
        for key, why in commit.undelivered.items():
            if (commit.stage, key) not in decided and not finished.has(index_of(key)):
                self.still_open[key] = why
        if verdicts:
            seconds = commit.seconds * len(verdicts) / len(commit.verdicts)
            self._spend(commit.stage, seconds, {commit.device: seconds})

    def _spend(self, stage: Stage, seconds: float, devices: Mapping[str, float]) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if stage in DEVICE_STAGES:
            spent = self.device_seconds.setdefault(stage, {})
            for device, part in devices.items():
                spent[device] = spent.get(device, 0.0) + part


def summarise(
    log: CommitLog,
    cell_samples: int,
    range_of: Callable[[Commit], tuple[int, int] | None],
    min_yield: float,
) -> list[SliceStatus]:
    """Summarise the records of a dataset by slice.

    Pieces whose samples are all in finished shards are not even read.

    Args:
        log: The records.
        cell_samples: Samples of a cell.
        range_of: Says which samples a finished shard holds.
        min_yield: Smallest share of written samples with which a shard is not degraded.

    Returns:
        One status for each slice, by slice id.
    """
    slices: dict[str, SliceStatus] = {}
    finished: dict[str, Spans] = {}
    for _, commit in sorted(log.shards().items()):
        status = slices.setdefault(commit.slice_id, SliceStatus(commit.slice_id))
        status.add_shard(commit, min_yield)
        held = range_of(commit)
        if held is not None:
            finished.setdefault(commit.slice_id, Spans()).add(*held)
    pieces = list(_pieces(log, cell_samples, finished))
    decided = {(commit.stage, key) for commit in pieces for key in commit.verdicts}
    for commit in pieces:
        status = slices.setdefault(commit.slice_id, SliceStatus(commit.slice_id))
        status.add_piece(commit, finished.get(commit.slice_id, Spans()), decided)
    return [slices[slice_id] for slice_id in sorted(slices)]


def _pieces(log: CommitLog, cell_samples: int, finished: Mapping[str, Spans]) -> Iterator[Commit]:
    unfinished: list[str] = []
    for path in log.paths():
        unit = path.split("/")[-2]
        slice_id, _, index = unit.partition("-p")
        if not is_cell(unit) or not index.isdigit():
            continue
        start = int(index) * cell_samples
        if slice_id not in finished or not finished[slice_id].hold(start, start + cell_samples):
            unfinished.append(path)
    return log.read_good(unfinished)
