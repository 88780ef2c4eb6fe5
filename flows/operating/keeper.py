"""The keeper: starts runs again that never began, because their server was away just then."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State, StateType
from prefect.states import Scheduled

_TAG = "magicseg"
_RECENT = timedelta(hours=1)
_MOST_TIMES = 3

_log = logging.getLogger(__name__)


def pick_up(client: SyncPrefectClient) -> list[str]:
    """Schedule the runs of our deployments again that crashed before they had begun.

    A run whose process cannot ask the server for its work crashes at once, and nothing of it was
    done. One that crashed at work is another matter: whoever follows it starts it again.

    Args:
        client: Of the server.

    Returns:
        The names of the runs.
    """
    since = datetime.now(UTC) - _RECENT
    filters = FlowRunFilter.model_validate(
        {
            "state": {"type": {"any_": [StateType.CRASHED.value]}},
            "tags": {"any_": [_TAG]},
            "end_time": {"after_": since.isoformat()},
        }
    )
    picked: list[str] = []
    for run in client.read_flow_runs(flow_run_filter=filters):
        states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
        if run.deployment_id is None or _began(states) or _times(states) >= _MOST_TIMES:
            continue
        message = "picked up again: it had crashed before it began"
        client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry", message=message))
        picked.append(run.name)
    return picked


def _began(states: Sequence[State]) -> bool:
    """Whether a run that crashed was at work; one that waits for answers begins several times.

    The server gives one that crashed a start time, whether it began or not.
    """
    before = [state.type for state in states if state.type is not StateType.CRASHED]
    return not before or before[-1] not in {StateType.SCHEDULED, StateType.PENDING}


def _times(states: Sequence[State]) -> int:
    """How often it was picked up before."""
    return sum(state.name == "AwaitingRetry" for state in states)
