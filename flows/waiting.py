"""Waiting: a run whose answers come hours later ends, and is begun again when they may be there.

No process sleeps meanwhile. On a terminal the same command looks again. A run of a deployment is
put back among those that are to begin, at the time of the next look: its worker is free until then,
any worker may take it, and whoever cancels it ends the waiting.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import SetStateStatus
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.states import Scheduled

from models.protocols import AwaitedAnswers
from storage.errors import AwaitedError

AWAITING = "Awaiting"
"""Name of the state of a run that is begun again later."""

_log = logging.getLogger(__name__)


def awaited_error(shards: int, found: AwaitedAnswers | None) -> AwaitedError:
    """Say what a run waits for, and when to look again.

    Args:
        shards: Shards that wait.
        found: What the writer waits for.
    """
    next_look = None if found is None else found.next_look
    lines = [f"{shards} shards wait for answers of the writer"]
    if found is not None and found.batches:
        lines.append(
            f"{found.calls} calls are in {found.batches} open batches{_since(found.since)}"
        )
    if found is not None and found.exported:
        lines.append(
            f"{found.exported} calls wait for a model of your own: 'magicseg batch export ROOT "
            "FILE' writes them, 'magicseg batch import ROOT FILE' takes in what came of them"
        )
    when = f", at {clock_time(next_look)} or later" if next_look is not None else ""
    lines.append(f"run the same command again to look{when}")
    return AwaitedError("; ".join(lines), next_look=next_look)


def _since(since: datetime | None) -> str:
    return "" if since is None else f", since {clock_time(since)}"


def clock_time(moment: datetime) -> str:
    """A time of the day in this machine's zone, with the date if that is another one."""
    local = moment.astimezone()
    is_today = local.date() == datetime.now(UTC).astimezone().date()
    return f"{local:%H:%M}" if is_today else f"{local:%Y-%m-%d %H:%M}"


@contextmanager
def looked_at_later() -> Iterator[None]:
    """Put the present run back among those that are to begin, if its block waits for answers.

    That is a run of a deployment; one that another flow has called, or a command, gets the error.

    Raises:
        AwaitedError: Nobody would begin the run again.
    """
    try:
        yield
    except AwaitedError as error:
        context = FlowRunContext.get()
        run = None if context is None else context.flow_run
        if run is None or run.deployment_id is None or error.next_look is None:
            raise
        wanted: State[Any] = Scheduled(
            scheduled_time=error.next_look, name=AWAITING, message=str(error)
        )
        with get_client(sync_client=True) as client:
            answer = client.set_flow_run_state(run.id, wanted)
        if answer.status is not SetStateStatus.ACCEPT:
            raise  # somebody cancels it just now
        _log.info("%s", error)
        # the process ends as that of a suspended run does, and leaves the state as it is
        raise Pause(state=answer.state) from None
