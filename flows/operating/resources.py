"""What the server must know before work can begin: pool, queues, limits, automation, deployments.

Everything here may be done again at any time and changes nothing then.
"""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    WorkPoolCreate,
)
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows.operating.site import POOL, Site
from storage.errors import EngineError

GPU_QUEUE = "gpu"
COORDINATION = "coordination"
LIMITS: Mapping[str, int] = {"magicseg-writer": 4}
"""Concurrency limits by name, and what they begin with; a changed one stays as it is."""

DEPLOYMENTS = Path(__file__).parents[1] / "prefect.yaml"

CRASH_AUTOMATION = "magicseg: runs that give no sign of life have crashed"
_SILENT_SECONDS = 90


def deployment_names() -> list[str]:
    """The names of all deployments, as `flow/deployment`."""
    document = yaml.safe_load(DEPLOYMENTS.read_text("utf-8"))
    return [
        f"{each['entrypoint'].rpartition('.')[2].replace('_', '-')}/{each['name']}"
        for each in document["deployments"]
    ]


def ensure_resources(client: SyncPrefectClient, queues: Iterable[str]) -> None:
    """Make the pool, its queues, the limits and the automation, as far as they are missing.

    Args:
        client: Of the server.
        queues: Names of further queues, such as those of classes of GPUs.
    """
    pools = {pool.name for pool in client.read_work_pools()}
    if POOL not in pools:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    for name in (GPU_QUEUE, COORDINATION, *queues):
        try:
            client.read_work_queue_by_name(name, work_pool_name=POOL)
        except ObjectNotFound:
            client.create_work_queue(name, work_pool_name=POOL)
    limits = _limits(client)
    for name, limit in LIMITS.items():
        if name not in limits:
            client.create_global_concurrency_limit(
                GlobalConcurrencyLimitCreate(name=name, limit=limit)
            )
    _ensure_automation(client)


def _ensure_automation(client: SyncPrefectClient) -> None:
    """Make the automation, or bring it up to date; one that was switched off stays off."""
    wanted = _crash_automation()
    found = client.read_automations_by_name(CRASH_AUTOMATION)
    if not found:
        client.create_automation(wanted)
    elif _essence(found[0]) != _essence(wanted):
        client.update_automation(
            found[0].id, wanted.model_copy(update={"enabled": found[0].enabled})
        )


def _essence(automation: AutomationCore) -> dict[str, Any]:
    """What an automation does, without what the server adds."""
    trigger = automation.trigger.model_dump(mode="json")
    return {
        "after": sorted(trigger.get("after", ())),  # sets, which have no order
        "expect": sorted(trigger.get("expect", ())),
        "within": trigger.get("within"),
        "actions": [each.model_dump(mode="json") for each in automation.actions],
    }


def missing_resources(client: SyncPrefectClient) -> list[str]:
    """What `ensure_resources` and `register_deployments` would have to make, in words."""
    missing: list[str] = []
    if POOL not in {pool.name for pool in client.read_work_pools()}:
        missing.append(f"work pool {POOL}")
    limits = _limits(client)
    missing += [f"concurrency limit {name}" for name in LIMITS if name not in limits]
    if not client.read_automations_by_name(CRASH_AUTOMATION):
        missing.append(f"automation {CRASH_AUTOMATION!r}")
    return missing + [f"deployment {name}" for name in _missing_deployments(client)]


def register_deployments(client: SyncPrefectClient, site: Site) -> None:
    """Register all deployments as this version of the engine has them.

    What people have switched on or off in the user interface stays so.

    Raises:
        EngineError: Prefect refused them.
    """
    switches = _switches(client)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        [*command, "--prefect-file", str(DEPLOYMENTS)],
        check=False,
        cwd=site.state,
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    site.logs.mkdir(parents=True, exist_ok=True)
    (site.logs / "deploy.log").write_text(done.stdout, "utf-8")
    left = _missing_deployments(client)
    if done.returncode or left:
        what = f"code {done.returncode}" if done.returncode else f"without {', '.join(left)}"
        message = f"'prefect deploy --all' ended with {what}; see {site.logs / 'deploy.log'}"
        raise EngineError(message)
    _restore(client, switches)


def _missing_deployments(client: SyncPrefectClient) -> list[str]:
    missing: list[str] = []
    for name in deployment_names():
        try:
            client.read_deployment_by_name(name)
        except ObjectNotFound:
            missing.append(name)
    return missing


def _switches(client: SyncPrefectClient) -> dict[tuple[str, str], bool]:
    """Which schedules are on, by deployment and slug."""
    found: dict[tuple[str, str], bool] = {}
    for name in deployment_names():
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound:
            continue
        for schedule in deployment.schedules:
            found[name, str(schedule.slug)] = schedule.active
    return found


def _restore(client: SyncPrefectClient, switches: Mapping[tuple[str, str], bool]) -> None:
    for (name, slug), active in switches.items():
        deployment = client.read_deployment_by_name(name)
        for schedule in deployment.schedules:
            if str(schedule.slug) == slug and schedule.active != active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=active)


def _limits(client: SyncPrefectClient) -> set[str]:
    return {limit.name for limit in client.read_global_concurrency_limits(limit=200, offset=0)}


def _crash_automation() -> Any:
    """Runs send a sign of life every 30 seconds; one that sends none any more has crashed."""
    beat = "prefect.flow-run.heartbeat"  # one of the events below
    return AutomationCore(
        name=CRASH_AUTOMATION,
        description=f"A run that was silent for {_SILENT_SECONDS} s lost its process.",
        trigger=EventTrigger(
            after={beat, "prefect.flow-run.Running"},  # the first beat may die with its process
            # states have names of ours too, such as Cached
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},  # type: ignore[arg-type]
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=_SILENT_SECONDS),
        ),
        actions=[  # type: ignore[arg-type]
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=f"no sign of life for {_SILENT_SECONDS} s: its worker is gone",
                force=False,
            )
        ],
    )
