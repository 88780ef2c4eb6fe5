"""Commit records: what a stage made for a shard, how much of it, and how to prove it."""

from collections import Counter
from collections.abc import Iterable
from typing import Self

from pydantic import Field

from storage.errors import DataError
from storage.records import Reason, Record, Rejected, Stage


class Counts(Record, frozen=True):
    """Where the samples of a shard went: ``requested = written + rejected + failed``."""

    requested: int = Field(ge=0)
    """Samples that the stage was asked for."""
    written: int = Field(ge=0)
    """Samples that the stage made."""
    rejected: dict[Reason, int] = Field(default_factory=dict[Reason, int])
    """Samples that are not good enough, by reason; a rerun gives the same answer."""
    failed: dict[Reason, int] = Field(default_factory=dict[Reason, int])
    """Samples that a service did not deliver, by reason; a rerun may end differently."""

    @classmethod
    def of(cls, requested: int, written: int, dropped: Iterable[Rejected]) -> Self:
        """Count a stage's outcome; `check` says whether it adds up."""
        reasons = Counter(row.reason for row in dropped)
        ordered = {reason: reasons[reason] for reason in Reason if reasons[reason]}
        return cls(
            requested=requested,
            written=written,
            rejected={why: count for why, count in ordered.items() if not why.is_failure},
            failed={why: count for why, count in ordered.items() if why.is_failure},
        )

    @property
    def dropped(self) -> int:
        """Samples rejected or failed, for whatever reason."""
        return sum(self.rejected.values()) + sum(self.failed.values())

    @property
    def share_written(self) -> float:
        """Yield in [0, 1]; 1 if nothing was requested."""
        return self.written / self.requested if self.requested else 1.0

    def check(self, where: str) -> None:
        """Raise DataError if the counts do not add up.

        Args:
            where: What the message is about.
        """
        if self.requested != self.written + self.dropped:
            message = (
                f"{where}: {self.requested} samples requested, but {self.written} written and "
                f"{self.dropped} dropped; every sample must have exactly one fate"
            )
            raise DataError(message)


class ObjectRef(Record, frozen=True):
    """Bytes in the store, and how to recognise them."""

    path: str
    """Relative to the root."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Hex digest of the bytes."""
    size: int = Field(ge=0)
    """Bytes."""


class Commit(Record, frozen=True):
    """A stage's finished output for one shard; its existence is what *done* means."""

    stage: Stage
    """The stage."""
    shard: str
    """Shard name: ``<slice id>-<six digits>``."""
    key: str = Field(pattern="^[0-9a-f]{16,}$")
    """Digest of everything that the output depends on."""
    object: ObjectRef | None
    """The output; None if the stage made nothing at all (a shard without survivors)."""
    manifest: ObjectRef | None
    """One row for each planned sample; final stage only."""
    counts: Counts
    """Where the samples went."""
    seconds: float = Field(ge=0)
    """Wall time of the work."""
    created: str
    """UTC time of the commit, ISO 8601."""
    engine_version: str
    """Version of the code."""
    host: str
    """Where it ran."""

    @property
    def slice_id(self) -> str:
        """8 hex digits of the shard's slice."""
        return self.shard.partition("-")[0]

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """All bytes that the record vouches for."""
        return tuple(ref for ref in (self.object, self.manifest) if ref is not None)
