"""The training loop that all miniatures share: seeded step by step, resumable, recorded.

Every random choice of step `i` comes from (seed, i), so that a run that was interrupted continues
exactly as it would have gone on, and a short run repeats the first losses of a long one.
"""

import csv
import json
import logging
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


def step_rng(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """The generator of one step; `stream` separates several uses of the same step."""
    return np.random.default_rng((seed, step, stream))


def fit(run: Run, parts: Mapping[str, Stateful], step: Step) -> int:
    """Call `step` for each step that is not done yet, and save `parts` on the way.

    Args:
        run: Length, seed and place of the run.
        parts: All that changes from step to step.
        step: Does one optimizer step and returns what to log; torch is seeded before each call.

    Returns:
        The number of steps that this call did.
    """
    run.state.mkdir(parents=True, exist_ok=True)
    checkpoint = run.state / f"{run.name}.pt"
    first = _restore(checkpoint, parts)
    table = run.state / f"{run.name}-losses.csv"
    _cut(table, first)
    started = time.monotonic()
    for index in range(first, run.steps):
        torch.manual_seed(run.seed * 1_000_003 + index)
        row = step(index)
        if index < 20 or index % _LOG_EVERY == 0:
            _append(table, {"step": index, **row})
        done = index + 1
        if done % run.save_every == 0 or done == run.steps:
            _save(checkpoint, parts, done)
            pace = (time.monotonic() - started) / (done - first)
            logger.info(
                "%s: step %d of %d, %.3f s a step, %s", run.name, done, run.steps, pace, row
            )
    return run.steps - first


def losses(run: Run) -> list[dict[str, float]]:
    """The loss table of a run, oldest first."""
    with (run.state / f"{run.name}-losses.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def record(folder: Path, config: Any, metrics: Mapping[str, float], run: Run) -> None:
    """Write `training.json` (config, metrics, versions) and `losses.csv` beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = {
        "config": asdict(config),
        "metrics": {key: round(value, 4) for key, value in metrics.items()},
        "first_losses": [row["loss"] for row in losses(run)[:20]],
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
    (folder / "training.json").write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    (folder / "losses.csv").write_bytes((run.state / f"{run.name}-losses.csv").read_bytes())


def _restore(checkpoint: Path, parts: Mapping[str, Stateful]) -> int:
    if not checkpoint.exists():
        return 0
    saved = torch.load(checkpoint, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


def _save(checkpoint: Path, parts: Mapping[str, Stateful], done: int) -> None:
    temporary = checkpoint.with_suffix(".tmp")
    torch.save({"step": done, **{k: part.state_dict() for k, part in parts.items()}}, temporary)
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
        writer = csv.DictWriter(file, row.keys())
        if fresh:
            writer.writeheader()
        writer.writerow({k: v if k == "step" else f"{v:.6g}" for k, v in row.items()})
