"""How the detector, the segmenter and CLIP learn, and how they are saved."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.miniature.miniatures import Task

Losses = Mapping[str, Tensor]
"""Scalars by name; "loss" is the one to minimise."""

LossOfStep = Callable[[int], Losses]
"""Computes the losses of a step, a pure function of the step and of the weights."""


@dataclass(frozen=True)
class Schedule:
    """How fast a network learns.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Highest learning rate of AdamW.
        flat: Share of the steps after which the rate begins to fall as a cosine, to 2 %.
        second: Steps of a second cycle at the end, which begins again at half the rate; 0 for none.
        warmup: Steps over which the rate rises from 0.
        weight_decay: Of all weights with more than one dimension.
        clip: Largest norm of the gradient.
        average: Decay of the running mean of the weights, which is what is saved in the end.
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
        """Learning rate of a step of a cycle: a rise, a flat part, half a cosine."""
        rise = min(1.0, (step + 1) / self.warmup)
        fall = max(0.0, (step / length - self.flat) / (1 - self.flat))
        return self.learning_rate * rise * (0.02 + 0.98 * (1 + math.cos(math.pi * fall)) / 2)


def averaging_task(
    network: nn.Module, losses: LossOfStep, schedule: Schedule, save: Callable[[Path], None]
) -> Task:
    """A training with AdamW whose result is the running mean of the weights.

    Args:
        network: What to train, in place.
        losses: Computes the losses of a step.
        schedule: How fast.
        save: Writes the network into a folder; it then holds the mean, in evaluation mode.
    """
    groups = _groups(network, schedule.weight_decay)
    optimiser = torch.optim.AdamW(groups, schedule.learning_rate, betas=(0.9, 0.98))
    mean = copy.deepcopy(network).requires_grad_(requires_grad=False)
    network.train()

    def step(index: int) -> dict[str, float]:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(index)
        values = losses(index)
        optimiser.zero_grad(set_to_none=True)
        values["loss"].backward()
        nn.utils.clip_grad_norm_(network.parameters(), schedule.clip, error_if_nonfinite=True)
        optimiser.step()
        _follow(mean, network, min(schedule.average, (index + 1) / (index + 10)))
        return {name: float(value.detach()) for name, value in values.items()}

    def finish(folder: Path) -> None:
        network.load_state_dict(mean.state_dict())
        network.eval()
        save(folder)

    return Task({"network": network, "mean": mean, "optimiser": optimiser}, step, finish)


def save_half(network: nn.Module, out: Path, processor: Any = None) -> None:
    """Save a transformers model in half precision, so that it loads as float32.

    Args:
        network: The model.
        out: Its `from_pretrained` folder.
        processor: Its processor, if it is not there yet.
    """
    if processor is not None:
        processor.save_pretrained(out)
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
    """Matrices and kernels decay, biases and scales do not."""
    weights = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _follow(mean: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running mean towards the network's weights."""
    # parameters() names a shared tensor once, so that it is not averaged twice
    for averaged, present in zip(mean.parameters(), network.parameters(), strict=True):
        averaged.lerp_(present, 1 - decay)
    for averaged, present in zip(mean.buffers(), network.buffers(), strict=True):
        averaged.copy_(present)
