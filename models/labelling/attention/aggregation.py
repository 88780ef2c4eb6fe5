"""One map for a class, from the attention of its tokens.

Two recipes: DiffuMask (ICCV 2023), which averages cross-attention over resolutions, and Dataset
Diffusion (NeurIPS 2023), which lets self-attention carry it to the pixels that belong together.

A token's map says nothing if it holds a value that is not finite, or none above zero. It is left
out; a class none of whose tokens says anything has a map of zeros.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from storage.errors import InputError

_FLAT = 1e-5  # of the largest value: what float32 leaves of a constant map after eight products


def diffumask_map(
    maps: Mapping[int, Float32[np.ndarray, "tokens _ _"]],
    weights: Mapping[int, float],
    size: tuple[int, int],
) -> Float32[np.ndarray, "height width"]:
    """Average a class's tokens and resolutions, as DiffuMask does.

    Each token's map at each resolution is enlarged bicubically and divided by its own maximum;
    nothing is subtracted, so that the least attended pixel need not be 0. What the enlargement
    lets fall below 0 is 0.

    Args:
        maps: For each resolution the mean probabilities of the class's tokens.
        weights: Share of each resolution; DiffuMask has 16, 32 and 64 in equal parts. Those that
            are 0 or not named are left out, and so is a resolution where no token says anything.
        size: Height and width of the image.

    Returns:
        The class's map, in [0, 1]; zeros if no token says anything.

    Raises:
        InputError: If a weight is negative, all are 0, or a resolution was not recorded.
    """
    total = np.zeros(size, np.float32)
    shares = 0.0
    for resolution, weight in _wanted(weights, maps).items():
        tokens = _telling(maps[resolution])
        if not len(tokens):
            continue
        enlarged = _resized(tokens, size)
        peaks = enlarged.amax(dim=(1, 2), keepdim=True)
        told = (enlarged / peaks.clamp(min=torch.finfo(torch.float32).tiny)).mean(dim=0)
        total += weight * told.clamp(0.0, 1.0).numpy()
        shares += weight
    return total / np.float32(shares) if shares else total


def refined_map(
    cross: Float32[np.ndarray, "tokens _ _"],
    attention: Float32[np.ndarray, "cells cells"] | None,
    grid: tuple[int, int] | None,
    power: int,
    size: tuple[int, int],
) -> Float32[np.ndarray, "height width"]:
    """Carry a class's cross-attention along self-attention, as Dataset Diffusion does.

    The mean of the tokens is brought to the grid of the self-attention bicubically and becomes
    ``A^power c``, by products with ``c`` alone; each row of ``A`` is taken to sum to 1, which half
    precision makes only nearly true. Then the least value becomes 0 and the largest 1, whether the
    object was painted or not, and the map is enlarged bicubically.

    Args:
        cross: Mean probabilities of the class's tokens at one resolution.
        attention: Mean self-attention, ``A[i, j]`` from cell i (asking) to cell j, row by row of
            the grid; None leaves the map as it is.
        grid: Rows and columns of the self-attention's cells; None if there is none.
        power: How often the map is multiplied; Dataset Diffusion has 4.
        size: Height and width of the image.

    Returns:
        The class's map, in [0, 1]; zeros if no token says anything, or all cells say the same.

    Raises:
        InputError: If the power is negative, or asks for self-attention that is not there, or the
            grid does not have as many cells.
    """
    _require_grid(attention, grid, power)
    tokens = _telling(cross)
    if not len(tokens):
        return np.zeros(size, np.float32)
    found = tokens.mean(dim=0, keepdim=True)
    if grid is not None:
        found = _resized(found, grid)
    if attention is not None and power:
        if not np.isfinite(attention).all():
            return np.zeros(size, np.float32)
        found = _carried(found, torch.tensor(attention), power)
    low, high = found.amin(), found.amax()
    if high - low <= _FLAT * found.abs().amax():
        return np.zeros(size, np.float32)
    return _resized((found - low) / (high - low), size)[0].clamp(0.0, 1.0).numpy()


def _wanted(weights: Mapping[int, float], maps: Mapping[int, np.ndarray]) -> dict[int, float]:
    wanted = {resolution: weight for resolution, weight in weights.items() if weight}
    if not wanted or min(wanted.values()) < 0:
        message = (
            f"resolutions have the weights {dict(weights)}, expected none below 0 and one above 0"
        )
        raise InputError(message)
    missing = sorted(wanted.keys() - maps.keys())
    if missing:
        message = (
            f"attention was recorded at the resolutions {sorted(maps)}, but {missing} have a "
            "weight: choose weights for those that were recorded, or paint again with the others"
        )
        raise InputError(message)
    return wanted


def _require_grid(
    attention: Float32[np.ndarray, "cells cells"] | None, grid: tuple[int, int] | None, power: int
) -> None:
    if power < 0 or (power and attention is None):
        found = "no self-attention" if attention is None else "self-attention"
        message = (
            f"{found} was recorded and its power is {power}, expected a power of 0 or more, and "
            "0 where none was recorded"
        )
        raise InputError(message)
    if attention is not None and (grid is None or grid[0] * grid[1] != len(attention)):
        message = (
            f"self-attention between {len(attention)} cells came with the grid {grid}, expected "
            "rows and columns whose product is the number of cells"
        )
        raise InputError(message)


def _telling(maps: Float32[np.ndarray, "_ height width"]) -> Float32[Tensor, "_ height width"]:
    """The maps of tokens that say something."""
    good = np.isfinite(maps).all(axis=(1, 2)) & (maps > 0).any(axis=(1, 2))
    return torch.from_numpy(np.ascontiguousarray(maps[good]))


def _resized(
    maps: Float[Tensor, "count _ _"], size: tuple[int, int]
) -> Float[Tensor, "count height width"]:
    return F.interpolate(maps[None], size=size, mode="bicubic", align_corners=False)[0]


def _carried(
    found: Float[Tensor, "1 rows columns"], attention: Float[Tensor, "cells cells"], power: int
) -> Float[Tensor, "1 rows columns"]:
    sums = attention.sum(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    values = found.flatten()
    for _ in range(power):
        values = (attention @ values) / sums
    return values.view_as(found)
