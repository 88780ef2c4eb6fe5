"""The training loop that all miniatures share: seeded step by step, resumable, with a loss table.

Every random choice of step `i` comes from (seed, i), so that a run that was interrupted continues
exactly as it would have gone on, and a short run repeats the first losses of a long one.
"""

import csv
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

_log = logging.getLogger(__name__)

_LOG_EVERY = 10

TrainingStep = Callable[[int], Mapping[str, float]]
"""Does one optimiser step and returns what to log, the loss as `loss`."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What every miniature's training is told.

    Attributes:
        seed: Seed of all randomness.
        steps: Optimiser steps.
        device: Where the network learns, as torch names it (cpu, cuda, cuda:1); scenes are drawn
            and damaged on the CPU, so that they are the same everywhere.
        threads: Threads of torch; another number changes the last digits of the results.
    """

    seed: int = 0
    steps: int
    device: str = "cpu"
    threads: int = 1


@runtime_checkable
class Stateful(Protocol):
    """A module, optimiser or schedule whose state can be saved."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take the state over."""
        ...


@dataclass(frozen=True)
class Run:
    """One resumable training run.

    Attributes:
        name: Names the checkpoint and the loss table in the state folder.
        state: Folder of checkpoints; deleting it starts from the beginning.
        steps: Number of optimiser steps.
        seed: Seed of all randomness.
        save_every: Steps between two checkpoints.
    """

    name: str
    state: Path
    steps: int
    seed: int
    save_every: int = 500

    @property
    def checkpoint(self) -> Path:
        """File of the last saved state."""
        return self.state / f"{self.name}.pt"

    @property
    def table(self) -> Path:
        """File of the losses, one row for each logged step."""
        return self.state / f"{self.name}-losses.csv"


@dataclass(frozen=True)
class Cost:
    """What a run has cost so far, interruptions left out.

    Attributes:
        wall: Seconds by the clock.
        processor: Seconds of processor time, of all threads together.
    """

    wall: float
    processor: float

    def since(self, wall: float, processor: float) -> "Cost":
        """This, and what passed since `time.monotonic` and `time.process_time` gave these."""
        return Cost(
            self.wall + time.monotonic() - wall, self.processor + time.process_time() - processor
        )


def step_seed(seed: int, step: int) -> int:
    """The seed of torch at one step of a run."""
    return seed * 1_000_003 + step


def step_generator(seed: int, step: int) -> torch.Generator:
    """Torch's generator of one step, on the CPU."""
    return torch.Generator().manual_seed(step_seed(seed, step))


def step_rng(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """NumPy's generator of one step; `stream` separates several uses of the same step."""
    return np.random.default_rng((seed, step, stream))


def fit(run: Run, parts: Mapping[str, Stateful], step: TrainingStep) -> Cost:
    """Call `step` for each step that is not done yet, and save `parts` on the way.

    Args:
        run: Length, seed and place of the run.
        parts: All that changes from step to step.
        step: Does one optimiser step and returns what to log; torch is seeded before each call.

    Returns:
        What all steps have cost, those of earlier calls included.
    """
    run.state.mkdir(parents=True, exist_ok=True)
    first, before = _restore(run.checkpoint, parts)
    _drop_rows(run.table, first)
    started, cost = (time.monotonic(), time.process_time()), before
    for index in range(first, run.steps):
        torch.manual_seed(step_seed(run.seed, index))
        row = step(index)
        if index < 20 or index % _LOG_EVERY == 0:
            _append(run.table, index, row)
        done = index + 1
        if done % run.save_every == 0 or done == run.steps:
            cost = before.since(*started)
            _save(run.checkpoint, parts, done, cost)
            pace = (cost.wall - before.wall) / (done - first)
            left = (run.steps - done) * pace / 60
            _log.info("%s: step %d of %d, %.1f min left, %s", run.name, done, run.steps, left, row)
    return cost


def losses(run: Run) -> list[dict[str, float]]:
    """Read the loss table of a run, oldest row first."""
    with run.table.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _restore(checkpoint: Path, parts: Mapping[str, Stateful]) -> tuple[int, Cost]:
    """Give the parts their saved state; return the steps that are done and what they cost."""
    if not checkpoint.exists():
        return 0, Cost(0.0, 0.0)
    # each part moves its own state to where it lives: a run may continue on another device
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return int(saved["step"]), Cost(*saved["spent"])


def _save(checkpoint: Path, parts: Mapping[str, Stateful], done: int, cost: Cost) -> None:
    temporary = checkpoint.with_suffix(".tmp")
    states = {name: part.state_dict() for name, part in parts.items()}
    spent = (cost.wall, cost.processor)
    torch.save({"step": done, "spent": spent, **states}, temporary)
    temporary.replace(checkpoint)


def _drop_rows(table: Path, first: int) -> None:
    """Drop the rows of steps that were not saved: `first` and later."""
    if not table.exists():
        return
    header, *rows = table.read_text().splitlines()
    saved = [row for row in rows if int(row.split(",")[0]) < first]
    if saved:
        table.write_text("\n".join([header, *saved]) + "\n")
    else:
        table.unlink()


def _append(table: Path, index: int, row: Mapping[str, float]) -> None:
    """Add the row of one step, to six digits."""
    fresh = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(["step", *row])
        writer.writerow([index, *(f"{value:.6g}" for value in row.values())])
