"""The store: one place where outputs are found, made durable, and declared done."""

import contextlib
import hashlib
import logging
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from storage.commits import Commit, Counts, ObjectRef
from storage.errors import DataError, InputError, TransientError
from storage.layout import (
    COMMIT_FOLDER,
    ENGINE_FOLDER,
    INTENT_FOLDER,
    SHARD_FOLDER,
    commit_path,
    intent_path,
    lease_path,
    shard_path,
)
from storage.leases import Lease, take_lease
from storage.local_objects import LocalObjects
from storage.manifest import ManifestRow, decode_manifest
from storage.objects import ObjectStore, open_objects
from storage.pairs import EncodedPair, iterate_pairs, read_pair_rows
from storage.payloads import Payload, check_payload, describe_payload
from storage.quarantine import put_aside
from storage.records import Record, Stage, read_record
from storage.rows import read_rows
from storage.specification import (
    check_specification,
    read_specification,
    write_specification,
)
from storage.summaries import CommittedShard, SliceStatus, summarise

__all__ = ["Store"]

_DEFAULT_MIN_YIELD = 0.5
"""Smallest share of written samples with which a shard counts as good, unless the spec says."""

_log = logging.getLogger(__name__)


class Store:
    """A dataset: stage outputs, shards, manifests and the commit records that vouch for them.

    Nothing counts as done without its commit record; whoever reads lists records only. What reads
    (`look`, `read`, `rows`, `commits`, ...) never changes a file; what changes one output (`heal`,
    `commit`) holds its lease. All methods may be called from any thread.

    Args:
        objects: Where the bytes live.
        spec: What the dataset is made of.
    """

    def __init__(self, objects: ObjectStore, spec: dict[str, Any]) -> None:
        self.objects = objects
        self.spec = spec
        # by thread too: a lease that another thread holds gives no right to this one
        self._held: dict[tuple[Stage, str, int], Lease] = {}

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
        wanted = write_specification(objects, spec)
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
        return cls(objects, read_specification(objects))

    def refuse_drift(self, spec: Mapping[str, Any]) -> None:
        """Raise InputError if the dataset was made with another spec; says what differs."""
        check_specification(self.root, self.spec, spec)

    @property
    def root(self) -> str:
        """Absolute path or URL."""
        return self.objects.url

    @property
    def vocabulary(self) -> str:
        """Name of the vocabulary that the samples' classes are of.

        Raises:
            InputError: The spec names none.
        """
        plan: dict[str, Any] = self.spec.get("plan") or {}
        if "vocabulary" not in plan:
            message = f"{self.root} does not say which vocabulary it was made with"
            raise InputError(message)
        return str(plan["vocabulary"])

    @property
    def min_yield(self) -> float:
        """Smallest share of written samples with which a shard is not degraded."""
        return float(self.spec.get("min_yield", _DEFAULT_MIN_YIELD))

    @contextlib.contextmanager
    def lease(self, stage: Stage, shard: str) -> Generator[None]:
        """Hold the right to make one output, in this thread; see `storage.leases.take_lease`.

        Raises:
            LeaseHeldError: Somebody else makes it right now; nothing was paid.
        """
        place = (stage, shard, threading.get_ident())
        lease = take_lease(self.objects, lease_path(stage, shard))
        self._held[place] = lease
        try:
            yield
        finally:
            del self._held[place]
            lease.release()

    def look(self, stage: Stage, shard: str, key: str, *, deep: bool = False) -> Commit | None:
        """Look up what is done; changes nothing.

        Args:
            stage: The stage.
            shard: Shard name.
            key: Digest of everything that the output depends on.
            deep: Hash the bytes too, instead of comparing their size only.

        Returns:
            The record; None if there is none, or what it vouches for is not as it says. `heal`
            may still find the work done.
        """
        try:
            commit = self.record(commit_path(stage, shard, key))
        except (FileNotFoundError, DataError):
            return None
        return None if self._fault(commit, key, deep=deep) else commit

    def heal(self, stage: Stage, shard: str, key: str, *, deep: bool = False) -> Commit | None:
        """Look up what is done, and mend what a crash or damage left; needs the lease.

        A record whose bytes are missing or broken is moved to the quarantine. An output that a
        crash left complete but without a record is adopted: its record is written now.

        Args:
            stage: The stage.
            shard: Shard name.
            key: Digest of everything that the output depends on.
            deep: Hash the bytes too, instead of comparing their size only.

        Returns:
            The record, or None if the work has to be done.

        Raises:
            LeaseHeldError: The lease has been lost.
            RuntimeError: This thread does not hold the lease.
        """
        self._require_lease(stage, shard)
        path = commit_path(stage, shard, key)
        try:
            commit = self.record(path)
        except FileNotFoundError:
            return self._adopted(stage, shard, key)
        except DataError as error:
            put_aside(self.objects, [path], str(error))
            return None
        fault = self._fault(commit, key, deep=deep)
        if not fault:
            return commit
        put_aside(self.objects, [path], fault)
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
        check_payload(stage, shard, payload, counts)
        with contextlib.ExitStack() as stack:
            if (stage, shard, threading.get_ident()) not in self._held:
                stack.enter_context(self.lease(stage, shard))
            existing = self.heal(stage, shard, key)
            if existing is not None:
                return existing
            record = describe_payload(stage, shard, key, payload, counts)
            self._publish(record, payload)
        _log.info(
            "%s of %s: committed %d of %d samples in %.1f s",
            stage,
            shard,
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
            message = f"the record of {commit.stage} of {commit.shard} has no manifest"
            raise InputError(message)
        return decode_manifest(self._read_checked(commit.manifest))

    def commits(self, stage: Stage | None = None) -> list[Commit]:
        """List commit records, by stage, shard and key; bytes are not looked at.

        Raises:
            DataError: A record cannot be read.
        """
        found: list[Commit] = []
        for path in self.record_paths(stage):
            # another worker may have replaced a shard since the listing
            with contextlib.suppress(FileNotFoundError):
                found.append(self.record(path))
        return found

    def record_paths(self, stage: Stage | None = None) -> list[str]:
        """List the paths of commit records, by stage, shard and key."""
        stages = Stage if stage is None else (stage,)
        folders = [f"{COMMIT_FOLDER}/{each}" for each in stages]
        return [path for folder in folders for path in self.objects.paths(folder)]

    def record(self, path: str) -> Commit:
        """Read one commit record.

        Raises:
            DataError: It cannot be read.
            FileNotFoundError: It is not there.
        """
        return read_record(Commit, self.objects.read(path), path, way_out="run 'magicseg verify'")

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
        commits = self.commits(Stage.SHARDS)
        return [CommittedShard.of(commit, self.root, self.min_yield) for commit in commits]

    def status(self) -> list[SliceStatus]:
        """Summarise what is committed, slice by slice, from the records alone."""
        return summarise(self.commits(), self.min_yield)

    def _fault(self, commit: Commit, key: str, *, deep: bool) -> str:
        """Say why a record does not answer for a key; an empty string if it does."""
        return self.defect(commit, deep=deep) if commit.key == key else f"its key is not {key}"

    def _require_lease(self, stage: Stage, shard: str) -> None:
        lease = self._held.get((stage, shard, threading.get_ident()))
        if lease is None:
            message = f"{stage} of {shard} is changed without its lease: use Store.lease around it"
            raise RuntimeError(message)
        lease.check()

    def _publish(self, record: Commit, payload: Payload) -> None:
        """Write everything that the record vouches for, then the record."""
        stage, shard, key = record.stage, record.shard, record.key
        text = record.model_dump_json(indent=1).encode()
        intent = intent_path(stage, shard, key)
        self.objects.replace(intent, text)
        if stage is Stage.SHARDS:
            self._withdraw_others(shard, key)
            if record.object is None and self.objects.size(shard_path(shard)) is not None:
                put_aside(self.objects, [shard_path(shard)], f"the version with key {key} is empty")
        if record.object is not None:
            self._write_whole(record.object, payload.data)
        if record.manifest is not None:
            self._write_whole(record.manifest, payload.manifest)
        self._require_lease(stage, shard)
        path = commit_path(stage, shard, key)
        # a request that was repeated after a lost answer finds its own record
        if not self.objects.write_new(path, text) and self.objects.read(path) != text:
            message = f"{stage} of {shard} was committed by somebody else meanwhile; run again"
            raise TransientError(message)
        self.objects.delete(intent)

    def _write_whole(self, ref: ObjectRef, data: bytes | memoryview) -> None:
        """Give bytes their name; adopt equal ones, put others aside."""
        if self.objects.write_new(ref.path, data) or self._holds(ref):
            return
        put_aside(self.objects, [ref.path], "its bytes differ from what this commit made")
        if not self.objects.write_new(ref.path, data):
            message = f"{ref.path} is being written by somebody else too; run again"
            raise TransientError(message)

    def _withdraw_others(self, shard: str, key: str) -> None:
        """Withdraw the records of other versions of a shard before its tar is replaced."""
        folder = f"{COMMIT_FOLDER}/{Stage.SHARDS}/{shard}"
        kept = commit_path(Stage.SHARDS, shard, key)
        others = [path for path in self.objects.paths(folder) if path != kept]
        if others:
            put_aside(self.objects, others, f"replaced by a version with key {key}")

    def _adopted(self, stage: Stage, shard: str, key: str) -> Commit | None:
        """Finish a commit that was cut short after its bytes were whole."""
        intent = intent_path(stage, shard, key)
        try:
            record = self.record(intent)
        except (FileNotFoundError, DataError):
            return None
        if record.key != key or self.defect(record, deep=True):
            return None
        if stage is Stage.SHARDS:
            self._withdraw_others(shard, key)
        text = record.model_dump_json(indent=1).encode()
        self.objects.write_new(commit_path(stage, shard, key), text)
        self.objects.delete(intent)
        _log.info("%s of %s: adopted what an interrupted run left complete", stage, shard)
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
            message = (
                f"{ref.path}: sha256 is {found}, expected {ref.sha256}; run 'magicseg verify', "
                "then generate again"
            )
            raise DataError(message)
        return data


def _drop_finished_intents(objects: ObjectStore) -> None:
    """Remove what a crash left behind a finished commit."""
    for path in objects.paths(INTENT_FOLDER):
        if objects.size(path.replace(INTENT_FOLDER, COMMIT_FOLDER, 1)) is not None:
            objects.delete(path)


def _gone(path: str) -> DataError:
    return DataError(f"{path} is committed but gone; run 'magicseg verify', then generate again")
