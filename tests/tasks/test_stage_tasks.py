from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from prefect import task

from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from storage.errors import DataError, LeaseHeldError, TransientError
from storage.records import Stage
from tasks.stage_tasks import OutOfMemoryError, make_stage, stage_options
from tasks.stages import STAGES

CPU_FULL = "DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes"

WORK = SimpleNamespace(title="voc20 · 000000")
"""What a task's run name asks for."""


def attempts(error):
    """Run a task that always fails, with a stage's options but without waiting."""
    calls = []
    options = stage_options(Stage.PAIRS) | {"retry_delay_seconds": 0, "retry_jitter_factor": None}

    @task(**options)
    def fail(work):
        calls.append(work)
        raise error

    with pytest.raises(type(error)):
        fail(WORK)
    return len(calls)


@pytest.mark.server
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransientError("the service is busy"), 4),
        (LeaseHeldError("somebody else is at it"), 1),
        (DataError("bytes and record disagree"), 1),
        (ZeroDivisionError("a bug"), 1),
    ],
)
def test_only_what_may_work_later_is_tried_again(server, error, expected):
    assert attempts(error) == expected


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU_FULL)]
)
def test_a_full_memory_names_the_batch_size(error, tmp_path):
    def fail(_work):
        raise error

    parameters = GenerationParameters(root=str(tmp_path), samples=2, batch_size=5)
    declaration = replace(STAGES[Stage.PAIRS], make=fail)
    with prepare(parameters) as run:
        [shard] = run.planned
        work = run.work(shard)
        make_stage(STAGES[Stage.PROMPTS], work)
        with pytest.raises(OutOfMemoryError, match="lower batch_size, which is 5") as caught:
            make_stage(declaration, work)
    assert caught.value.__cause__ is error
