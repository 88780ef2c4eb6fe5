"""The stages as Prefect tasks: each is a lookup, the stage's plain function, and commits."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.context import TaskRunContext
from prefect.states import Cancelled, Completed

from models.devices import is_out_of_memory
from models.registry import Need
from storage.errors import AwaitedError, EngineError, LeaseHeldError, TransientError
from storage.records import Stage
from tasks.declarations import Declaration
from tasks.packing import finish_shard
from tasks.progress import Progress, StoppedError
from tasks.stages import STAGES
from tasks.work import ShardWork


class OutOfMemoryError(EngineError):
    """A stage needs more memory than there is."""


def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Retry what may work later.

    A lease that somebody else holds is not retried: the holder makes the output, and the flow
    comes back to the shard.
    """
    error = state.data if isinstance(state.data, BaseException) else None
    error = error or state.result(raise_on_failure=False)
    return isinstance(error, TransientError) and not isinstance(error, LeaseHeldError)


_LOOK_SECONDS = 5.0
"""Seconds between two looks at whether a slot of a paid service is still wanted."""

_DELAYS = (5, 15, 45)
"""Seconds before each time that something is tried again."""
_JITTER = 0.5
"""Most by which a delay is longer, as a share of it, so that workers do not march in step."""

RETRIES: Mapping[str, Any] = {
    "retries": len(_DELAYS),
    "retry_delay_seconds": list(_DELAYS),
    "retry_jitter_factor": _JITTER,
    "retry_condition_fn": is_transient,
}
"""How every task tries again what may work later."""


def stage_options(stage: Stage) -> dict[str, Any]:
    """The options of a stage's task.

    Prefect's own result cache is off, because the store decides what is done. There are no tags:
    for every tag Prefect asks its server for a concurrency slot, which takes a second or two. The
    stage itself waits before it tries again, because nothing could stop Prefect's waiting.
    """
    return {
        "name": stage.value,
        "task_run_name": f"{stage.value} · {{work.title}}",
        "cache_policy": NO_CACHE,
        "persist_result": False,
        **RETRIES,
        "retry_delay_seconds": 0,
        "retry_jitter_factor": None,
    }


@dataclass(frozen=True)
class StageReport:
    """What a stage did for a shard.

    Attributes:
        executed: Pieces that were made, or 1 for a shard that was packed; 0 if nothing was done.
    """

    executed: int


def make_stage(declaration: Declaration, work: ShardWork) -> Any:
    """Do a stage of a shard, unless that is done already.

    Args:
        declaration: The stage.
        work: The shard.

    Returns:
        A report; as a Prefect state named ``Cached`` that holds it if nothing was executed, and as
        a cancelled state that holds the `StoppedError` if the run was asked to stop, or, named
        ``Waiting``, the `AwaitedError` if answers come hours later.

    Raises:
        DamagedError: What an earlier stage made is damaged.
        OutOfMemoryError: The stage needs more memory than there is.
        UndeliveredError: Samples are missing that a service did not deliver.
    """
    try:
        if declaration.make is None:
            executed = finish_shard(work)
        else:
            executed = work.make_missing(declaration, lambda: _needed(declaration, work))
    except StoppedError as error:
        return Cancelled(message=str(error), data=error)
    except AwaitedError as error:
        return Cancelled(name="Waiting", message=str(error), data=error)
    report = StageReport(executed)
    if executed:
        return report
    return Completed(name="Cached", message="committed before, nothing executed", data=report)


@contextmanager
def _needed(declaration: Declaration, work: ShardWork) -> Iterator[None]:
    """Hold the slot of the paid service that the stage works with, if it does."""
    limit = work.machine.service_limit
    if declaration.need(work.recipe) is not Need.SERVICE:
        limit = None
    slot = service_slot(limit, work.machine.progress) if limit else nullcontext()
    with slot, _memory_explained(declaration, work):
        yield


@contextmanager
def service_slot(limit: str, progress: Progress) -> Iterator[None]:
    """Hold a slot of a Prefect concurrency limit; the run's stop ends the waiting."""
    with ExitStack() as stack:
        while True:
            progress.check(f"the wait for a slot of {limit}")
            with suppress(TimeoutError):
                slot = concurrency(limit, strict=True, timeout_seconds=_LOOK_SECONDS)
                stack.enter_context(slot)
                break
        yield


@contextmanager
def _memory_explained(declaration: Declaration, work: ShardWork) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        way = "free memory on this machine"
        if declaration.device(work.recipe):
            size = declaration.model(work.recipe).batch_size
            way = f"lower batch_size, which is {size}, or free memory on the device"
        message = f"{declaration.stage} of {work.shard.name} ran out of memory ({error}): {way}"
        raise OutOfMemoryError(message) from error


def _wait_before_retry(progress: Progress, stage: Stage) -> None:
    context = TaskRunContext.get()
    tries = context.task_run.run_count if context else 1
    if tries > 1:
        delay = _DELAYS[min(tries - 2, len(_DELAYS) - 1)]
        jitter = secrets.SystemRandom().uniform(1, 1 + _JITTER)
        progress.wait(delay * jitter, f"the wait for {stage}")


def _stage_task(declaration: Declaration) -> Any:
    def stage(work: ShardWork) -> Any:
        try:
            _wait_before_retry(work.machine.progress, declaration.stage)
        except StoppedError as error:
            return Cancelled(message=str(error), data=error)
        return make_stage(declaration, work)

    # Prefect tells tasks apart by the name of their function.
    stage.__name__ = stage.__qualname__ = f"{declaration.stage.value}_stage"
    stage.__doc__ = f"{declaration.about.capitalize()}."
    return task(**stage_options(declaration.stage))(stage)


STAGE_TASKS: Mapping[Stage, Any] = {
    stage: _stage_task(declaration) for stage, declaration in STAGES.items()
}
"""The Prefect task of every stage: it takes a `ShardWork`, and returns a `StageReport`, or a state
named ``Cached`` that holds it."""
