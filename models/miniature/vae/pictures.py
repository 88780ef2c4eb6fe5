"""Scenes as the painter sees them: pictures in -1..1, and the cells that hold things."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.miniature.world import CANVAS, Scene, boxes, render, sample_scene


def pictures(scenes: list[Scene], things: Sequence[bool] | None = None) -> Tensor:
    """Draw scenes, float (scenes, 3, 64, 64) in -1..1; `things` says which show their things."""
    shown = [True] * len(scenes) if things is None else things
    stack = np.stack([render(s, things=bool(t)) for s, t in zip(scenes, shown, strict=True)])
    # (scenes, 64, 64, 3) in 0..255 to (scenes, 3, 64, 64) in -1..1
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1


def inside(scene: Scene, cell: int = 1) -> Tensor:
    """1 where a cell of `cell` x `cell` pixels touches a thing's box, else 0.

    Float (1, 64 / cell, 64 / cell).
    """
    cells = torch.zeros(1, CANVAS // cell, CANVAS // cell)
    for left, top, right, bottom in (boxes(scene) / cell).tolist():
        cells[0, int(top) : math.ceil(bottom), int(left) : math.ceil(right)] = 1
    return cells


def any_scene(rng: np.random.Generator) -> Scene:
    """Make up a scene of any difficulty with 0, 1 or 2 things."""
    count = int(rng.choice(3, p=(0.1, 0.55, 0.35)))
    return sample_scene(rng, num_things=count, hard=float(rng.choice((0.0, 0.5, 1.0))))
