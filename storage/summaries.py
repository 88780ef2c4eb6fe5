"""Summaries of what is committed: finished shards, and how far each slice is."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from storage.commits import Commit
from storage.records import Reason, Stage


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
            min_yield: Smallest share of written samples with which a shard is not degraded.
        """
        share = commit.counts.share_written
        return cls(
            name=commit.shard,
            path=f"{root}/{commit.object.path}" if commit.object else None,
            samples=commit.counts.written,
            sha256=commit.object.sha256 if commit.object else "",
            share_written=share,
            degraded=share < min_yield or commit.object is None,
            commit=commit,
        )


@dataclass
class SliceStatus:
    """What is committed of one slice.

    Attributes:
        slice_id: 8 hex digits.
        shards: Shards committed, by stage.
        requested: Samples of the finished shards.
        written: Samples in tars.
        dropped: Samples lost on the way, by reason.
        degraded: Names of finished shards below the minimum yield.
        num_bytes: Bytes of the tars.
        seconds: Wall time spent, by stage.
    """

    slice_id: str
    shards: Counter[Stage] = field(default_factory=Counter[Stage])
    requested: int = 0
    written: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter[Reason])
    degraded: list[str] = field(default_factory=list[str])
    num_bytes: int = 0
    seconds: dict[Stage, float] = field(default_factory=dict[Stage, float])

    def add(self, commit: Commit, min_yield: float) -> None:
        """Add a record of this slice."""
        self.shards[commit.stage] += 1
        self.seconds[commit.stage] = self.seconds.get(commit.stage, 0.0) + commit.seconds
        if commit.stage is not Stage.SHARDS:
            return
        self.requested += commit.counts.requested
        self.written += commit.counts.written
        self.dropped.update(commit.counts.rejected)
        self.dropped.update(commit.counts.failed)
        self.num_bytes += commit.object.size if commit.object else 0
        if CommittedShard.of(commit, "", min_yield).degraded:
            self.degraded.append(commit.shard)


def summarise(commits: Iterable[Commit], min_yield: float) -> list[SliceStatus]:
    """Summarise records by slice; of several about one output the newest counts.

    Args:
        commits: The records, in any order.
        min_yield: Smallest share of written samples with which a shard is not degraded.

    Returns:
        One status for each slice, by slice id.
    """
    by_age = sorted(commits, key=lambda commit: commit.created)
    latest = {(commit.stage, commit.shard): commit for commit in by_age}
    slices: dict[str, SliceStatus] = {}
    for commit in latest.values():
        slices.setdefault(commit.slice_id, SliceStatus(commit.slice_id)).add(commit, min_yield)
    return [slices[slice_id] for slice_id in sorted(slices)]
