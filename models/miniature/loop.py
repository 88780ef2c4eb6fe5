"""The training loop that all miniatures share: seeded step by step, resumable, recorded.

Every random choice of step `i` comes from (seed, i), so that a run that was interrupted continues
exactly as it would have gone on, and a short run repeats the first losses of a long one.
"""

import csv
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

logger = logging.getLogger(__name__)

_LOG_EVERY = 10

Step = Callable[[int], Mapping[str, float]]
"""Does one optimizer step and returns what to log, the loss as `loss`."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What every miniature's training is told.

    Attributes:
        seed: root of all randomness.
        steps: optimiser steps.
        device: where the network learns, as torch names it (cpu, cuda, cuda:1); scenes are drawn
            and damaged on the CPU, so that they are the same everywhere.
        threads: of torch; another number changes the last digits of the results.
    """

    seed: int = 0
    steps: int
    device: str = "cpu"
    threads: int = 1


class Stateful(Protocol):
    """A module, optimizer or schedule whose state can be saved."""

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
        steps: Number of optimizer steps.
        seed: Root of all randomness.
        save_every: Steps between two checkpoints.
    """

    name: str
    state: Path
    steps: int
    seed: int
    save_every: int = 500


@dataclass(frozen=True)
class Spent:
    """What a run has cost so far, interruptions left out.

    Attributes:
        wall: seconds by the clock.
        processor: seconds of processor time, of all threads together.
    """

    wall: float
    processor: float

    def since(self, wall: float, processor: float) -> "Spent":
        """This, and what passed since `time.monotonic` and `time.process_time` gave these."""
        return Spent(
            self.wall + time.monotonic() - wall, self.processor + time.process_time() - processor
        )


def step_rng(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """The generator of one step; `stream` separates several uses of the same step."""
    return np.random.default_rng((seed, step, stream))


def fit(run: Run, parts: Mapping[str, Stateful], step: Step) -> Spent:
    """Call `step` for each step that is not done yet, and save `parts` on the way.

    Args:
        run: Length, seed and place of the run.
        parts: All that changes from step to step.
        step: Does one optimizer step and returns what to log; torch is seeded before each call.

    Returns:
        What all steps have cost, those of earlier calls included.
    """
    run.state.mkdir(parents=True, exist_ok=True)
    checkpoint = run.state / f"{run.name}.pt"
    first, before = _restore(checkpoint, parts)
    table = run.state / f"{run.name}-losses.csv"
    _cut(table, first)
    started, spent = (time.monotonic(), time.process_time()), before
    for index in range(first, run.steps):
        torch.manual_seed(run.seed * 1_000_003 + index)
        row = step(index)
        if index < 20 or index % _LOG_EVERY == 0:
            _append(table, {"step": index, **row})
        done = index + 1
        if done % run.save_every == 0 or done == run.steps:
            spent = before.since(*started)
            _save(checkpoint, parts, done, spent)
            pace = (spent.wall - before.wall) / (done - first)
            left = (run.steps - done) * pace / 60
            logger.info(
                "%s: step %d of %d, %.1f min left, %s", run.name, done, run.steps, left, row
            )
    return spent


def losses(run: Run) -> list[dict[str, float]]:
    """The loss table of a run, oldest first."""
    with (run.state / f"{run.name}-losses.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@dataclass(frozen=True)
class Outcome:
    """What is to be told about a finished training.

    Attributes:
        config: as it was trained.
        metrics: what it reached on held-out scenes.
        spent: what it cost.
        card: the model card, without the part about the run.
    """

    config: Training
    metrics: Mapping[str, float]
    spent: Spent
    card: str


def record(folder: Path, outcome: Outcome, run: Run) -> None:
    """Write `training.json`, `losses.csv` and the model card `README.md` beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = {
        "config": asdict(outcome.config),
        "metrics": {key: round(value, 4) for key, value in outcome.metrics.items()},
        "first_losses": [row["loss"] for row in losses(run)[:20]],
        "seconds": {key: round(value) for key, value in asdict(outcome.spent).items()},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
    (folder / "training.json").write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    (folder / "losses.csv").write_bytes((run.state / f"{run.name}-losses.csv").read_bytes())
    text = f"{outcome.card}\n{_origin(run.name, outcome)}"
    (folder / "README.md").write_text(text, encoding="utf-8")


def _origin(name: str, outcome: Outcome) -> str:
    """The part of a model card that says which command made the weights, and at what cost."""
    config, wall, processor = outcome.config, outcome.spent.wall / 60, outcome.spent.processor / 60
    flags = f"--seed {config.seed} --steps {config.steps} --device {config.device}"
    return f"""## Origin

    python -m models.miniature train {name} {flags} --threads {config.threads}

{wall:.0f} minutes, {processor:.0f} of processor time; Python {sys.version.split()[0]}, torch
{torch.__version__}. `training.json` holds the whole configuration, `losses.csv` the losses.
"""


def _restore(checkpoint: Path, parts: Mapping[str, Stateful]) -> tuple[int, Spent]:
    """Give the parts their saved state; the steps that are done and what they cost."""
    if not checkpoint.exists():
        return 0, Spent(0.0, 0.0)
    # each part moves its own state to where it lives: a run may go on on another device
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return int(saved["step"]), Spent(*saved["spent"])


def _save(checkpoint: Path, parts: Mapping[str, Stateful], done: int, spent: Spent) -> None:
    temporary = checkpoint.with_suffix(".tmp")
    states = {name: part.state_dict() for name, part in parts.items()}
    cost = (spent.wall, spent.processor)
    torch.save({"step": done, "spent": cost, **states}, temporary)
    temporary.replace(checkpoint)


def _cut(table: Path, first: int) -> None:
    """Drop the rows of steps that were not saved."""
    if not table.exists():
        return
    header, *rows = table.read_text().splitlines()
    kept = [row for row in rows if int(row.split(",")[0]) < first]
    if kept:
        table.write_text("\n".join([header, *kept]) + "\n")
    else:
        table.unlink()


def _append(table: Path, row: Mapping[str, float]) -> None:
    fresh = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, row.keys(), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow({k: v if k == "step" else f"{v:.6g}" for k, v in row.items()})
