"""The flow that makes several slices: one run of a deployment a slice, followed to its end.

Workers on any number of machines take the runs from their queue. This flow computes nothing, so it
belongs to a queue of its own: a worker that follows has no hand free for the GPU.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.runtime import flow_run as this_run
from prefect.states import Cancelling, Completed

from flows.deployed import DeploymentName, deployed_vocabulary
from flows.generation_form import SliceNames
from flows.generation_parameters import Samples
from flows.live_page import engine_log, live_artifact, progress_bar
from storage.errors import IncompleteError, InputError, TransientError
from storage.records import Record
from storage.slices import SLICE_NAMES, Slice, resolve_slice
from storage.vocabulary import Vocabulary

__all__ = ["SlicesSummary", "generate_slices"]

_LOOK_SECONDS = 3.0
_AWAY_SECONDS = 600.0
"""Longest time that the server may not answer."""

_MOST_CRASHES = 3
"""Runs of one slice that may crash, as they do with their machine, before it counts as failed."""

_log = logging.getLogger(__name__)


class SliceOutcome(Record, frozen=True):
    """How the run of a slice ended."""

    slice: str
    """What it is called."""
    run: str
    """Id of its last flow run."""
    state: str
    """Name of that run's state, such as Completed or Cached."""
    message: str
    """What the state says."""
    attempts: int
    """Runs that were needed."""


class SlicesSummary(Record, frozen=True):
    """How all slices ended."""

    slices: tuple[SliceOutcome, ...]
    """In the order in which they were asked for."""


@flow(name="generate-slices", persist_result=False)
def generate_slices(
    *,
    slices: SliceNames = (),
    class_lists: tuple[str, ...] = (),
    samples: Samples | None = None,
    deployment: DeploymentName = "generate-dataset/all",
    queue: str | None = None,
) -> Any:
    """Make several slices, each in a run of its own that any free worker takes.

    A run that crashed, as it does with its machine, is started again; finished slices cost nothing.

    Args:
        slices: Named slices.
        class_lists: Further slices: ranges of ids such as 0:100, or class names between commas.
        samples: How many samples to plan for each slice; empty means what the deployment says.
        deployment: Deployment of generate-dataset that makes a slice; what it says holds for all.
        queue: Work queue for the runs, such as the one of a class of GPUs; empty means the
            deployment's.

    Returns:
        A completed state with a `SlicesSummary`, named `Cached` if every slice was.

    Raises:
        IncompleteError: Slices are left to do; says which, and why.
        InputError: A slice means nothing, or there is no such deployment.
    """
    with engine_log(), get_client(sync_client=True) as client:
        vocabulary = deployed_vocabulary(client, deployment)
        parts = cut_slices(vocabulary, [*slices, *class_lists])
        fan = _Fan(client, deployment, queue, str(this_run.get_id()))
        for part in parts:
            fan.start(part, _values(vocabulary, part, samples))
        try:
            with live_artifact("magicseg-slices", fan.look):
                fan.follow()
        except BaseException:
            fan.cancel_if_cancelled()
            raise
        summary = SlicesSummary(slices=tuple(each.outcome() for each in fan.runs))
    left = [each for each in fan.runs if not each.succeeded]
    if left:
        words = "; ".join(f"{e.part.label}: {e.state_name}, {e.message}" for e in left)
        message = f"{len(left)} of {len(fan.runs)} slices are left to do; retry to go on; {words}"
        raise IncompleteError(message)
    name = "Cached" if all(each.state_name == "Cached" for each in fan.runs) else None
    return Completed(name=name, message=f"{len(fan.runs)} slices are complete", data=summary)


def cut_slices(vocabulary: Vocabulary, texts: Sequence[str]) -> list[Slice]:
    """The slices that texts mean, each once.

    Raises:
        InputError: There is none, or a text means nothing.
    """
    if not texts:
        message = f"no slice was given, expected at least one of {', '.join(SLICE_NAMES)}"
        raise InputError(message)
    parts = [resolve_slice(vocabulary, text) for text in texts]
    return list({part.slice_id: part for part in parts}.values())


def _values(vocabulary: Vocabulary, part: Slice, samples: int | None) -> dict[str, Any]:
    """The parameters of a slice's run; the rest is the deployment's."""
    named = part.label in SLICE_NAMES
    values: dict[str, Any] = {
        "slice": part.label if named else "all",
        "classes": [] if named else [vocabulary[each].name for each in part.class_ids],
    }
    return values if samples is None else {**values, "samples": samples}


@dataclass
class _SliceRun:
    """The run of one slice."""

    part: Slice
    values: Mapping[str, Any]
    run: FlowRun
    attempt: int
    crashes: int = 0
    percent: float = 0.0

    @property
    def state_name(self) -> str:
        return (self.run.state and self.run.state.name) or "Unknown"

    @property
    def message(self) -> str:
        return (self.run.state and self.run.state.message) or "no reason is known"

    @property
    def is_over(self) -> bool:
        return self.run.state is not None and self.run.state.is_final()

    @property
    def succeeded(self) -> bool:
        return self.run.state is not None and self.run.state.is_completed()

    def outcome(self) -> SliceOutcome:
        return SliceOutcome(
            slice=self.part.label,
            run=str(self.run.id),
            state=self.state_name,
            message=self.message,
            attempts=self.attempt + 1,
        )


@dataclass
class _Fan:
    """The runs of all slices.

    Attributes:
        client: Of the server.
        deployment: What is run.
        queue: Where, or nothing for the deployment's.
        parent: Id of this flow run.
        runs: One for each slice.
    """

    client: SyncPrefectClient
    deployment: str
    queue: str | None
    parent: str
    runs: list[_SliceRun] = field(default_factory=list[_SliceRun])

    def start(self, part: Slice, values: Mapping[str, Any]) -> None:
        """Submit the run of a slice, or find the one that this flow run has submitted before.

        When the flow is retried, slices that ended without success get a run of their own again.
        """
        run = _SliceRun(part, values, self._submit(part, values, 0), 0)
        while run.is_over and not run.succeeded:
            run.attempt += 1
            run.run = self._submit(part, values, run.attempt)
        self.runs.append(run)

    def _submit(self, part: Slice, values: Mapping[str, Any], attempt: int) -> FlowRun:
        run = run_deployment(
            self.deployment,
            parameters=dict(values),
            timeout=0,
            flow_run_name=part.label[:100],
            idempotency_key=f"{self.parent}:{part.slice_id}:{attempt}",
            work_queue_name=self.queue,
        )
        return cast("FlowRun", run)

    def follow(self) -> None:
        """Look at the runs until all are over; those that crash are started again."""
        answered = time.monotonic()
        while not all(each.is_over for each in self.runs):
            time.sleep(_LOOK_SECONDS)
            try:
                self._update()
                answered = time.monotonic()
            except Exception as error:
                if time.monotonic() - answered > _AWAY_SECONDS:
                    message = f"the Prefect server does not answer ({error}); retry to go on"
                    raise TransientError(message) from error
                _log.warning("the Prefect server does not answer (%s); looking again", error)

    def _update(self) -> None:
        wanted = [each.run.id for each in self.runs if not each.is_over]
        filters = FlowRunFilter.model_validate({"id": {"any_": wanted}})
        found = {run.id: run for run in self.client.read_flow_runs(flow_run_filter=filters)}
        percents = self._percents(wanted)
        for each in self.runs:
            each.run = found.get(each.run.id, each.run)
            each.percent = percents.get(each.run.id, each.percent)
            state = each.run.state
            if state is not None and state.is_crashed() and each.crashes < _MOST_CRASHES:
                _log.warning("%s crashed (%s); it is started again", each.part.label, each.message)
                each.crashes += 1
                each.attempt += 1
                each.run = self._submit(each.part, each.values, each.attempt)

    def _percents(self, runs: Sequence[UUID]) -> dict[UUID, float]:
        filters = ArtifactFilter.model_validate(
            {"flow_run_id": {"any_": runs}, "type": {"any_": ["progress"]}}
        )
        found = self.client.read_artifacts(artifact_filter=filters)
        return {each.flow_run_id: float(each.data) for each in found if each.flow_run_id}  # type: ignore[arg-type]

    def look(self) -> tuple[float, str]:
        """How far all are, in percent, and a bar for each in Markdown."""
        over = sum(each.is_over for each in self.runs)
        lines = [f"{over} of {len(self.runs)} slices are over", ""]
        lines += ["| slice | state | | |", "|---|---|---|---|"]
        shares = [1.0 if each.succeeded else each.percent / 100 for each in self.runs]
        for each, share in zip(self.runs, shares, strict=True):
            bar = f"{progress_bar(share)} | {100 * share:.0f} %"
            link = f"[{each.part.label}](/runs/flow-run/{each.run.id})"
            lines.append(f"| {link} | {each.state_name} | {bar} |")
        return 100 * sum(shares) / max(1, len(shares)), "\n".join(lines)

    def cancel_if_cancelled(self) -> None:
        """Cancel the runs of the slices if this flow run was cancelled, not if it failed."""
        state = self.client.read_flow_run(UUID(self.parent)).state
        if state is None or not (state.is_cancelling() or state.is_cancelled()):
            return
        for each in self.runs:
            if not each.is_over:
                self.client.set_flow_run_state(each.run.id, Cancelling())
