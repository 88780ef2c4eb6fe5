"""The store: one place where outputs are found, made durable, and declared done."""

import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from storage.checks import defect, fault, read_whole
from storage.commit_log import BadRecord, CommitLog, record_path
from storage.commits import Commit, Counts
from storage.errors import DataError, InputError, LeaseHeldError
from storage.layout import (
    ENGINE_FOLDER,
    INTENT_FOLDER,
    SHARD_FOLDER,
    claim_path,
    commit_path,
    is_cell,
    lease_path,
)
from storage.leases import Lease, take_lease, wait_for_lease
from storage.local_objects import LocalObjects
from storage.manifest import ManifestRow, decode_manifest, read_classes
from storage.objects import ObjectStore, open_objects
from storage.pairs import EncodedPair, iterate_pairs, read_pair_rows
from storage.payloads import Payload, check_payload, describe_payload
from storage.plan import DatasetSpec, ShardRange, cell_size
from storage.publication import adopt, publish
from storage.quarantine import put_aside
from storage.records import Record, Stage
from storage.rows import read_rows
from storage.specification import (
    Specification,
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
    """A dataset: pieces, shards, manifests and the commit records that vouch for them.

    Nothing counts as done without its commit record; whoever reads lists records only. What reads
    (`look`, `read`, `rows`, `commits`, ...) never changes a file; what changes one output (`heal`,
    `commit`) holds its lease. All methods may be called from any thread.

    Args:
        objects: Where the bytes live.
        specification: What the dataset is made of.
    """

    def __init__(self, objects: ObjectStore, specification: Specification) -> None:
        self.objects = objects
        self.specification = specification
        self.spec = specification.contents
        self.log = CommitLog(objects)
        # by thread too: a lease that another thread holds gives no right to this one
        self._held: dict[tuple[Stage, str, int], Lease] = {}

    @classmethod
    def create(cls, root: str | Path, spec: Mapping[str, Any]) -> Self:
        """Create a dataset, or resume the one that is there if it has the same spec.

        Durable when it returns. Temporary files of dead writers are removed, and what they had
        begun to commit is finished or forgotten.

        Args:
            root: Local path or object-store URL.
            spec: JSON-like; what every sample depends on. ``min_yield`` is read by `shards`.

        Raises:
            InputError: The root holds a dataset with another spec (the message says what
                differs), or a README.md of somebody else.
        """
        objects = open_objects(root)
        store = cls(objects, write_specification(objects, spec))
        if isinstance(objects, LocalObjects):
            objects.sweep(ENGINE_FOLDER)
            objects.sweep(SHARD_FOLDER)
        store.settle_intents()
        return store

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

    @property
    def cell_samples(self) -> int:
        """Samples of a cell, as the plan cuts them; 1 where no plan is known."""
        plan = self.spec.get("plan")
        return cell_size(DatasetSpec.model_validate(plan)) if plan else 1

    @contextlib.contextmanager
    def lease(
        self, stage: Stage, unit: str, check: Callable[[], None] | None = None
    ) -> Generator[None]:
        """Hold the right to make one output, in this thread; see `storage.leases.take_lease`.

        Args:
            stage: The stage.
            unit: Name of the shard or cell.
            check: If given, a lease that somebody else holds is waited for; this is called
                between tries, and raises if there is to be no more waiting.

        Raises:
            LeaseHeldError: Somebody else makes it right now; nothing was paid.
        """
        place = (stage, unit, threading.get_ident())
        path = lease_path(stage, unit)
        if check is None:
            lease = take_lease(self.objects, path)
        else:
            lease = wait_for_lease(self.objects, path, check)
        self._held[place] = lease
        try:
            yield
        finally:
            del self._held[place]
            lease.release()

    @contextlib.contextmanager
    def claim(self, shard: str, check: Callable[[], None] | None = None) -> Generator[None]:
        """Hold a shard from its first stage to its last, so that other workers take other ones.

        Args:
            shard: Its name.
            check: As for `lease`.

        Raises:
            LeaseHeldError: Somebody else makes it right now.
        """
        path = claim_path(shard)
        if check is None:
            lease = take_lease(self.objects, path)
        else:
            lease = wait_for_lease(self.objects, path, check)
        try:
            yield
        finally:
            lease.release()

    def look(self, stage: Stage, unit: str, key: str, *, deep: bool = False) -> Commit | None:
        """Look up what is done; changes nothing.

        Args:
            stage: The stage.
            unit: Name of the shard or cell.
            key: Digest of everything that the output depends on.
            deep: Hash the bytes too, instead of comparing their size only.

        Returns:
            The record; None if there is none, or what it vouches for is not as it says. `heal`
            may still find the work done.
        """
        try:
            commit = self.log.read(commit_path(stage, unit, key))
        except (FileNotFoundError, DataError):
            return None
        return None if fault(self.objects, commit, key, deep=deep) else commit

    def pieces(self, stage: Stage, cell: str) -> list[Commit]:
        """The pieces of a cell whose bytes are there, sizes compared, by key; changes nothing."""
        pieces = (each for each in self.log.good(stage, cell) if each.is_piece)
        return [each for each in pieces if not defect(self.objects, each, deep=False)]

    def range_of(self, commit: Commit) -> tuple[int, int] | None:
        """Which samples of its slice a finished shard holds: first, and one past the last."""
        if commit.start is not None and commit.stop is not None:
            return commit.start, commit.stop
        plan: dict[str, Any] = self.spec.get("plan") or {}
        size = plan.get("samples_per_shard")
        if size is None:
            return None
        start = int(commit.shard.rpartition("-")[2]) * int(size)
        return start, start + commit.counts.requested

    def covers(self, commit: Commit | None, wanted: ShardRange) -> bool:
        """Whether a finished shard is the wanted one, or has more samples than are wanted.

        Its bytes are looked for by size.
        """
        held = self.range_of(commit) if commit else None
        if commit is None or held is None or commit.shard != wanted.name:
            return False
        start, stop = held
        fits = start == wanted.start and wanted.stop <= stop <= start + wanted.capacity
        return fits and not defect(self.objects, commit, deep=False)

    def finished(self, wanted: ShardRange) -> Commit | None:
        """The record of a shard if it is finished; changes nothing."""
        for commit in self.log.good(Stage.SHARDS, wanted.name):
            if self.covers(commit, wanted):
                return commit
        return None

    def heal(self, stage: Stage, unit: str, key: str, *, deep: bool = False) -> Commit | None:
        """Look up what is done, and mend what a crash or damage left; needs the lease.

        A record whose bytes are missing or broken is moved to the quarantine. An output that a
        crash left complete but without a record is adopted: its record is written now.

        Args:
            stage: The stage.
            unit: Name of the shard or cell.
            key: Digest of everything that the output depends on.
            deep: Hash the bytes too, instead of comparing their size only.

        Returns:
            The record, or None if the work has to be done.

        Raises:
            LeaseHeldError: The lease has been lost.
            RuntimeError: This thread does not hold the lease.
        """
        self._require_lease(stage, unit)
        path = commit_path(stage, unit, key)
        try:
            commit = self.log.read(path)
        except FileNotFoundError:
            return adopt(self.objects, stage, unit, key)
        except DataError as error:
            put_aside(self.objects, [path], str(error))
            return None
        found = fault(self.objects, commit, key, deep=deep)
        if not found:
            return commit
        put_aside(self.objects, [path], found)
        return None

    def heal_unit(self, stage: Stage, unit: str) -> None:
        """Put aside the records of a shard or cell that are damaged or whose bytes are gone.

        Needs the lease, like `heal`.
        """
        self._require_lease(stage, unit)
        for found in self.log.scan(self.log.paths(stage, unit)):
            if isinstance(found, BadRecord):
                put_aside(self.objects, [found.path], found.problem)
            elif problem := defect(self.objects, found, deep=False):
                self._withdraw(found, problem)

    def withdraw(self, commit: Commit, reason: str, *, level: int = logging.WARNING) -> None:
        """Put a record and its bytes aside, under its lease, so that it is made again.

        Bytes that another record vouches for too stay where they are.

        Args:
            commit: The record.
            reason: Why; kept beside what was put aside.
            level: As for `storage.quarantine.put_aside`.

        Raises:
            LeaseHeldError: Somebody else works on it.
        """
        with self._leased(commit.stage, commit.shard):
            self._withdraw(commit, reason, level)

    def _withdraw(self, commit: Commit, reason: str, level: int = logging.WARNING) -> None:
        # the record goes first: readers must never meet one whose bytes are gone
        kept = self.log.shared(commit)
        files = [ref.path for ref in commit.objects if ref.path not in kept]
        put_aside(self.objects, [record_path(commit), *files], reason, level=level)

    @contextlib.contextmanager
    def _leased(self, stage: Stage, unit: str) -> Generator[None]:
        """Hold a lease that this thread may hold already."""
        with contextlib.ExitStack() as stack:
            if (stage, unit, threading.get_ident()) not in self._held:
                stack.enter_context(self.lease(stage, unit))
            yield

    def commit(self, stage: Stage, unit: str, key: str, payload: Payload, counts: Counts) -> Commit:
        """Make an output durable, then declare it done.

        Order: intent, bytes (temporary file, forced to disk, compared, named), manifest, record
        (created only if absent), intent removed. A crash at any point leaves the dataset valid;
        `docs/formats.md` says what the next run does. Takes the lease if it is not held.

        Args:
            stage: The stage.
            unit: Name of the shard or cell.
            key: Digest of everything that the output depends on, at least 16 hex digits.
            payload: The output.
            counts: Where the samples went.

        Returns:
            The record that is now in the store; an earlier one if the output was already there.

        Raises:
            DataError: The counts do not add up, or disagree with the payload.
            LeaseHeldError: Somebody else makes this output, or has taken the lease over.
        """
        check_payload(stage, unit, payload, counts)
        with self._leased(stage, unit):
            existing = self.heal(stage, unit, key)
            if existing is not None:
                return existing
            record = describe_payload(stage, unit, key, payload, counts)
            publish(self.objects, record, payload, check=lambda: self._require_lease(stage, unit))
        _log.info(
            "%s of %s: committed %d of %d samples in %.1f s",
            stage,
            unit,
            counts.written,
            counts.requested,
            payload.seconds,
        )
        return record

    def read(self, commit: Commit) -> bytes:
        """Read an output whole and check it against its record.

        Raises:
            DamagedError: The bytes are missing or others than those committed.
        """
        if commit.object is None:
            return b""
        return read_whole(self.objects, commit, commit.object)

    def rows(self, commit: Commit) -> list[Record]:
        """Read the records of a stage's output, rejections included, checked like `read`."""
        data = self.read(commit)
        if commit.stage.holds_pictures:
            kept, dropped = read_pair_rows(data) if data else ([], [])
            return [*kept, *dropped]
        return read_rows(data)

    def pairs(self, commit: Commit) -> Iterator[EncodedPair]:
        """Iterate over the images of an output that has some in key order, checked like `read`.

        Raises:
            DamagedError: The bytes are missing or others than those committed.
        """
        data = self.read(commit)
        if data and commit.object is not None:
            yield from iterate_pairs(data, commit.object.path)

    def manifest(self, commit: Commit) -> list[ManifestRow]:
        """Read the manifest of a finished shard, checked like `read`."""
        data, name = self._manifest(commit)
        return decode_manifest(data, name=name)

    def written_classes(self, commit: Commit) -> dict[str, tuple[int, ...]]:
        """Classes of the samples in a finished shard's tar by key, from its manifest."""
        data, name = self._manifest(commit)
        return read_classes(data, name=name)

    def _manifest(self, commit: Commit) -> tuple[bytes, str]:
        """The bytes of a manifest, and its path."""
        if commit.manifest is None:
            message = f"the record of {commit.stage} of {commit.shard} has no manifest"
            raise InputError(message)
        return read_whole(self.objects, commit, commit.manifest), commit.manifest.path

    def commits(self, stage: Stage | None = None) -> list[Commit]:
        """List commit records, by stage, shard or cell, and key; bytes are not looked at.

        Records that cannot be read are named in the log and passed over.
        """
        return list(self.log.good(stage))

    def shards(self) -> list[CommittedShard]:
        """List the finished shards, sorted by name, empty and degraded ones included."""
        commits = self.log.shards()
        return [
            CommittedShard.of(commits[name], self.root, self.min_yield) for name in sorted(commits)
        ]

    def status(self) -> list[SliceStatus]:
        """Summarise what is committed, slice by slice, from the records alone."""
        return summarise(self.log, self.cell_samples, self.range_of, self.min_yield)

    def settle_intents(self) -> None:
        """Finish the commits that dead writers had begun, or forget them; those of others stay."""
        for path in self.objects.paths(INTENT_FOLDER):
            with contextlib.suppress(LeaseHeldError):
                self.settle_intent(path)

    def settle_intent(self, path: str, *, forget: bool = False) -> None:
        """Finish a commit that a dead writer had begun, or forget it if nothing is lost by that.

        Args:
            path: Of the intent.
            forget: Whether it is put aside in any case.

        Raises:
            LeaseHeldError: Its writer is at work.
        """
        name, unit = path.removeprefix(f"{INTENT_FOLDER}/").split("/")[:2]
        stage = Stage(name)
        with self.lease(stage, unit):
            try:
                intent = self.log.read(path)
            except FileNotFoundError:
                return  # its writer has finished meanwhile
            except DataError as error:
                put_aside(self.objects, [path], str(error))
                return
            if self.look(stage, unit, intent.key) is not None:
                self.objects.delete(path)  # nothing but this was missing
                return
            replaced = stage is Stage.SHARDS and any(self.log.good(stage, unit))
            if not replaced and adopt(self.objects, stage, unit, intent.key):
                return
            if replaced or forget or is_cell(unit):
                put_aside(self.objects, [path], "a commit that was begun and not finished")

    def _require_lease(self, stage: Stage, unit: str) -> None:
        lease = self._held.get((stage, unit, threading.get_ident()))
        if lease is None:
            message = f"{stage} of {unit} is changed without its lease: use Store.lease around it"
            raise RuntimeError(message)
        lease.check()
