"""Pillow's resizing of pictures, to the bit, on whatever device holds them.

Pillow resizes bytes along one axis after the other. Each byte that comes out is a weighted sum of
a few that went in (its taps); weights are whole numbers of 2**-22, and sums are rounded to bytes
after each axis. Here the same whole numbers are added up in torch, so that a GPU gives the same
bytes.

Source: `src/libImaging/Resample.c` of Pillow, for how weights are computed and rounded
(`precompute_coeffs`, `normalize_coeffs_8bpc`). Which axis comes first is that of the installed
Pillow: columns until 12, and since 13 rows where height shrinks by more than twice what width
does (its pull request 9549).
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import PIL
import torch
from jaxtyping import Float64, Int32, Int64, UInt8
from PIL import Image
from torch import Tensor

_BITS = 22  # of the fraction of a weight
_SHARPNESS = -0.5  # of the bicubic filter
_ROWS_FIRST_SINCE = 13
_ROWS, _COLUMNS = -3, -2
_KNOWS_ROWS_FIRST = int(PIL.__version__.partition(".")[0]) >= _ROWS_FIRST_SINCE


def _triangle(distance: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return np.where(np.abs(distance) < 1, 1 - np.abs(distance), 0.0)


def _cubic(distance: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    a, x = _SHARPNESS, np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS: dict[Image.Resampling, tuple[Callable[..., np.ndarray], float]] = {
    Image.Resampling.BILINEAR: (_triangle, 1.0),
    Image.Resampling.BICUBIC: (_cubic, 2.0),
}

KNOWN_FILTERS = frozenset(_FILTERS)
"""Filters that `resized_as_pillow` computes."""


def resized_as_pillow(
    pixels: UInt8[Tensor, "*pictures height width 3"],
    size: tuple[int, int],
    resample: Image.Resampling,
) -> UInt8[Tensor, "*pictures high wide 3"]:
    """Resize pictures on their device; bytes are those of `PIL.Image.Image.resize`.

    Args:
        pixels: The picture, or several of one size.
        size: Height and width of what comes out.
        resample: One of `KNOWN_FILTERS`.
    """
    before = (pixels.shape[_ROWS], pixels.shape[_COLUMNS])
    axes = (_ROWS, _COLUMNS) if _rows_first(before, size) else (_COLUMNS, _ROWS)
    for axis in axes:
        pixels = _along(pixels, axis, size[axis - _ROWS], resample)
    return pixels


def _rows_first(before: tuple[int, int], after: tuple[int, int]) -> bool:
    down, across = (old - new for old, new in zip(before, after, strict=True))
    return _KNOWS_ROWS_FIRST and down > max(0, 2 * across)


def _along(pixels: Tensor, axis: int, length: int, resample: Image.Resampling) -> Tensor:
    """Resize along one axis, of rows or of columns."""
    if pixels.shape[axis] == length:
        return pixels
    places, weights = _taps_on(pixels.device, pixels.shape[axis], length, resample)
    shape = (length, 1, 1) if axis == _ROWS else (length, 1)
    whole = pixels.int()
    total = torch.full_like(whole.narrow(axis, 0, 1), 1 << (_BITS - 1))  # half, to round
    for place, weight in zip(places, weights, strict=True):
        total = torch.addcmul(total, whole.index_select(axis, place), weight.view(shape))
    return (total >> _BITS).clamp_(0, 255).byte()


@lru_cache(maxsize=64)
def _taps_on(
    device: torch.device, before: int, after: int, resample: Image.Resampling
) -> tuple[Int64[Tensor, "taps after"], Int32[Tensor, "taps after"]]:
    places, weights = taps(before, after, resample)
    return torch.from_numpy(places).to(device), torch.from_numpy(weights).to(device)


def taps(
    before: int, after: int, resample: Image.Resampling
) -> tuple[Int64[np.ndarray, "taps after"], Int32[np.ndarray, "taps after"]]:
    """What each pixel of a row that comes out is made of.

    Args:
        before: Pixels of the row that goes in.
        after: Pixels of the row that comes out.
        resample: One of `KNOWN_FILTERS`.

    Returns:
        Places in the row that goes in, and their weights times 2**22; taps that are not needed have
        no weight.
    """
    kernel, support = _FILTERS[resample]
    scale = before / after
    stretch = max(scale, 1.0)
    reach = support * stretch
    centres = (np.arange(after) + 0.5) * scale
    # Both are cut off as C casts, towards zero.
    first = np.maximum(np.trunc(centres - reach + 0.5), 0).astype(np.int64)
    last = np.minimum(np.trunc(centres + reach + 0.5), before).astype(np.int64)
    places = first + np.arange((last - first).max())[:, None]
    weights = kernel((places - centres + 0.5) * (1.0 / stretch))
    weights = np.where(places < last, weights, 0.0)
    # A sum in the order of C: numpy's own would round otherwise.
    weights = weights / np.add.accumulate(weights, axis=0)[-1]
    whole = np.trunc(weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5))
    return np.minimum(places, before - 1), whole.astype(np.int32)
