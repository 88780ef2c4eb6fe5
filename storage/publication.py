"""Publication: the steps in which an output becomes durable, and then done."""

import logging
from collections.abc import Callable

from storage.checks import defect, holds
from storage.commits import Commit, ObjectRef, read_commit
from storage.errors import DataError, TransientError
from storage.layout import (
    COMMIT_FOLDER,
    INTENT_FOLDER,
    commit_path,
    intent_path,
    shard_path,
)
from storage.objects import ObjectStore
from storage.payloads import Payload
from storage.quarantine import put_aside
from storage.records import Stage

_log = logging.getLogger(__name__)


def publish(
    objects: ObjectStore, record: Commit, payload: Payload, *, check: Callable[[], None]
) -> None:
    """Write everything that a record vouches for, then the record.

    Args:
        objects: The dataset.
        record: The record.
        payload: The bytes.
        check: Raises if the lease has been lost.

    Raises:
        LeaseHeldError: The lease has been lost; no record was written.
        TransientError: Somebody else writes the same files.
    """
    stage, unit, key = record.stage, record.shard, record.key
    text = record.encode()
    intent = intent_path(stage, unit, key)
    objects.replace(intent, text)
    grows = False
    if stage is Stage.SHARDS:
        grows = _withdraw_others(objects, unit, key)
        if record.object is None and objects.size(shard_path(unit)) is not None:
            put_aside(objects, [shard_path(unit)], f"the version with key {key} is empty")
    if record.object is not None:
        _write_whole(objects, record.object, payload.data, replaced=grows)
    if record.manifest is not None:
        _write_whole(objects, record.manifest, payload.manifest, replaced=grows)
    check()
    path = commit_path(stage, unit, key)
    # a request that was repeated after a lost answer finds its own record
    if not objects.write_new(path, text) and objects.read(path) != text:
        message = f"{stage} of {unit} was committed by somebody else meanwhile; run again"
        raise TransientError(message)
    for begun in objects.paths(f"{INTENT_FOLDER}/{stage}/{unit}"):
        objects.delete(begun)


def adopt(objects: ObjectStore, stage: Stage, unit: str, key: str) -> Commit | None:
    """Finish a commit that was cut short after its bytes were whole; needs the lease.

    Args:
        objects: The dataset.
        stage: The stage.
        unit: Name of the shard or cell.
        key: Key of the output.

    Returns:
        The record that was written, or None if there is nothing to adopt.
    """
    intent = intent_path(stage, unit, key)
    try:
        record = read_commit(objects.read(intent), intent)
    except (FileNotFoundError, DataError):
        return None
    if record.key != key or defect(objects, record, deep=True):
        return None
    if stage is Stage.SHARDS:
        _withdraw_others(objects, unit, key)
    objects.write_new(commit_path(stage, unit, key), record.encode())
    objects.delete(intent)
    _log.info("%s of %s: adopted what an interrupted run left complete", stage, unit)
    return record


def _write_whole(
    objects: ObjectStore, ref: ObjectRef, data: bytes | memoryview, *, replaced: bool
) -> None:
    """Give bytes their name; adopt equal ones, put others aside, loudly if they are a surprise."""
    if objects.write_new(ref.path, data) or holds(objects, ref):
        return
    reason = "its bytes differ from what this commit made"
    put_aside(objects, [ref.path], reason, level=logging.INFO if replaced else logging.WARNING)
    if not objects.write_new(ref.path, data):
        message = f"{ref.path} is being written by somebody else too; run again"
        raise TransientError(message)


def _withdraw_others(objects: ObjectStore, shard: str, key: str) -> bool:
    """Withdraw the records of other versions of a shard before its tar is replaced, if any."""
    folder = f"{COMMIT_FOLDER}/{Stage.SHARDS}/{shard}"
    kept = commit_path(Stage.SHARDS, shard, key)
    others = [path for path in objects.paths(folder) if path != kept]
    if others:
        put_aside(objects, others, f"replaced by a version with key {key}", level=logging.INFO)
    return bool(others)
