"""Payloads: what a stage hands to the store, and the record that will vouch for it."""

import hashlib
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from storage.commits import Commit, Counts, ObjectRef
from storage.errors import DataError
from storage.layout import manifest_path, output_path
from storage.libraries import library_versions
from storage.manifest import decode_manifest
from storage.pairs import read_pair_rows
from storage.records import Rejected, Stage
from storage.rows import read_rows
from storage.shards import count_samples


@dataclass(frozen=True)
class Payload:
    """What a stage made.

    Attributes:
        data: The bytes to store; empty if there is nothing (a shard without survivors).
        manifest: Parquet bytes of the manifest; final stage only.
        seconds: Wall time of the work.
        about: Further fields of the record: those that only pieces, or only shards, have.
    """

    data: bytes | memoryview
    manifest: bytes = b""
    seconds: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])


def describe_payload(
    stage: Stage, shard: str, key: str, payload: Payload, counts: Counts
) -> Commit:
    """Write the commit record of a payload.

    Args:
        stage: The stage.
        shard: Shard name.
        key: Digest of everything that the output depends on.
        payload: The output.
        counts: Where the samples went.
    """
    made, manifest = None, None
    if payload.data:
        sha256 = hashlib.sha256(payload.data).hexdigest()
        made = _reference(output_path(stage, shard, sha256), payload.data, sha256)
    if payload.manifest:
        sha256 = hashlib.sha256(payload.manifest).hexdigest()
        manifest = _reference(manifest_path(shard), payload.manifest, sha256)
    about: dict[str, Any] = {"libraries": library_versions(), **payload.about}
    return Commit(
        stage=stage,
        shard=shard,
        key=key,
        object=made,
        manifest=manifest,
        counts=counts,
        seconds=payload.seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        engine_version=version("magicseg-engine"),
        host=socket.gethostname(),
        **about,
    ).sealed()


def check_payload(stage: Stage, shard: str, payload: Payload, counts: Counts) -> None:
    """Refuse counts that do not add up, or that the payload contradicts.

    Raises:
        DataError: They do; says what was counted.
    """
    where = f"{stage} of {shard}"
    counts.check(where)
    if stage is Stage.SHARDS:
        _check_manifest(payload, counts, where)
    written = count_written(stage, payload.data)
    if written != counts.written:
        message = f"{where}: the output holds {written} samples, the counts say {counts.written}"
        raise DataError(message)


def _check_manifest(payload: Payload, counts: Counts, where: str) -> None:
    fates = Counter(row.status for row in decode_manifest(payload.manifest))
    expected = Counter(
        written=counts.written,
        rejected=sum(counts.rejected.values()),
        failed=sum(counts.failed.values()),
    )
    if fates != expected:
        message = f"{where}: the manifest has {dict(fates)}, the counts say {dict(expected)}"
        raise DataError(message)


def count_written(stage: Stage, data: bytes | memoryview) -> int:
    """Count the samples of an output, whatever its stage."""
    if not data:
        return 0
    if stage is Stage.SHARDS:
        return count_samples(data)
    if stage.holds_pictures:
        return len(read_pair_rows(data)[0])
    return sum(not isinstance(row, Rejected) for row in read_rows(bytes(data)))


def _reference(path: str, data: bytes | memoryview, sha256: str) -> ObjectRef:
    return ObjectRef(path=path, sha256=sha256, size=memoryview(data).nbytes)
