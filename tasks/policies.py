"""How a stage's task behaves: what it asks the store first, its retries, and its turn."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from storage.errors import LeaseHeldError, TransientError
from storage.payloads import Payload
from storage.records import PlannedShard, Stage
from storage.store import Store
from tasks import resident
from tasks.progress import tell_commit
from tasks.recipe import Done, Made, Recipe


def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Retry what may work later.

    A lease that somebody else holds is not retried: the holder makes the output, and the flow
    comes back to the shard.
    """
    error = state.data if isinstance(state.data, BaseException) else None
    error = error or state.result(raise_on_failure=False)
    return isinstance(error, TransientError) and not isinstance(error, LeaseHeldError)


def stage_options(stage: Stage) -> dict[str, Any]:
    """The options of a stage's task.

    Prefect's own result cache is off, because the store decides what is done. There are no tags:
    for every tag Prefect asks its server for a concurrency slot, which takes a second or two.
    """
    return {
        "name": stage.value,
        "task_run_name": f"{stage.value} {{shard.name}}",
        "cache_policy": NO_CACHE,
        "persist_result": False,
        "retries": 3,
        "retry_delay_seconds": [5, 30, 120],
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": is_transient,
    }


@dataclass(frozen=True)
class Job:
    """One stage of one shard.

    Attributes:
        root: Where the dataset is.
        recipe: How samples are made.
        shard: Which samples.
        done: The commits that the stage reads.
        stage: Which stage.
    """

    root: str
    recipe: Recipe
    shard: PlannedShard
    done: Done
    stage: Stage


def make_once(job: Job, make: Callable[[Store], Made], *, device: str | None = None) -> Any:
    """Commit a stage's output for a shard, unless that is done already.

    Args:
        job: What is wanted.
        make: Does the work.
        device: What it computes on, if that is to be shared; waiting for it is no working time.

    Returns:
        The commit; as a Prefect state named ``Cached`` that holds it if nothing was executed.

    Raises:
        LeaseHeldError: Somebody else is at it.
    """
    store = Store.open(job.root)
    stage, name = job.stage, job.shard.name
    key = job.recipe.key(stage, job.shard, job.done)
    found = store.look(stage, name, key)
    if found is None:
        with store.lease(stage, name):
            # Whoever held the lease before us may have made it, or left it all but committed.
            found = store.heal(stage, name, key)
            if found is None:
                with resident.turn(device) if device else nullcontext():
                    started = time.monotonic()
                    made = make(store)
                    seconds = time.monotonic() - started
                payload = Payload(made.data, made.manifest, seconds)
                commit = store.commit(stage, name, key, payload, made.counts)
                tell_commit(commit, cached=False)
                return commit
    tell_commit(found, cached=True)
    return Completed(name="Cached", message="committed before, nothing executed", data=found)
