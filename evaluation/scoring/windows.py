"""Windows: how an image is cut up to be shown, and how maps of the pieces become one map again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8

from evaluation.scoring.config import ViewConfig
from storage.errors import InputError
from storage.picture_headers import MAX_PIXELS


@dataclass(frozen=True)
class _Window:
    row: int
    column: int
    stop_row: int
    stop_column: int


class View:
    """One image as it is shown, and the way back to its own size.

    Args:
        original: Rows and columns of the image.
        config: Sizes of what is shown.
        patch_size: Side of the network's patches; what is shown whole is rounded to them.

    Raises:
        InputError: If the image is so thin that it would be shown too large.
    """

    def __init__(self, original: tuple[int, int], config: ViewConfig, patch_size: int) -> None:
        self._original = original
        self._shown = _shown_size(original, config, patch_size)
        _refuse_thin(original, self._shown)
        self._windows = _windows(self._shown, config)
        first = self._windows[0]
        self._side = (first.stop_row - first.row, first.stop_column - first.column)

    @property
    def window_pixels(self) -> int:
        """Pixels of one window."""
        return self._side[0] * self._side[1]

    def resized(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[torch.Tensor, "1 3 rows columns"]:
        """The image at the size in which it is shown."""
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        if self._original == self._shown:
            return pixels
        return F.interpolate(
            pixels, self._shown, mode="bilinear", align_corners=False, antialias=True
        )

    def cut(
        self, shown: Float[torch.Tensor, "1 3 rows columns"]
    ) -> Float[torch.Tensor, "windows 3 height width"]:
        """The windows of what is shown."""
        return torch.cat([shown[:, :, *_slices(window)] for window in self._windows])

    def enlarged(
        self, maps: Float[torch.Tensor, "windows classes h w"]
    ) -> Float[torch.Tensor, "windows classes height width"]:
        """Maps of the windows at their patch grids, enlarged to their pixels."""
        return F.interpolate(maps, self._side, mode="bilinear", align_corners=False)

    def merged(
        self, maps: Float[torch.Tensor, "windows classes height width"]
    ) -> Float[torch.Tensor, "1 classes rows columns"]:
        """Maps of the windows as one map of the original image, averaged where they overlap."""
        average = self._average(maps)
        if self._original == self._shown:
            return average
        return F.interpolate(average, self._original, mode="bilinear", align_corners=False)

    def _average(
        self, maps: Float[torch.Tensor, "windows classes height width"]
    ) -> Float[torch.Tensor, "1 classes rows columns"]:
        if self._side == self._shown:
            return maps
        total = maps.new_zeros(1, maps.shape[1], *self._shown)
        count = maps.new_zeros(1, 1, *self._shown)
        for window, own in zip(self._windows, maps, strict=True):
            total[0, :, *_slices(window)] += own
            count[0, 0, *_slices(window)] += 1
        return total / count


def _slices(window: _Window) -> tuple[slice, slice]:
    return slice(window.row, window.stop_row), slice(window.column, window.stop_column)


def _shown_size(original: tuple[int, int], config: ViewConfig, patch_size: int) -> tuple[int, int]:
    """Rows and columns at which an image is shown, its ratio kept to the pixel or the patch."""
    short, long = min(original), max(original)
    scale = min(config.short_side / short, config.long_side / long)
    if config.window is None:
        rows, columns = (round(side * scale / patch_size) * patch_size for side in original)
        return max(rows, patch_size), max(columns, patch_size)
    # Every window must be full, so that the window is the least short side.
    scale = max(scale, config.window / short)
    rows, columns = (max(config.window, int(side * scale + 0.5)) for side in original)
    return rows, columns


def _refuse_thin(original: tuple[int, int], shown: tuple[int, int]) -> None:
    """Refuse what would fill the memory: a line of pixels becomes as high as a window."""
    if shown[0] * shown[1] > MAX_PIXELS:
        message = (
            f"an image of {original[1]} x {original[0]} pixels would be shown at {shown[1]} x "
            f"{shown[0]}, expected at most {MAX_PIXELS} pixels: it is too thin for windows, cut it "
            "or set inference.window to null"
        )
        raise InputError(message)


def _windows(size: tuple[int, int], config: ViewConfig) -> Sequence[_Window]:
    """Windows that cover the image; the last of each row and column is moved inside."""
    if config.window is None:
        return [_Window(0, 0, *size)]
    side = config.window
    rows, columns = (_starts(length, side, config.stride) for length in size)
    return [_Window(row, column, row + side, column + side) for row in rows for column in columns]


def _starts(length: int, side: int, stride: int) -> list[int]:
    count = 1 + -(-(length - side) // stride)
    return [min(index * stride, length - side) for index in range(count)]
