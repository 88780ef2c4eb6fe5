"""Commit records: what a stage made for a shard, how much of it, and how to prove it."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field

from storage.errors import DataError
from storage.identity import canonical_json
from storage.layout import (
    UNIT_NAME,
    commit_path,
    intent_path,
    manifest_path,
    output_path,
)
from storage.records import Reason, Record, Rejected, Stage, read_record

_WAY_OUT = "run 'magicseg verify --repair', then 'magicseg generate' (or 'merge') again"
_CHECKSUM = "checksum"
_SAMPLE_KEY = re.compile(r"[0-9a-f]{8}\d{8}", re.ASCII)


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


class Verdict(Record, frozen=True):
    """What a piece says about one sample."""

    key: str = Field(pattern="^[0-9a-f]{16}$")
    """Digest of everything that the sample's output depends on, its inputs' digests included."""
    output: str = Field(pattern="^([0-9a-f]{16})?$")
    """Digest of what was made; empty if the sample was rejected."""


class ClassOutcomes(Record, frozen=True):
    """What became of the samples of one class."""

    planned: int = Field(ge=0)
    """Samples of the class; one of two classes counts for both."""
    written: int = Field(ge=0)
    """Of these, samples whose label map holds it."""


class OtherOutcomes(Record, frozen=True):
    """What became of objects that nobody asked for, in the written samples of whole shards."""

    images: int = Field(default=0, ge=0)
    """Samples that were looked through."""
    hiding: int = Field(default=0, ge=0)
    """Of these, samples in which an object was found."""
    ignored: int = Field(default=0, ge=0)
    """Objects whose pixels are ignored."""
    labelled: int = Field(default=0, ge=0)
    """Objects that are among the labels of their samples."""

    def __add__(self, other: "OtherOutcomes") -> "OtherOutcomes":
        return OtherOutcomes(
            images=self.images + other.images,
            hiding=self.hiding + other.hiding,
            ignored=self.ignored + other.ignored,
            labelled=self.labelled + other.labelled,
        )

    @property
    def words(self) -> str:
        """What was found, and what it became."""
        found = self.ignored + self.labelled
        if not found:
            return f"none found in {self.images} images"
        became = {"ignored": self.ignored, "labelled": self.labelled}
        parts = ", ".join(f"{count} {word}" for word, count in became.items() if count)
        return f"{found} found in {self.hiding} of {self.images} images: {parts}"


class Commit(Record, frozen=True):
    """A stage's output; its existence is what *done* means.

    The output is a finished shard, or a piece: what an earlier stage made of some samples of a
    cell. (Datasets of version 0.1 hold the outputs of earlier stages by shard, without verdicts.)
    """

    stage: Stage
    """The stage."""
    shard: str = Field(pattern=UNIT_NAME)
    """Name of the shard, ``<slice id>-<six digits>``, or of the cell."""
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
    libraries: dict[str, str] = Field(default_factory=dict[str, str])
    """Versions of the libraries that computed; for information, older records do not say."""
    verdicts: dict[str, Verdict] = Field(default_factory=dict[str, Verdict])
    """Pieces: what was decided, by sample key."""
    undelivered: dict[str, Reason] = Field(default_factory=dict[str, Reason])
    """Pieces: samples that a service did not deliver, and why; they stay to be made."""
    start: int | None = Field(default=None, ge=0)
    """Shards: position of the first sample in the slice; older records do not say."""
    stop: int | None = Field(default=None, ge=0)
    """Shards: one past the position of the last sample."""
    classes: dict[int, ClassOutcomes] = Field(default_factory=dict[int, ClassOutcomes])
    """Shards: what became of the samples of each class; older records do not say."""
    stage_seconds: dict[Stage, float] = Field(default_factory=dict[Stage, float])
    """Shards: wall time of the pieces that were packed, by stage."""
    others: dict[int, int] = Field(default_factory=dict[int, int])
    """Shards: written samples with an object that nobody asked for, by its class; empty where that
    was not looked for, and in older records."""
    found_others: OtherOutcomes | None = None
    """Shards: what became of such objects; None where that was not looked for, and in older
    records."""
    device: str = ""
    """Pieces: what computed, such as cpu or a GPU's product name; empty for stages that need no
    device, and in older records."""
    device_seconds: dict[Stage, dict[str, float]] = Field(
        default_factory=dict[Stage, dict[str, float]]
    )
    """Shards: `stage_seconds` by the device of the pieces; older records have none."""
    checksum: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """SHA-256 of the canonical JSON of everything else; older records have none."""

    @property
    def slice_id(self) -> str:
        """8 hex digits of the shard's slice."""
        return self.shard.partition("-")[0]

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """All bytes that the record vouches for."""
        return tuple(ref for ref in (self.object, self.manifest) if ref is not None)

    @property
    def is_piece(self) -> bool:
        """Whether it is about samples of a cell instead of a shard."""
        return bool(self.verdicts or self.undelivered)

    def sealed(self) -> Self:
        """The same record with its checksum."""
        checksum = _checksum(self.model_dump(mode="json"))
        return self.model_copy(update={_CHECKSUM: checksum})

    def encode(self) -> bytes:
        """Write the record as JSON."""
        return self.model_dump_json(indent=1).encode()


def read_commit(data: bytes, path: str) -> Commit:
    """Read a commit record, and check everything that it says about itself.

    Args:
        data: Its bytes.
        path: Where they lie in the dataset.

    Raises:
        DataError: They are no such record, differ from their checksum, lie in the wrong place,
            name other files than those of their stage and shard, or their counts do not add up.
    """
    commit = read_record(Commit, data, path, way_out=_WAY_OUT)
    if commit.checksum:
        found = _checksum(json.loads(data))
        if found != commit.checksum:
            message = (
                f"{path}: its checksum is {commit.checksum}, its contents give {found}; {_WAY_OUT}"
            )
            raise DataError(message)
    about = (commit.stage, commit.shard, commit.key)
    if path not in {commit_path(*about), intent_path(*about)}:
        message = f"{path}: the record is about {commit_path(*about)}; {_WAY_OUT}"
        raise DataError(message)
    for ref, expected in _places(commit):
        if ref is not None and ref.path != expected:
            message = f"{path} names the file {ref.path!r}, expected {expected!r}; {_WAY_OUT}"
            raise DataError(message)
    commit.counts.check(f"{commit.stage} of {commit.shard}")
    if commit.is_piece:
        _check_verdicts(commit, path)
    return commit


def _checksum(fields: dict[str, Any]) -> str:
    contents = {name: value for name, value in fields.items() if name != _CHECKSUM}
    return hashlib.sha256(canonical_json(contents)).hexdigest()


def _places(commit: Commit) -> list[tuple[ObjectRef | None, str]]:
    """The files that a record names, each with the place where it must be."""
    made = commit.object
    output = output_path(commit.stage, commit.shard, made.sha256) if made else ""
    return [(made, output), (commit.manifest, manifest_path(commit.shard))]


def _check_verdicts(commit: Commit, path: str) -> None:
    for key in (*commit.verdicts, *commit.undelivered):
        if not (_SAMPLE_KEY.fullmatch(key) and key.startswith(commit.slice_id)):
            message = (
                f"{path} is about {key!r}, expected keys {commit.slice_id}########; {_WAY_OUT}"
            )
            raise DataError(message)
    written = sum(bool(verdict.output) for verdict in commit.verdicts.values())
    found = (written, len(commit.verdicts) - written, len(commit.undelivered))
    counts = commit.counts
    expected = (counts.written, sum(counts.rejected.values()), sum(counts.failed.values()))
    if found != expected:
        message = (
            f"{path} has verdicts (written, rejected, failed) {found}, its counts say {expected}; "
            f"{_WAY_OUT}"
        )
        raise DataError(message)
