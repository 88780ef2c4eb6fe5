"""Masks of one image with a bit for each pixel: there is one a box, and boxes may be hundreds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

__all__ = ["PackedMasks", "mask_box"]


@dataclass(frozen=True, eq=False)
class PackedMasks:
    """Binary masks of one size, unpacked one at a time; numpy sees all of them as one array.

    Attributes:
        rows: Their pixels, eight in a byte, row by row.
        size: Height and width in pixels.
    """

    rows: UInt8[np.ndarray, "masks bytes"]
    size: tuple[int, int]

    @classmethod
    def of(cls, masks: Bool[np.ndarray, "masks height width"]) -> "PackedMasks":
        """Pack masks."""
        count, height, width = masks.shape
        flat = masks.reshape(count, height * width)
        return cls(np.packbits(flat, axis=1), (height, width))

    @classmethod
    def joined(cls, parts: Sequence["PackedMasks"]) -> "PackedMasks":
        """The masks of several packs as one; all have one size, and there is at least one pack."""
        return cls(np.concatenate([part.rows for part in parts]), parts[0].size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many there are, height and width."""
        return len(self.rows), *self.size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | np.integer) -> Bool[np.ndarray, "height width"]:
        height, width = self.size
        return (
            np.unpackbits(self.rows[index], count=height * width).view(np.bool_).reshape(self.size)
        )

    def __iter__(self) -> Iterator[Bool[np.ndarray, "height width"]]:
        for index in range(len(self)):
            yield self[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.zeros(self.shape, np.bool_)
        for index, mask in enumerate(self):
            whole[index] = mask
        return whole if dtype is None else whole.astype(dtype)


def mask_box(mask: Bool[np.ndarray, "height width"]) -> tuple[float, float, float, float]:
    """The box around a mask: left, top, right, bottom in pixels; all zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
