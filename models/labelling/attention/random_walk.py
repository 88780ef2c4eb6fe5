"""A random walk along affinities, which carries class maps over what looks alike.

AffinityNet (Ahn and Kwak, CVPR 2018) with the settings of DiffuMask. The matrix of transitions is
never multiplied with itself: 2^t steps of a sparse matrix on the maps give what t squarings of it
would, in a memory of some 70 numbers a cell.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32
from pydantic import BaseModel, Field
from scipy import sparse

from models.labelling.attention.affinity import pair_offsets, paired
from storage.errors import InputError


class WalkSettings(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A walk; the defaults are those of DiffuMask."""

    power: float = Field(default=16.0, gt=0)
    """Exponent of each affinity: the higher, the fewer small ones are followed."""
    doublings: int = Field(default=8, ge=0, le=12)
    """The walk has two to the power of this many steps."""
    background: float = Field(default=0.45, gt=0, lt=1)
    """Map of the background, the same everywhere."""


def random_walk(
    affinities: Sequence[Float32[np.ndarray, "_ _"]],
    maps: Float32[np.ndarray, "classes height width"],
    stride: int,
    radius: int,
    settings: WalkSettings | None = None,
) -> Float32[np.ndarray, "classes+1 height width"]:
    """Let the maps of an image walk.

    They are averaged over the cells of the grid, background as a further map before them; each
    step gives each cell the mean of its neighbours, weighted by affinity; what the walk ends with
    is enlarged bilinearly. The greatest value of a pixel names its class.

    Args:
        affinities: Of the image, as `models.labelling.attention.affinity` gives them.
        maps: Of the classes, in [0, 1]; values that are not finite count as 0.
        stride: Pixels a cell.
        radius: Of the pairs.
        settings: Of the walk.

    Returns:
        Maps after the walk, in [0, 1]; the first is the background's.

    Raises:
        InputError: If the affinities are those of another size or radius.
    """
    settings = settings or WalkSettings()
    height, width = maps.shape[1:]
    rows, columns = -(-height // stride), -(-width // stride)
    transitions = _transitions(affinities, (rows, columns), radius, settings.power)
    found = np.concatenate(
        [np.full((1, rows, columns), settings.background, np.float32), _pooled(maps, stride)]
    )
    values = found.reshape(len(found), rows * columns).T.astype(np.float64)
    for _ in range(2**settings.doublings):
        values = transitions @ values
    walked = torch.from_numpy(values.T.reshape(found.shape).astype(np.float32))
    size = (rows * stride, columns * stride)
    whole = F.interpolate(walked[None], size=size, mode="bilinear", align_corners=False)[0]
    return whole[:, :height, :width].clamp(0.0, 1.0).numpy()


def _pooled(
    maps: Float32[np.ndarray, "classes height width"], stride: int
) -> Float32[np.ndarray, "classes rows columns"]:
    """Means of the cells; one at the edge may have fewer pixels."""
    values = torch.from_numpy(np.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0))
    if not len(values):
        rows, columns = (-(-side // stride) for side in maps.shape[1:])
        return np.zeros((0, rows, columns), np.float32)
    pooled = F.avg_pool2d(values[None], stride, ceil_mode=True, count_include_pad=False)
    return pooled[0].numpy()


def _transitions(
    affinities: Sequence[np.ndarray], grid: tuple[int, int], radius: int, power: float
) -> Any:
    """Weights of a cell's neighbours, itself among them: rows that sum to 1."""
    offsets = pair_offsets(radius)
    numbers = torch.arange(grid[0] * grid[1]).view(grid)
    pairs = [_pair_numbers(numbers, offset) for offset in offsets]
    expected = [len(own) for own, _ in pairs]
    counts = [each.size for each in affinities]
    if counts != expected:
        message = (
            f"affinities of {sum(counts)} pairs of cells came for a grid of {grid}, expected "
            f"{sum(expected)} pairs nearer than {radius}: take those of the same image and network"
        )
        raise InputError(message)
    owns = np.concatenate([own for own, _ in pairs])
    others = np.concatenate([other for _, other in pairs])
    weights = np.concatenate([each.ravel() for each in affinities]).astype(np.float64) ** power
    cells = numbers.numel()
    upper = sparse.coo_array((weights, (owns, others)), shape=(cells, cells)).tocsr()
    matrix = upper + upper.T + sparse.csr_array(sparse.identity(cells))
    return sparse.csr_array(sparse.diags(1.0 / matrix.sum(axis=1))) @ matrix


def _pair_numbers(numbers: torch.Tensor, offset: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    own, other = paired(numbers, offset)
    return own.flatten().numpy(), other.flatten().numpy()
