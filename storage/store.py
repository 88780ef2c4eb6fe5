"""The store: one place where outputs are found, made durable, and declared done."""

import contextlib
import hashlib
import json
import logging
import secrets
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from storage.commits import Commit, Counts, ObjectRef
from storage.errors import DataError, InputError, TransientError
from storage.identity import SCHEME, canonical_json, describe_drift
from storage.leases import Lease, take_lease
from storage.manifest import ManifestRow, decode_manifest, manifest_path
from storage.objects import LocalObjects, ObjectStore, open_objects
from storage.pairs import EncodedPair, iterate_pairs, read_pair_rows
from storage.records import Reason, Record, Rejected, Stage
from storage.rows import read_rows
from storage.shards import SHARD_FOLDER, count_samples, shard_path

ENGINE_FOLDER = ".engine"
SPEC_PATH = f"{ENGINE_FOLDER}/spec.json"
CARD_PATH = "README.md"
DEFAULT_MIN_YIELD = 0.5
"""Smallest share of written samples with which a shard counts as good, unless the spec says."""

_KEY_DIGITS = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Payload:
    """What a stage made.

    Attributes:
        data: The bytes to store; empty if there is nothing (a shard without survivors).
        manifest: Parquet bytes of the manifest; final stage only.
        seconds: Wall time of the work.
    """

    data: bytes | memoryview
    manifest: bytes = b""
    seconds: float = 0.0


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
    shards: Counter[Stage] = field(default_factory=Counter)
    requested: int = 0
    written: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter)
    degraded: list[str] = field(default_factory=list)
    num_bytes: int = 0
    seconds: dict[Stage, float] = field(default_factory=dict)


class Store:
    """A dataset: stage outputs, shards, manifests and the commit records that vouch for them.

    Nothing counts as done without its commit record; whoever reads lists records only. All
    methods may be called from any thread.

    Args:
        objects: Where the bytes live.
        spec: What the dataset is made of.
    """

    def __init__(self, objects: ObjectStore, spec: dict[str, Any]) -> None:
        self.objects = objects
        self.spec = spec
        self._held: dict[tuple[Stage, str], Lease] = {}

    @classmethod
    def create(cls, root: str | Path, spec: Mapping[str, Any]) -> Self:
        """Create a dataset, or resume the one that is there if it has the same spec.

        Durable when it returns. Temporary files of dead writers are removed.

        Args:
            root: Local path or object-store URL.
            spec: JSON-like; what every sample depends on. ``min_yield`` is read by `shards`.

        Raises:
            InputError: The root holds a dataset with another spec (the message says what
                differs), or a README.md of somebody else.
        """
        objects = open_objects(root)
        contents = canonical_json({"scheme": SCHEME, "spec": spec})
        if objects.size(SPEC_PATH) is None and objects.size(CARD_PATH) is not None:
            msg = (
                f"{objects.url} has a {CARD_PATH} but no dataset of this engine; the card would "
                "replace it: choose an empty folder as root"
            )
            raise InputError(msg)
        wanted = json.loads(contents)["spec"]
        if not objects.write_new(SPEC_PATH, contents):
            _refuse_drift(objects.url, _read_spec(objects), wanted)
        if isinstance(objects, LocalObjects):
            objects.sweep(ENGINE_FOLDER)
            objects.sweep(SHARD_FOLDER)
        _drop_finished_intents(objects)
        return cls(objects, wanted)

    @classmethod
    def open(cls, root: str | Path) -> Self:
        """Open a dataset that exists; changes nothing.

        Raises:
            InputError: There is no dataset.
            DataError: Its spec cannot be read.
        """
        objects = open_objects(root)
        return cls(objects, _read_spec(objects))

    def refuse_drift(self, spec: Mapping[str, Any]) -> None:
        """Raise InputError if the dataset was made with another spec; says what differs."""
        _refuse_drift(self.root, self.spec, json.loads(canonical_json(spec)))

    @property
    def root(self) -> str:
        """Absolute path or URL."""
        return self.objects.url

    @property
    def min_yield(self) -> float:
        """Smallest share of written samples with which a shard is not degraded."""
        return float(self.spec.get("min_yield", DEFAULT_MIN_YIELD))

    @contextlib.contextmanager
    def lease(self, stage: Stage, shard: str) -> Iterator[None]:
        """Hold the right to make one output; see `storage.leases.take_lease`.

        Raises:
            LeaseHeldError: Somebody else makes it right now; nothing was paid.
        """
        lease = take_lease(self.objects, f"{ENGINE_FOLDER}/leases/{stage}/{shard}.lock")
        self._held[stage, shard] = lease
        try:
            yield
        finally:
            del self._held[stage, shard]
            lease.release()

    def find(self, stage: Stage, shard: str, key: str, *, deep: bool = False) -> Commit | None:
        """Look up what is done.

        A record whose bytes are missing or broken is moved to the quarantine. An output that a
        crash left complete but without a record is adopted: its record is written now.

        Args:
            stage: The stage.
            shard: Shard name.
            key: Digest of everything that the output depends on.
            deep: Hash the bytes too, instead of comparing their size only.

        Returns:
            The record, or None if the work has to be done.
        """
        path = _record_path("commits", stage, shard, key)
        try:
            commit = self.record(path)
        except FileNotFoundError:
            return self._adopted(stage, shard, key)
        except DataError as error:
            self._quarantine([path], str(error))
            return None
        broken = self.defect(commit, deep=deep) if commit.key == key else f"its key is not {key}"
        if not broken:
            return commit
        self._quarantine([path], broken)
        return None

    def commit(
        self, stage: Stage, shard: str, key: str, payload: Payload, counts: Counts
    ) -> Commit:
        """Make an output durable, then declare it done.

        Order: intent, bytes (temporary file, forced to disk, compared, named), manifest, record
        (created only if absent), intent removed. A crash at any point leaves the dataset valid;
        `docs/formats.md` says what the next run does. Takes the lease if it is not held.

        Args:
            stage: The stage.
            shard: Shard name.
            key: Digest of everything that the output depends on, at least 16 hex digits.
            payload: The output.
            counts: Where the samples went.

        Returns:
            The record that is now in the store; an earlier one if the output was already there.

        Raises:
            DataError: The counts do not add up, or disagree with the payload.
            LeaseHeldError: Somebody else makes this output, or has taken the lease over.
        """
        where = f"{stage} of {shard}"
        counts.check(where)
        _check_payload(stage, payload, counts, where)
        with contextlib.ExitStack() as stack:
            if (stage, shard) not in self._held:
                stack.enter_context(self.lease(stage, shard))
            existing = self.find(stage, shard, key)
            if existing is not None:
                return existing
            record = _describe(stage, shard, key, payload, counts)
            self._publish(record, payload)
        logger.info(
            "%s: committed %d of %d samples in %.1f s",
            where,
            counts.written,
            counts.requested,
            payload.seconds,
        )
        return record

    def read(self, commit: Commit) -> bytes:
        """Read an output whole and check it against its record.

        Raises:
            DataError: The bytes are missing or others than those committed.
        """
        return b"" if commit.object is None else self._read_checked(commit.object)

    def rows(self, commit: Commit) -> list[Record]:
        """Read the records of a stage's output, rejections included, checked like `read`."""
        data = self.read(commit)
        if commit.stage is Stage.PAIRS:
            kept, dropped = read_pair_rows(data) if data else ([], [])
            return [*kept, *dropped]
        return read_rows(data)

    def pairs(self, commit: Commit) -> Iterator[EncodedPair]:
        """Stream the images of a pairs output in key order, one pair in memory at a time.

        Raises:
            DataError: The archive is gone, cut, or misses an image; digests are not compared.
        """
        if commit.object is None:
            return
        try:
            file = self.objects.open(commit.object.path)
        except FileNotFoundError as error:
            raise _gone(commit.object.path) from error
        with file:
            yield from iterate_pairs(file, commit.object.path)

    def manifest(self, commit: Commit) -> list[ManifestRow]:
        """Read the manifest of a finished shard, checked like `read`."""
        if commit.manifest is None:
            msg = f"the record of {commit.stage} of {commit.shard} has no manifest"
            raise InputError(msg)
        return decode_manifest(self._read_checked(commit.manifest))

    def commits(self, stage: Stage | None = None) -> list[Commit]:
        """List commit records, by stage, shard and key; bytes are not looked at.

        Raises:
            DataError: A record cannot be read.
        """
        found = []
        for path in self.record_paths(stage):
            # another worker may have replaced a shard since the listing
            with contextlib.suppress(FileNotFoundError):
                found.append(self.record(path))
        return found

    def record_paths(self, stage: Stage | None = None) -> list[str]:
        """List the paths of commit records, by stage, shard and key."""
        stages = Stage if stage is None else (stage,)
        folders = [f"{ENGINE_FOLDER}/commits/{each}" for each in stages]
        return [path for folder in folders for path in self.objects.paths(folder)]

    def record(self, path: str) -> Commit:
        """Read one commit record.

        Raises:
            DataError: It cannot be read.
            FileNotFoundError: It is not there.
        """
        text = self.objects.read(path)
        try:
            return Commit.model_validate_json(text)
        except ValidationError as error:
            msg = f"{path} is no commit record ({_first_line(error)}); run 'magicseg verify'"
            raise DataError(msg) from error

    def defect(self, commit: Commit, *, deep: bool) -> str:
        """Say what is wrong with the bytes behind a record.

        Args:
            commit: The record.
            deep: Hash the bytes too.

        Returns:
            Words, or an empty string if the bytes are whole.
        """
        for ref in commit.objects:
            size = self.objects.size(ref.path)
            if size != ref.size:
                found = "nothing" if size is None else f"{size} bytes"
                return f"{ref.path}: found {found}, expected {ref.size} bytes"
            if deep and not self._holds(ref):
                return f"{ref.path}: its sha256 is not {ref.sha256}"
        return ""

    def shards(self) -> list[CommittedShard]:
        """List the finished shards, sorted by name, empty and degraded ones included."""
        return [self._committed(commit) for commit in self.commits(Stage.SHARDS)]

    def status(self) -> list[SliceStatus]:
        """Summarise what is committed, slice by slice, from the records alone."""
        slices: dict[str, SliceStatus] = {}
        by_age = sorted(self.commits(), key=lambda commit: commit.created)
        latest = {(commit.stage, commit.shard): commit for commit in by_age}
        for commit in latest.values():
            status = slices.setdefault(commit.slice_id, SliceStatus(commit.slice_id))
            status.shards[commit.stage] += 1
            status.seconds[commit.stage] = status.seconds.get(commit.stage, 0.0) + commit.seconds
            if commit.stage is Stage.SHARDS:
                self._add_shard(status, commit)
        return [slices[slice_id] for slice_id in sorted(slices)]

    def _add_shard(self, status: SliceStatus, commit: Commit) -> None:
        status.requested += commit.counts.requested
        status.written += commit.counts.written
        status.dropped.update(commit.counts.rejected)
        status.dropped.update(commit.counts.failed)
        status.num_bytes += commit.object.size if commit.object else 0
        if self._committed(commit).degraded:
            status.degraded.append(commit.shard)

    def _committed(self, commit: Commit) -> CommittedShard:
        share = commit.counts.share_written
        return CommittedShard(
            name=commit.shard,
            path=f"{self.root}/{commit.object.path}" if commit.object else None,
            samples=commit.counts.written,
            sha256=commit.object.sha256 if commit.object else "",
            share_written=share,
            degraded=share < self.min_yield or commit.object is None,
            commit=commit,
        )

    def _publish(self, record: Commit, payload: Payload) -> None:
        """Write everything that the record vouches for, then the record."""
        stage, shard, key = record.stage, record.shard, record.key
        text = record.model_dump_json(indent=1).encode()
        intent = _record_path("intents", stage, shard, key)
        self.objects.replace(intent, text)
        if stage is Stage.SHARDS:
            self._withdraw_others(shard, key)
            if record.object is None and self.objects.size(shard_path(shard)) is not None:
                self._quarantine([shard_path(shard)], f"the version with key {key} is empty")
        if record.object is not None:
            self._write_whole(record.object, payload.data)
        if record.manifest is not None:
            self._write_whole(record.manifest, payload.manifest)
        self._held[stage, shard].check()
        path = _record_path("commits", stage, shard, key)
        # a request that was repeated after a lost answer finds its own record
        if not self.objects.write_new(path, text) and self.objects.read(path) != text:
            msg = f"{stage} of {shard} was committed by somebody else meanwhile; run again"
            raise TransientError(msg)
        self.objects.delete(intent)

    def _write_whole(self, ref: ObjectRef, data: bytes | memoryview) -> None:
        """Give bytes their name; adopt equal ones, put others aside."""
        if self.objects.write_new(ref.path, data) or self._holds(ref):
            return
        self._quarantine([ref.path], "its bytes differ from what this commit made")
        if not self.objects.write_new(ref.path, data):
            msg = f"{ref.path} is being written by somebody else too; run again"
            raise TransientError(msg)

    def _withdraw_others(self, shard: str, key: str) -> None:
        """Withdraw the records of other versions of a shard before its tar is replaced."""
        folder = f"{ENGINE_FOLDER}/commits/{Stage.SHARDS}/{shard}"
        kept = _record_path("commits", Stage.SHARDS, shard, key)
        others = [path for path in self.objects.paths(folder) if path != kept]
        if others:
            self._quarantine(others, f"replaced by a version with key {key}")

    def _adopted(self, stage: Stage, shard: str, key: str) -> Commit | None:
        """Finish a commit that was cut short after its bytes were whole."""
        intent = _record_path("intents", stage, shard, key)
        try:
            record = self.record(intent)
        except (FileNotFoundError, DataError):
            return None
        if record.key != key or self.defect(record, deep=True):
            return None
        if stage is Stage.SHARDS:
            self._withdraw_others(shard, key)
        text = record.model_dump_json(indent=1).encode()
        self.objects.write_new(_record_path("commits", stage, shard, key), text)
        self.objects.delete(intent)
        logger.info("%s of %s: adopted what an interrupted run left complete", stage, shard)
        return record

    def _holds(self, ref: ObjectRef) -> bool:
        """Whether the name holds exactly the bytes of the reference."""
        try:
            with self.objects.open(ref.path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256
        except FileNotFoundError:
            return False

    def _read_checked(self, ref: ObjectRef) -> bytes:
        try:
            data = self.objects.read(ref.path)
        except FileNotFoundError as error:
            raise _gone(ref.path) from error
        found = hashlib.sha256(data).hexdigest()
        if found != ref.sha256:
            msg = (
                f"{ref.path}: sha256 is {found}, expected {ref.sha256}; run 'magicseg verify', "
                "then generate again"
            )
            raise DataError(msg)
        return data

    def _quarantine(self, paths: list[str], reason: str) -> None:
        """Put files aside, with the reason beside them; nothing is ever deleted."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        folder = f"{ENGINE_FOLDER}/quarantine/{stamp}-{secrets.token_hex(4)}"
        self.objects.write_new(f"{folder}/reason.txt", f"{reason}\n".encode())
        for path in paths:
            if self.objects.move(path, f"{folder}/{path.removeprefix(f'{ENGINE_FOLDER}/')}"):
                logger.warning("moved %s to %s: %s", path, folder, reason)


def _drop_finished_intents(objects: ObjectStore) -> None:
    """Remove what a crash left behind a finished commit."""
    for path in objects.paths(f"{ENGINE_FOLDER}/intents"):
        if objects.size(path.replace("/intents/", "/commits/", 1)) is not None:
            objects.delete(path)


def _record_path(kind: str, stage: Stage, shard: str, key: str) -> str:
    return f"{ENGINE_FOLDER}/{kind}/{stage}/{shard}/{key[:_KEY_DIGITS]}.json"


def _gone(path: str) -> DataError:
    return DataError(f"{path} is committed but gone; run 'magicseg verify', then generate again")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split()[:12])


def _reference(path: str, data: bytes | memoryview, sha256: str) -> ObjectRef:
    return ObjectRef(path=path, sha256=sha256, size=memoryview(data).nbytes)


def _describe(stage: Stage, shard: str, key: str, payload: Payload, counts: Counts) -> Commit:
    made, manifest = None, None
    if payload.data:
        sha256 = hashlib.sha256(payload.data).hexdigest()
        hashed = f"{ENGINE_FOLDER}/objects/{sha256[:2]}/{sha256}"
        path = shard_path(shard) if stage is Stage.SHARDS else hashed
        made = _reference(path, payload.data, sha256)
    if payload.manifest:
        sha256 = hashlib.sha256(payload.manifest).hexdigest()
        manifest = _reference(manifest_path(shard), payload.manifest, sha256)
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
    )


def _check_payload(stage: Stage, payload: Payload, counts: Counts, where: str) -> None:
    """Raise DataError if the payload does not hold what the counts say."""
    if stage is Stage.SHARDS:
        written = count_samples(payload.data) if payload.data else 0
        fates = Counter(row.status for row in decode_manifest(payload.manifest))
        expected = Counter(
            written=counts.written,
            rejected=sum(counts.rejected.values()),
            failed=sum(counts.failed.values()),
        )
        if fates != expected:
            msg = f"{where}: the manifest has {dict(fates)}, the counts say {dict(expected)}"
            raise DataError(msg)
    elif stage is Stage.PAIRS:
        written = len(read_pair_rows(payload.data)[0]) if payload.data else 0
    else:
        rows = read_rows(bytes(payload.data))
        written = sum(not isinstance(row, Rejected) for row in rows)
    if written != counts.written:
        msg = f"{where}: the output holds {written} samples, the counts say {counts.written}"
        raise DataError(msg)


def _read_spec(objects: ObjectStore) -> dict[str, Any]:
    try:
        text = objects.read(SPEC_PATH)
    except FileNotFoundError as error:
        msg = f"there is no dataset in {objects.url}; make one with 'magicseg generate'"
        raise InputError(msg) from error
    try:
        contents = json.loads(text)
        scheme, spec = contents["scheme"], contents["spec"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{objects.url}/{SPEC_PATH} cannot be read ({error}); restore it from a copy"
        raise DataError(msg) from error
    if scheme != SCHEME:
        msg = (
            f"{objects.url} was made with identity scheme {scheme}, this engine has {SCHEME}; "
            "use the engine version that made it, or another root"
        )
        raise InputError(msg)
    return spec


def _refuse_drift(url: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    drift = describe_drift(old, new)
    if drift:
        msg = (
            f"{url} holds a dataset made with other settings: {'; '.join(drift)}. Go back to the "
            "old values to resume it, or choose another root for the new ones"
        )
        raise InputError(msg)
