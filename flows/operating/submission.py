"""Submission: slices are sent to the workers, and followed to their end."""

import time
from typing import Any, cast

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from rich.console import Console

from flows.deployed import deployed_vocabulary, read_deployment
from flows.generate_slices import cut_slices
from storage.errors import IncompleteError
from storage.slices import SLICE_NAMES

_LOOK_SECONDS = 3.0


def submit(
    client: SyncPrefectClient,
    slices: tuple[str, ...],
    deployment: str,
    samples: int | None,
    queue: str | None,
) -> FlowRun:
    """Submit slices as one run of the flow `generate-slices`.

    Args:
        client: Of the server that Prefect speaks to.
        slices: Named slices, ranges of ids, or names between commas.
        deployment: Deployment of `generate-slices`.
        samples: Samples to plan for each slice, or nothing for what is deployed.
        queue: Work queue, or nothing for the deployment's.

    Raises:
        InputError: There is no such deployment, or a slice means nothing.
    """
    target = read_deployment(client, deployment).parameters.get("deployment", "")
    vocabulary = deployed_vocabulary(client, str(target))
    labels = [part.label for part in cut_slices(vocabulary, slices)]
    parameters: dict[str, Any] = {
        "slices": [each for each in labels if each in SLICE_NAMES],
        "class_lists": [each for each in labels if each not in SLICE_NAMES],
    }
    if samples is not None:
        parameters["samples"] = samples
    if queue is not None:
        parameters["queue"] = queue
    name = ", ".join(labels)[:100]
    run = run_deployment(deployment, parameters=parameters, timeout=0, flow_run_name=name)
    return cast("FlowRun", run)


def follow(client: SyncPrefectClient, run: FlowRun, console: Console) -> None:
    """Say how far a run is until it is over.

    Raises:
        IncompleteError: It did not complete; says why.
    """
    told = ""
    while True:
        run = client.read_flow_run(run.id)
        text = _progress(client, run)
        if text != told:
            told = text
            console.print(text, soft_wrap=True, markup=False)
        if run.state is not None and run.state.is_final():
            break
        time.sleep(_LOOK_SECONDS)
    if not run.state.is_completed():
        message = f"{run.name}: {run.state.name}, {run.state.message}"
        raise IncompleteError(message)
    console.print(f"{run.name}: {run.state.name}, {run.state.message}", soft_wrap=True)


def _progress(client: SyncPrefectClient, run: FlowRun) -> str:
    """The lines of the run's progress artifact, without what makes them a table."""
    filters = ArtifactFilter.model_validate(
        {"flow_run_id": {"any_": [run.id]}, "type": {"any_": ["progress"]}}
    )
    found = client.read_artifacts(artifact_filter=filters)
    state = (run.state and run.state.name) or "Unknown"
    if not found:
        return f"{run.name}: {state}"
    rows = (found[0].description or "").splitlines()[4:]
    lines = [" ".join(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    return "\n".join(line.partition("](")[0].lstrip("[") + line.partition(")")[2] for line in lines)
