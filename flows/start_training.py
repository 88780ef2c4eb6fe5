"""The flow that starts the training of a dataset: once, when there is enough, for sure.

An event says that a dataset is ready, and a schedule looks whether it is: events can be lost, and
schedules are late. Both start this flow. It decides by what is there, the store and the runs that
the server knows, so it may run at any time and as often as one likes. It computes nothing.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, cast

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments import run_deployment
from prefect.states import Completed

from flows.announcing import count_good_shards, dataset_digest
from flows.deployed import DeploymentName, read_deployment
from flows.live_page import engine_log
from flows.training_parameters import (
    DatasetRoot,
    MinShards,
    ProfileName,
    TrainAndEvaluateParameters,
    read_training_form,
)
from storage.errors import EngineError
from storage.identity import digest
from storage.layout import SPEC_PATH
from storage.objects import open_objects
from storage.store import Store

__all__ = ["start_training"]

MOST_CRASHES = 3
"""Runs of one training that may crash, as they do with their machine, before it is given up."""

_MOST_RUNS = 50
"""Runs of one training that are told apart, those of removed datasets included."""

_log = logging.getLogger(__name__)


@flow(name="start-training", persist_result=False)
def start_training(
    *,
    dataset: DatasetRoot,
    profile: ProfileName = "miniature",
    min_shards: MinShards = 1,
    training: DeploymentName = "train-and-evaluate/miniature-training",
) -> Any:
    """Start the training of a dataset once it has enough shards, unless that was done before.

    A training that crashed, as it does with its machine, is started again. One that failed or was
    cancelled is left to people.

    Args:
        dataset: What to train on: the root of a dataset.
        profile: Whose student is trained: a shipped profile, or the path of a YAML file.
        min_shards: Good shards that must be committed before training starts.
        training: Deployment of train-and-evaluate; what it says holds but for the fields above.

    Returns:
        A completed state, whose name says what was found: `Waiting`, `Started`, `Running`,
        `Cached`, or `Stopped` for a training that people must look after.

    Raises:
        InputError: There is no such deployment, or its parameters do not fit.
    """
    with engine_log(), get_client(sync_client=True) as client:
        deployed = read_deployment(client, training)
        store = _open(dataset)
        if store is None:
            return Completed(name="Waiting", message=f"there is no dataset in {dataset} yet")
        good = count_good_shards(store)
        if good < min_shards:
            message = f"{store.root} has {good} of {min_shards} good shards"
            return Completed(name="Waiting", message=message)
        wanted = {"dataset": store.root, "profile": profile, "min_shards": min_shards}
        wanted |= _own_folder(deployed, store)
        parameters = read_training_form(**{**deployed.parameters, **wanted})
        _log.info("%d good shards; the run's folder is %s", good, parameters.run_folder)
        return _start(client, _Series.of(training, store, parameters), wanted, parameters)


def _open(dataset: str) -> Store | None:
    if open_objects(dataset).size(SPEC_PATH) is None:
        return None
    return Store.open(dataset)


def _own_folder(deployed: DeploymentResponse, store: Store) -> dict[str, str]:
    """Where the run goes, if the deployment's folder is that of another dataset's run.

    A folder holds one run. So another dataset than the deployment's gets a folder beside it.
    """
    out, own = deployed.parameters.get("out"), deployed.parameters.get("dataset")
    if out is None or (own is not None and open_objects(own).url == store.root):
        return {}
    name = PurePosixPath(store.root).name
    return {"out": str(PurePosixPath(out).parent / f"{name}-{digest(store.root)[:8]}-run")}


def _is_over(parameters: TrainAndEvaluateParameters) -> bool:
    """Whether everything that is asked for is there already, as far as this machine can see.

    A folder of another machine, or weights that are not here, are no reason to stop: the run finds
    out itself what is done, where it works.
    """
    from flows.run_plan import plan_scorings, plan_training

    try:
        if plan_training(parameters).find() is None:
            return False
        return all(each.find() is not None for each in plan_scorings(parameters))
    except EngineError as error:
        _log.info("whether it was trained before is not known here: %s", error)
        return False


@dataclass(frozen=True)
class _Series:
    """The runs of one training: the first, and those that follow a crash.

    Attributes:
        deployment: What is run.
        name: What the runs are called.
        key: What tells the series from others.
        since: When the first shard of the dataset was committed.
    """

    deployment: str
    name: str
    key: str
    since: datetime | None

    @classmethod
    def of(cls, deployment: str, store: Store, parameters: TrainAndEvaluateParameters) -> "_Series":
        """The series of a training, as exactly these parameters mean it."""
        asked = parameters.model_dump(mode="json", exclude_defaults=True, exclude={"min_shards"})
        # equal specifications at two places are two datasets
        about = [dataset_digest(store), store.root, deployment, asked]
        times = [datetime.fromisoformat(shard.commit.created) for shard in store.shards()]
        return cls(
            deployment=deployment,
            name=f"training of {PurePosixPath(store.root).name}"[:100],
            key=f"train-{digest(about)[:16]}-{parameters.min_shards}",
            since=min(times, default=None),
        )

    @property
    def keys(self) -> list[str]:
        """Idempotency keys: the server makes one run of each, whoever asks and however often."""
        return [f"{self.key}-{attempt}" for attempt in range(_MOST_RUNS)]

    def is_older(self, run: FlowRun) -> bool:
        """Whether a run trained on a dataset that was removed before this one was made there."""
        return self.since is not None and run.end_time is not None and run.end_time < self.since


def _start(
    client: SyncPrefectClient,
    series: _Series,
    wanted: Mapping[str, Any],
    parameters: TrainAndEvaluateParameters,
) -> Any:
    """Start the next run of a series, unless an earlier one stands in its way; says which."""
    before, crashed = _runs(client, series), list[FlowRun]()
    for key in series.keys:
        run = before.get(key)
        if run is not None and series.is_older(run):
            continue
        if run is not None and run.state is not None and run.state.is_crashed():
            crashed.append(run)
            if len(crashed) < MOST_CRASHES:
                continue
        elif run is not None and not _is_stopped(run):
            return _found(run)
        # what people trained by hand counts too; looking for it reads files, so it comes last
        if _is_over(parameters):
            message = f"trained and scored before, in {parameters.run_folder}"
            return Completed(name="Cached", message=message)
        if run is not None:
            return _stopped(run, len(crashed))
        started = _submit(series, wanted, key)
        message = f"training runs as {started.name!r} ({started.id})"
        return Completed(name="Started", message=message)
    message = f"{_MOST_RUNS} runs were started before; start {series.deployment} by hand"
    return Completed(name="Stopped", message=message)


def _is_stopped(run: FlowRun) -> bool:
    state = run.state
    return state is not None and state.is_final() and not state.is_completed()


def _runs(client: SyncPrefectClient, series: _Series) -> dict[str, FlowRun]:
    """The runs of a series by key."""
    filters = FlowRunFilter.model_validate({"idempotency_key": {"any_": series.keys}})
    found = client.read_flow_runs(flow_run_filter=filters)
    return {str(run.idempotency_key): run for run in found}


def _submit(series: _Series, wanted: Mapping[str, Any], key: str) -> FlowRun:
    run = run_deployment(
        series.deployment,
        parameters=dict(wanted),
        timeout=0,
        flow_run_name=series.name,
        idempotency_key=key,
        as_subflow=False,
    )
    return cast("FlowRun", run)


def _found(run: FlowRun) -> Any:
    """What to say about a run that was started before and is neither over in vain nor crashed."""
    state, about = run.state, f"{run.name!r} ({run.id})"
    if state is not None and state.is_completed():
        return Completed(name="Cached", message=f"trained before by {about}")
    name = state.name if state is not None else "not known"
    return Completed(name="Running", message=f"started before as {about}, which is {name}")


def _stopped(run: FlowRun, crashes: int) -> Any:
    """What to say about a run that only people can bring any further."""
    state = run.state
    name, why = (state.name, state.message) if state is not None else ("Unknown", None)
    words = f"{crashes} runs crashed, the last is" if crashes else "see"
    message = (
        f"{words} {run.name!r} ({run.id}), which is {name} ({why or 'no reason is known'}): mend "
        "what is wrong, then retry that run; it is not started again by itself"
    )
    return Completed(name="Stopped", message=message)
