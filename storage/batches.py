"""Batches of the quarantine: what was put aside together, and can go back or be deleted."""

import contextlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from storage.card import write_card
from storage.commits import Commit, read_commit
from storage.errors import DataError, InputError
from storage.layout import (
    COMMIT_FOLDER,
    ENGINE_FOLDER,
    INTENT_FOLDER,
    QUARANTINE_FOLDER,
    SHARD_FOLDER,
    UNIT_NAME,
)
from storage.local_objects import LocalObjects
from storage.objects import ObjectStore
from storage.quarantine import REASON_FILE, STAMP
from storage.records import Record, Stage
from storage.store import Store

_SECONDS_PER_DAY = 86400.0
_OWNERS = (
    re.compile(rf"(?:{COMMIT_FOLDER}|{INTENT_FOLDER})/(?P<stage>[a-z]+)/(?P<unit>[^/]+)/[^/]+"),
    re.compile(rf"{SHARD_FOLDER}/train-(?P<unit>.+)\.tar"),
    re.compile(rf"{ENGINE_FOLDER}/manifests/(?P<unit>.+)\.parquet"),
)
"""Paths of files that belong to a shard or a cell."""


class QuarantineBatch(Record, frozen=True):
    """What was put aside together."""

    id: str
    """Name of its folder: when it was made (UTC), and a random part."""
    reason: str
    """Why."""
    files: tuple[str, ...]
    """Where its files were, relative to the root."""
    bytes: int
    """Of its files."""
    made: datetime | None
    """When; nothing if its name does not say."""

    @property
    def days(self) -> float | None:
        """Its age."""
        if self.made is None:
            return None
        return max(0.0, (datetime.now(UTC) - self.made).total_seconds() / _SECONDS_PER_DAY)

    @property
    def folder(self) -> str:
        """Where it lies, relative to the root."""
        return f"{QUARANTINE_FOLDER}/{self.id}"


def list_batches(objects: ObjectStore) -> list[QuarantineBatch]:
    """List the batches of a dataset's quarantine, oldest first; changes nothing."""
    by_id: dict[str, list[str]] = {}
    for path in objects.paths(QUARANTINE_FOLDER):
        batch_id, _, name = path.removeprefix(f"{QUARANTINE_FOLDER}/").partition("/")
        if name:
            by_id.setdefault(batch_id, []).append(name)
    return [_describe(objects, batch_id, names) for batch_id, names in sorted(by_id.items())]


def find_batch(objects: ObjectStore, batch_id: str) -> QuarantineBatch:
    """Find one batch.

    Raises:
        InputError: There is none of this name.
    """
    batches = list_batches(objects)
    for batch in batches:
        if batch.id == batch_id:
            return batch
    message = (
        f"the quarantine of {objects.url} has no batch {batch_id!r} among its {len(batches)}; "
        f"'magicseg quarantine list' shows them"
    )
    raise InputError(message)


def restore_batch(store: Store, batch: QuarantineBatch) -> None:
    """Move the files of a batch back to where they were, records last.

    Args:
        store: The dataset.
        batch: What to move.

    Raises:
        InputError: Another file stands in the way, or a record's bytes would be missing; nothing
            was moved.
        LeaseHeldError: Somebody works on what the files belong to.
    """
    owners = sorted({owner for path in batch.files if (owner := _owner(path))})
    with contextlib.ExitStack() as stack:
        for stage, unit in owners:
            stack.enter_context(store.lease(stage, unit))
        _refuse_replacing(store, batch, owners)
        _refuse_incomplete(store.objects, batch)
        # a record that can be seen must have its bytes
        ordered = sorted(batch.files, key=lambda path: path.startswith(COMMIT_FOLDER))
        restore_files(store.objects, batch, ordered)
        _forget(store.objects, batch)
    if any(stage is Stage.SHARDS for stage, _ in owners):
        write_card(store)


def restore_files(objects: ObjectStore, batch: QuarantineBatch, paths: Iterable[str]) -> None:
    """Move some files of a batch back, whatever is there now."""
    for path in paths:
        objects.move(f"{batch.folder}/{_name_of(path)}", path)


def choose_batches(
    batches: Sequence[QuarantineBatch], *, older_than: float | None, batch_id: str | None
) -> list[QuarantineBatch]:
    """Choose batches by age and name.

    Args:
        batches: All of them.
        older_than: Days; one whose age is not known is no older than anything.
        batch_id: Name of the only one, or nothing for all.
    """
    return [
        batch
        for batch in batches
        if batch_id in {None, batch.id}
        and (older_than is None or (batch.days is not None and batch.days > older_than))
    ]


def delete_batch(objects: ObjectStore, batch: QuarantineBatch) -> None:
    """Delete a batch for good; its reason goes last."""
    for path in batch.files:
        objects.delete(f"{batch.folder}/{_name_of(path)}")
    _forget(objects, batch)


def _describe(objects: ObjectStore, batch_id: str, names: Sequence[str]) -> QuarantineBatch:
    folder = f"{QUARANTINE_FOLDER}/{batch_id}"
    reason = ""
    if REASON_FILE in names:
        with contextlib.suppress(FileNotFoundError):  # emptied meanwhile
            reason = objects.read(f"{folder}/{REASON_FILE}").decode(errors="replace").strip()
    files = [name for name in names if name != REASON_FILE]
    return QuarantineBatch(
        id=batch_id,
        reason=reason,
        files=tuple(_path_of(name) for name in files),
        bytes=sum(objects.size(f"{folder}/{name}") or 0 for name in files),
        made=_made(batch_id),
    )


def _path_of(name: str) -> str:
    """Where a file of a batch was."""
    if name.startswith(f"{SHARD_FOLDER}/") or "/" not in name:
        return name
    return f"{ENGINE_FOLDER}/{name}"


def _name_of(path: str) -> str:
    """What a file is called in a batch."""
    return path.removeprefix(f"{ENGINE_FOLDER}/")


def _made(batch_id: str) -> datetime | None:
    try:
        return datetime.strptime(batch_id.partition("-")[0], STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def _owner(path: str) -> tuple[Stage, str] | None:
    """The stage, and the shard or cell, that a file belongs to; none that others may share."""
    for pattern in _OWNERS:
        match = pattern.fullmatch(path)
        if match and re.match(UNIT_NAME, match["unit"]):
            return Stage(match.groupdict().get("stage", Stage.SHARDS)), match["unit"]
    return None


def _refuse_replacing(
    store: Store, batch: QuarantineBatch, owners: Sequence[tuple[Stage, str]]
) -> None:
    """Refuse if a file is there already, or another version of a shard."""
    taken = [path for path in batch.files if store.objects.size(path) is not None]
    for stage, unit in owners:
        if stage is Stage.SHARDS:
            taken += store.log.paths(stage, unit)
    if taken:
        message = (
            f"batch {batch.id} cannot go back to {store.root}: {taken[0]} stands in the way"
            f"{f', and {len(taken) - 1} more' if len(taken) > 1 else ''}; it stays where it is, "
            f"or move what stands in the way out of the dataset first"
        )
        raise InputError(message)


def _refuse_incomplete(objects: ObjectStore, batch: QuarantineBatch) -> None:
    """Refuse if a record would say that something is there which is not."""
    for path in batch.files:
        commit = _record_in(objects, batch, path)
        for ref in commit.objects if commit else ():
            size = objects.size(ref.path)
            if ref.path not in batch.files and size != ref.size:
                found = "nothing" if size is None else f"{size} bytes"
                holders = [each.id for each in list_batches(objects) if ref.path in each.files]
                way_out = f"restore batch {holders[-1]} first" if holders else "no batch has it"
                message = (
                    f"batch {batch.id} cannot go back to {objects.url}: its record {path} is about "
                    f"{ref.path}, where {found} is, expected {ref.size} bytes; {way_out}"
                )
                raise InputError(message)


def _record_in(objects: ObjectStore, batch: QuarantineBatch, path: str) -> Commit | None:
    """A record of a batch; one that cannot be read goes back as it was."""
    if not path.startswith(f"{COMMIT_FOLDER}/"):
        return None
    try:
        return read_commit(objects.read(f"{batch.folder}/{_name_of(path)}"), path)
    except DataError:
        return None


def _forget(objects: ObjectStore, batch: QuarantineBatch) -> None:
    """Remove what is left of a batch whose files are gone."""
    objects.delete(f"{batch.folder}/{REASON_FILE}")
    if isinstance(objects, LocalObjects):
        objects.prune(batch.folder)
