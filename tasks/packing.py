"""Packing a shard: its pieces become one tar, as soon as all of its samples are decided."""

import dataclasses
import time

from storage.errors import EngineError
from storage.records import Reason, Stage
from storage.vocabulary import load_vocabulary
from tasks.progress import Step
from tasks.shards import pack_shard
from tasks.work import ShardWork


class UndeliveredError(EngineError):
    """A shard cannot be packed, because a service did not deliver some of its samples."""


class UndecidedError(EngineError):
    """A shard cannot be packed yet: pieces of it vanished while it was made."""


def finish_shard(work: ShardWork) -> int:
    """Pack a shard, unless it is finished.

    Args:
        work: The shard; its pieces are made.

    Returns:
        1 if it was packed, 0 if it was finished before.

    Raises:
        DamagedError: A piece is damaged.
        StoppedError: The run was asked to stop.
        UndecidedError: Pieces are gone since they were made.
        UndeliveredError: Samples failed, and the run does not accept that.
    """
    store, shard, progress = work.store, work.shard, work.machine.progress
    executed = 0

    def check() -> None:
        progress.check(f"{Stage.SHARDS} of {shard.name}")

    with work.machine.packing(), store.lease(Stage.SHARDS, shard.name, check):
        store.heal_unit(Stage.SHARDS, shard.name)
        adopted = store.heal(Stage.SHARDS, shard.name, work.key)
        if not store.covers(adopted, shard) and store.finished(shard) is None:
            work.forget()
            _refuse_unfinished(work)
            started = time.monotonic()
            vocabulary = load_vocabulary(work.recipe.profile.vocabulary)
            payload, counts = pack_shard(
                store, vocabulary, shard, work.states(), check, others=work.recipe.others
            )
            payload = dataclasses.replace(payload, seconds=time.monotonic() - started)
            store.commit(Stage.SHARDS, shard.name, work.key, payload, counts)
            executed = 1
    progress.tell(Step(Stage.SHARDS, shard.name, shard.count, shard.count, not executed))
    return executed


def _refuse_unfinished(work: ShardWork) -> None:
    failed: list[tuple[str, Reason]] = []
    for state in work.states():
        for sample in state.part.samples:
            if sample.key in state.undelivered:
                failed.append((sample.key, state.undelivered[sample.key].reason))
            elif not state.is_decided(sample):
                message = f"sample {sample.key} of {work.shard.name} is not decided: run again"
                raise UndecidedError(message)
    if failed and not work.context.accept_failed:
        reasons = sorted({reason.value for _, reason in failed})
        message = (
            f"{len(failed)} of {work.shard.count} samples were not delivered "
            f"({', '.join(reasons)}), {failed[0][0]} for one: run again to ask for exactly these, "
            "or pack without them by --accept-failed"
        )
        raise UndeliveredError(message)
