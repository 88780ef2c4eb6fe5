"""The summary of a generation run: what it found, what it did, and what is left."""

from pydantic import Field

from flows.quotas import QuotaReport
from storage.commits import OtherOutcomes
from storage.records import Record, Stage

__all__ = ["GenerationSummary"]


class ShardFailure(Record, frozen=True):
    """A shard that could not be finished."""

    shard: str
    """Its name."""
    error: str
    """What stopped it."""


class GenerationSummary(Record, frozen=True):
    """What a run found and what it did."""

    root: str
    """The dataset."""
    slice_id: str
    """8 hex digits of the slice."""
    planned_shards: int
    """Shards that this run was asked for, without those of extra samples."""
    finished_before: int
    """Of these, shards that were committed when it began."""
    executed: dict[Stage, int]
    """Shards that were worked on, by stage, those of extra samples included."""
    failures: tuple[ShardFailure, ...]
    """Shards that are still to do."""
    not_started: int = Field(ge=0)
    """Shards that were not begun, because too many had failed before."""
    waiting: int = Field(default=0, ge=0)
    """Shards that wait for answers of batches."""
    requested: int
    """Samples of the finished shards, as far as this run was asked for them; extra samples are
    counted in `quota` alone."""
    written: int
    """Of these, samples in tars."""
    dropped: dict[str, int]
    """The others, by reason."""
    others: OtherOutcomes | None = None
    """What became of objects that nobody asked for, in the finished shards of which all samples
    were asked for; nothing where nobody looked."""
    quota: QuotaReport | None = None
    """Extra samples, and which classes stay short; nothing if no quota was asked for."""

    @property
    def is_complete(self) -> bool:
        """Whether every shard asked for is committed; classes may stay short of their quota."""
        return not self.failures and not self.not_started and not self.waiting


def describe_failures(summary: GenerationSummary) -> str:
    """Say which shards are left to do, and why."""
    left = len(summary.failures) + summary.not_started + summary.waiting
    planned = summary.planned_shards + (summary.quota.shards if summary.quota else 0)
    lines = [f"{left} of {planned} shards are left to do; run again to go on"]
    lines += [f"{failure.shard}: {failure.error}" for failure in summary.failures]
    if summary.not_started:
        lines.append(f"{summary.not_started} were not begun after too many had failed")
    if summary.waiting:
        lines.append(f"{summary.waiting} wait for answers of batches")
    return "; ".join(lines)
