"""Care for a dataset: what to retry, to extend, to free, to restore, as JSON types and in words."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flows.generation_parameters import GenerationParameters
from flows.kept_parameters import command_line, find_slice, kept_parameters, only_slice
from storage.batches import (
    QuarantineBatch,
    choose_batches,
    delete_batch,
    find_batch,
    list_batches,
    restore_batch,
)
from storage.documents import suggest
from storage.errors import InputError
from storage.garbage import find_garbage, free_garbage
from storage.records import Reason, Stage
from storage.reopening import ShardToReopen, Wanted, find_dropped, reopen
from storage.store import Store

_NameT = TypeVar("_NameT", Stage, Reason)

Say = Callable[[str], None]
"""Writes a line."""


def wanted_samples(
    slice_id: str, shard: str | None, stage: str | None, reason: str | None, *, degraded: bool
) -> Wanted:
    """Which dropped samples are meant by what was typed.

    Raises:
        InputError: A stage or a reason is unknown.
    """
    return Wanted(
        slice_id=slice_id,
        shard=shard or "",
        stage=_name(Stage, stage, "stage", [each for each in Stage if each is not Stage.SHARDS]),
        reason=_name(Reason, reason, "reason", list(Reason)),
        degraded=degraded,
    )


def describe_retry(store: Store, wanted: Wanted, *, dry_run: bool) -> dict[str, Any]:
    """Open dropped samples again, and say which, and how they are made.

    Raises:
        InputError: There is no such shard, or what is left of one does not do.
    """
    shards = find_dropped(store, wanted)
    commands = _next_commands(store, shards)
    if not dry_run:
        reopen(store, shards)
    return {
        "root": store.root,
        "dry_run": dry_run,
        "samples": sum(len(each.rows) for each in shards),
        "shards": [
            {
                "shard": each.commit.shard,
                "samples": [
                    {"key": row.key, "stage": row.stage, "reason": row.reason} for row in each.rows
                ],
            }
            for each in shards
        ],
        "next": commands,
    }


def print_retry(described: dict[str, Any], say: Say) -> None:
    """Print what was opened again."""
    shards = described["shards"]
    if not shards:
        say(f"nothing to retry in {described['root']}: no such sample in a finished shard")
        return
    for shard in shards:
        reasons = Counter(f"{each['reason']} at {each['stage']}" for each in shard["samples"])
        words = ", ".join(f"{why} {count}" for why, count in sorted(reasons.items()))
        say(f"{shard['shard']}: {words}")
    done = "would be opened again" if described["dry_run"] else "opened again"
    say(f"{described['samples']} samples of {len(shards)} shards {done}; they are made by")
    for command in described["next"]:
        say(f"    {command}")


def extended_parameters(root: str, by: int, slice_text: str | None) -> GenerationParameters:
    """The parameters of a slice's last run, with more samples.

    Raises:
        InputError: There is no such slice, or its parameters were not kept.
    """
    store = Store.open(root)
    slice_id = only_slice(store) if slice_text is None else find_slice(store, slice_text)
    parameters = kept_parameters(store, root, slice_id)
    if parameters is None:
        message = (
            f"{store.root} does not say how slice {slice_id} was made, because an earlier version "
            "did it; run 'magicseg generate' once with the same parameters and more --samples"
        )
        raise InputError(message)
    samples = max(parameters.samples, _held(store, slice_id)) + by
    return parameters.model_copy(update={"samples": samples, "shards": "all"})


def describe_extension(parameters: GenerationParameters, by: int) -> dict[str, Any]:
    """Say what is there of a slice that was extended."""
    store = Store.open(parameters.root)
    slice_id = find_slice(store, parameters.slice)
    (status,) = (each for each in store.status() if each.slice_id == slice_id)
    return {
        "root": store.root,
        "slice_id": slice_id,
        "by": by,
        "samples": parameters.samples,
        "shards": status.shards,
        "written": status.written,
        "dropped": {reason.value: count for reason, count in status.dropped.items()},
    }


def describe_garbage(root: str, *, really: bool) -> dict[str, Any]:
    """Say what can be freed, and free it if that is wanted.

    Raises:
        InputError: There is no dataset.
    """
    store = Store.open(root)
    garbage = find_garbage(store)
    described: dict[str, Any] = {
        "root": store.root,
        "pieces": len(garbage.outputs),
        "samples": garbage.samples,
        "loose_objects": len(garbage.loose),
        "bytes": garbage.num_bytes,
        "failed_samples": garbage.failed,
        "unreadable": list(garbage.unreadable),
        "freed": None,
    }
    if really:
        freed = free_garbage(store, garbage)
        described["freed"] = {
            "pieces": freed.outputs,
            "objects": freed.objects,
            "bytes": freed.num_bytes,
            "held": freed.held,
        }
    return described


def print_garbage(described: dict[str, Any], say: Say) -> None:
    """Print what can be freed, or was."""
    say(
        f"{described['root']}: {described['pieces']} pieces of {described['samples']} packed "
        f"samples and {described['loose_objects']} objects that nothing names, "
        f"{_megabytes(described['bytes'])}"
    )
    if described["unreadable"]:
        say(
            f"{len(described['unreadable'])} records cannot be read, {described['unreadable'][0]} "
            "for one, so no object counts as loose: run 'magicseg verify --repair' first"
        )
    freed = described["freed"]
    if freed is None:
        if described["failed_samples"]:
            say(
                f"{described['failed_samples']} samples of these shards failed and cannot be "
                "retried afterwards: 'magicseg retry' comes first"
            )
        say("nothing was freed; --yes frees it")
        return
    say(f"freed {freed['pieces']} pieces, {_megabytes(freed['bytes'])}")
    if freed["held"]:
        say(f"left alone, because somebody works there: {', '.join(freed['held'])}")


def describe_quarantine(root: str) -> dict[str, Any]:
    """Say what is in the quarantine of a dataset.

    Raises:
        InputError: There is no dataset.
    """
    store = Store.open(root)
    return {"action": "list", "root": store.root, **_describe(list_batches(store.objects))}


def restore(root: str, batch_id: str) -> dict[str, Any]:
    """Move a batch back to where it was.

    Raises:
        InputError: There is no such batch, or something stands in its way.
    """
    store = Store.open(root)
    batch = find_batch(store.objects, batch_id)
    restore_batch(store, batch)
    return {"action": "restore", "root": store.root, **_describe([batch])}


def describe_emptying(
    root: str, *, older_than: float | None, batch_id: str | None, really: bool
) -> dict[str, Any]:
    """Say which batches are to be deleted, and delete them if that is wanted.

    Raises:
        InputError: There is no dataset, or no such batch.
    """
    store = Store.open(root)
    if batch_id is not None:
        find_batch(store.objects, batch_id)
    batches = choose_batches(list_batches(store.objects), older_than=older_than, batch_id=batch_id)
    if really:
        for batch in batches:
            delete_batch(store.objects, batch)
    return {"action": "empty", "root": store.root, "deleted": really, **_describe(batches)}


def print_quarantine(described: dict[str, Any], say: Say) -> None:
    """Print batches, and what was done with them."""
    batches = described["batches"]
    for each in batches:
        age = "of unknown age" if each["days"] is None else f"{each['days']:.1f} days old"
        say(
            f"{each['id']}: {len(each['files'])} files, {_megabytes(each['bytes'])}, {age}: "
            f"{each['reason']}"
        )
    total = f"{len(batches)} batches, {_megabytes(described['bytes'])}"
    if described["action"] == "list":
        say(f"{total} in the quarantine of {described['root']}")
    elif described["action"] == "restore":
        for path in batches[0]["files"]:
            say(f"restored {path}")
    elif described["deleted"]:
        say(f"deleted {total}")
    else:
        say(f"{total} would be deleted; --yes deletes them")


def _describe(batches: Sequence[QuarantineBatch]) -> dict[str, Any]:
    return {
        "batches": [{**batch.model_dump(mode="json"), "days": batch.days} for batch in batches],
        "bytes": sum(batch.bytes for batch in batches),
    }


def _name(
    kind: type[_NameT], text: str | None, what: str, known: Sequence[_NameT]
) -> _NameT | None:
    if text is None:
        return None
    if text not in known:
        message = f"{what} {text!r} is unknown; {suggest(text, [each.value for each in known])}"
        raise InputError(message)
    return kind(text)


def _next_commands(store: Store, shards: Sequence[ShardToReopen]) -> list[str]:
    """The command lines that make the samples of shards, one for each slice."""
    stops: dict[str, int] = {}
    for shard in shards:
        _, stop = store.range_of(shard.commit) or (0, 0)
        stops[shard.commit.slice_id] = max(stop, stops.get(shard.commit.slice_id, 0))
    return [_next_command(store, slice_id, stop) for slice_id, stop in stops.items()]


def _next_command(store: Store, slice_id: str, stop: int) -> str:
    parameters = kept_parameters(store, store.root, slice_id)
    if parameters is None:
        return f"'magicseg generate' with the parameters that slice {slice_id} was made with"
    samples = max(parameters.samples, stop)
    return command_line(parameters.model_copy(update={"samples": samples, "shards": "all"}))


def _held(store: Store, slice_id: str) -> int:
    """One past the last sample that the finished shards of a slice hold."""
    ranges = [store.range_of(each) for each in store.log.shards(slice_id).values()]
    return max((stop for _, stop in filter(None, ranges)), default=0)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
