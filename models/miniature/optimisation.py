"""How the miniature detector, segmenter and CLIP learn, and how they are saved."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.miniature.loop import Outcome, Run, Spent, Training, fit, record

Losses = Mapping[str, Tensor]
"""Scalars by name; "loss" is the one to minimise."""

LossOfStep = Callable[[int], Losses]
"""Losses of a step, as a pure function of the step and of the weights."""


@dataclass(frozen=True)
class Schedule:
    """How fast a network learns.

    Attributes:
        steps: optimiser steps.
        learning_rate: highest learning rate of AdamW.
        flat: share of the steps after which the rate begins to fall as a cosine, to 2 %.
        second: steps of a second cycle at the end, which begins again at half the rate; 0 for none.
        warmup: steps over which the rate rises from 0.
        weight_decay: of all weights with more than one dimension.
        clip: largest norm of the gradient.
        average: decay of the running mean of the weights that is kept in the end.
    """

    steps: int
    learning_rate: float
    flat: float = 0.5
    second: int = 0
    warmup: int = 100
    weight_decay: float = 1e-3
    clip: float = 1.0
    average: float = 0.997

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        first = self.steps - self.second
        if step >= first:
            return self._cycle(step - first, self.second) / 2
        return self._cycle(step, first)

    def _cycle(self, step: int, length: int) -> float:
        rise = min(1.0, (step + 1) / self.warmup)
        fall = max(0.0, (step / length - self.flat) / (1 - self.flat))
        return self.learning_rate * rise * (0.02 + 0.98 * (1 + math.cos(math.pi * fall)) / 2)


@dataclass(frozen=True)
class Course:
    """What a miniature learns, and what becomes of it.

    Attributes:
        name: of the miniature.
        network: what is trained, on its device.
        losses: computes the losses of a step.
        schedule: how fast it learns.
        save: writes the trained network as a `from_pretrained` folder.
        score: measures such a folder: folder, number of scenes, seed.
        card: the model card for a configuration and the metrics.
    """

    name: str
    network: nn.Module
    losses: LossOfStep
    schedule: Schedule
    save: Callable[[Path], None]
    score: Callable[[Path, int, int], dict[str, float]]
    card: Callable[[Any, Mapping[str, float]], str]


def teach(course: Course, config: Training, out: Path, state: Path) -> dict[str, float]:
    """Train, write the folder of the weights, score it and record all of it.

    Args:
        course: what to learn.
        config: as it shall be recorded.
        out: folder for weights, processor, model card, `training.json` and `losses.csv`.
        state: folder for checkpoints; a run that was stopped goes on from there.

    Returns:
        The metrics of the course's score on 300 scenes of each kind.
    """
    run = Run(course.name, state, config.steps, config.seed, save_every=250)
    spent = optimise(course.network, course.losses, course.schedule, run)
    out.mkdir(parents=True, exist_ok=True)
    course.save(out)
    metrics = course.score(out, 300, 0)
    record(out, Outcome(config, metrics, spent, course.card(config, metrics)), run)
    return metrics


def optimise(network: nn.Module, losses: LossOfStep, schedule: Schedule, run: Run) -> Spent:
    """Train a network in place; it ends with the running mean of its weights, in evaluation mode.

    Args:
        network: what to train.
        losses: computes the losses of a step.
        schedule: how fast.
        run: name, seed and folder of the run, which goes on where it was saved.

    Returns:
        What the run has cost.
    """
    groups = _groups(network, schedule.weight_decay)
    optimiser = torch.optim.AdamW(groups, schedule.learning_rate, betas=(0.9, 0.98))
    mean = copy.deepcopy(network).requires_grad_(requires_grad=False)
    network.train()

    def step(index: int) -> dict[str, float]:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(index)
        found = losses(index)
        optimiser.zero_grad(set_to_none=True)
        found["loss"].backward()
        nn.utils.clip_grad_norm_(network.parameters(), schedule.clip, error_if_nonfinite=True)
        optimiser.step()
        _follow(mean, network, min(schedule.average, (index + 1) / (index + 10)))
        return {name: float(value.detach()) for name, value in found.items()}

    spent = fit(run, {"network": network, "mean": mean, "optimiser": optimiser}, step)
    network.load_state_dict(mean.state_dict())
    network.eval()
    return spent


def save_half(network: nn.Module, out: Path) -> None:
    """Save a transformers model as half-precision tensors that load as float32 ones."""
    half = copy.deepcopy(network).half()
    half.save_pretrained(out)  # pyright: ignore[reportCallIssue]
    path = out / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(_as_float32(config), indent=2) + "\n", encoding="utf-8")


def _as_float32(config: Any) -> Any:
    """The configuration with every recorded dtype, also of nested parts, set to float32."""
    if not isinstance(config, dict):
        return config
    return {
        key: "float32" if key == "dtype" and value is not None else _as_float32(value)
        for key, value in config.items()
    }


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    weights = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _follow(mean: nn.Module, network: nn.Module, decay: float) -> None:
    # parameters() names a shared tensor once, so that it is not averaged twice
    for kept, new in zip(mean.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
    for kept, new in zip(mean.buffers(), network.buffers(), strict=True):
        kept.copy_(new)
