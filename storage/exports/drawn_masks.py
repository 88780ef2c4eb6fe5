"""Masks that people drew in another tool, before they are held against a dataset."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

__all__ = ["DrawnRegion", "DrawnSample"]


@dataclass(frozen=True)
class DrawnRegion:
    """A mask as a tool wrote it.

    Attributes:
        label: Name of its class.
        width: Columns of the picture that it was drawn on.
        height: Rows of it.
        decode: Makes the mask, of that size; raises InputError if it cannot be read. Not to be
            called before the size is known to be right.
    """

    label: str
    width: int
    height: int
    decode: Callable[[], Bool[np.ndarray, "height width"]]


@dataclass(frozen=True)
class DrawnSample:
    """What a tool says about a sample.

    Attributes:
        key: Sample key.
        regions: All of its masks.
    """

    key: str
    regions: tuple[DrawnRegion, ...]
