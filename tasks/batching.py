"""Batching: a writer's answers that come hours later are asked for, and taken in."""

from contextlib import nullcontext

from models.protocols import AwaitedAnswers, BatchingWriter
from models.registry import Need, kind_of
from tasks.context import RunContext
from tasks.stage_tasks import service_slot


def settle_batches(context: RunContext) -> None:
    """Take in the answers that have come since the last run, before anything is made.

    Raises:
        InputError: The service refused calls, or does not know a batch any more.
        StoppedError: The run was asked to stop.
    """
    writer = _writer(context)
    if writer is not None:
        progress = context.machine.progress
        writer.settle(lambda: progress.check("the look at the writer's batches"))


def send_batches(context: RunContext) -> bool:
    """Ask for the answers that shards wait for.

    Returns:
        Whether some are there now, so that the shards can go on.

    Raises:
        BudgetError: They do not fit into the writer's budget.
        InputError: The service has no Batch API, or refuses the calls.
        StoppedError: The run was asked to stop.
        TransientError: The service does not answer.
    """
    writer, progress = _writer(context), context.machine.progress
    if writer is None:
        return False
    limit = context.machine.service_limit
    with service_slot(limit, progress) if limit else nullcontext():
        return writer.send(
            lambda: progress.check("the making of batches"), lambda: not progress.is_stopping
        )


def awaited_answers(context: RunContext) -> AwaitedAnswers | None:
    """What the run's writer waits for; nothing if it is none that does."""
    writer = _writer(context)
    return None if writer is None else writer.awaited()


def _writer(context: RunContext) -> BatchingWriter | None:
    config = context.recipe.profile.writer
    if kind_of(config).need is not Need.SERVICE:
        return None  # and is not built where no text is missing
    writer = context.machine.models.model(config, context.store.objects)
    return writer if isinstance(writer, BatchingWriter) else None
