"""Steps as Prefect tasks: each in a process of its own, ``Cached`` where it was done before."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from tasks.stage_tasks import RETRIES
from tasks.steps import ResultT, RunStep, StepOutcome, work_in_child


def run_as_task(step: RunStep[ResultT]) -> StepOutcome[ResultT]:
    """Do a step in a child process, as a task of the flow that calls this.

    Raises:
        ChildFailedError: If the process ended with an error that it did not explain.
        EngineError: If it explained one, or finding out what is done met one.
    """
    label = step.label.replace("{", "{{").replace("}", "}}")  # Prefect fills in what is in braces
    named = _step_task.with_options(name=step.kind, task_run_name=label)
    state = named(step, return_state=True)
    return StepOutcome(state.result(), found=state.name == "Cached")


@task(cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def _step_task(step: RunStep[Any]) -> Any:
    found = step.find()
    if found is not None:
        message = "done before with the same inputs and settings"
        return Completed(name="Cached", message=message, data=found)
    return work_in_child(step)
