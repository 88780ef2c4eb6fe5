"""What a miniature is to the command line: a configuration, a task, a measure and a model card."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.miniature.loop import Run, Stateful, Training, TrainingStep, fit
from models.miniature.record import Outcome, record


@dataclass(frozen=True)
class Task:
    """A training that is ready for its first step.

    Attributes:
        parts: All that changes from step to step, by its name in the checkpoint.
        step: Does one optimiser step.
        save: Writes the trained network into a folder, after the last step.
    """

    parts: Mapping[str, Stateful]
    step: TrainingStep
    save: Callable[[Path], None]


@dataclass(frozen=True)
class Miniature:
    """One small model that ships with the engine, and how it is made.

    Attributes:
        name: Its name on the command line.
        config: The class of its configuration.
        task: Prepares a training: configuration, folder for the weights, folder for checkpoints.
        measure: Scores trained weights: their folder and the run that made them.
        card: Writes the model card: configuration and metrics.
        save_every: Steps between two checkpoints.
    """

    name: str
    config: type[Training]
    task: Callable[[Any, Path, Path], Task]
    measure: Callable[[Path, Run], dict[str, float]]
    card: Callable[[Any, Mapping[str, float]], str]
    save_every: int = 250


def train(miniature: Miniature, config: Training, out: Path, state: Path) -> dict[str, float]:
    """Train a miniature, write its weights, score them and record all of it.

    Args:
        miniature: What to train.
        config: How; an instance of the miniature's class of configurations.
        out: Folder for the weights, the model card, `training.json` and `losses.csv`.
        state: Folder for checkpoints; a run that was stopped goes on from there.

    Returns:
        The metrics of the weights.
    """
    torch.set_num_threads(config.threads)
    task = miniature.task(config, out, state)
    run = Run(miniature.name, state, config.steps, config.seed, miniature.save_every)
    cost = fit(run, task.parts, task.step)
    out.mkdir(parents=True, exist_ok=True)
    task.save(out)
    metrics = miniature.measure(out, run)
    record(out, Outcome(config, metrics, cost, miniature.card(config, metrics)), run)
    return metrics
