"""Outlines: a mask as one closed polygon, whatever its parts and holes.

The points are centres of pixels of the mask. Filled as OpenCV does it, edges included, the outline
of a mask in one piece is that mask again. Parts and holes are joined to the rest by a cut: the line
between the two nearest points, walked there and back, which holds no area. Where an edge counts
as filled, the cut to another part adds the pixels under it; one to a hole is in the mask mostly.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from models.opencv import load_opencv

__all__ = ["fill_outline", "outline"]

_LEAST_POINTS = 3
"""What has fewer is no polygon; YOLO takes two for a box."""


def outline(mask: Bool[np.ndarray, "height width"]) -> Int[np.ndarray, "points 2"]:
    """Draw around a mask.

    Args:
        mask: At least one pixel.

    Returns:
        Column and row of each point, three at least; the last one is joined to the first.

    Raises:
        InputError: OpenCV cannot be loaded.
        ValueError: The mask has no pixel.
    """
    cv2 = load_opencv()
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [ring[:, 0].astype(np.int64) for ring in found]
    if not rings:
        message = "the mask has no pixel, expected one at least"
        raise ValueError(message)
    rings.sort(key=len, reverse=True)
    joined, rest = rings[0], rings[1:]
    for ring in rest:
        joined = _join(joined, ring)
    return np.resize(joined, (max(len(joined), _LEAST_POINTS), 2))


def fill_outline(
    points: Int[np.ndarray, "points 2"], height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """Fill an outline as OpenCV does it: even and odd, its edge included.

    Args:
        points: Column and row of each.
        height: Rows of the mask.
        width: Columns of the mask.

    Raises:
        InputError: OpenCV cannot be loaded.
    """
    cv2 = load_opencv()
    mask: Any = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 1)
    return mask.astype(bool)


def _join(
    one: Int[np.ndarray, "points 2"], other: Int[np.ndarray, "more 2"]
) -> Int[np.ndarray, "all 2"]:
    """Walk one ring to where the other is nearest, that one whole, back, and on."""
    distances = np.full(len(one), np.iinfo(np.int64).max)
    nearest = np.zeros(len(one), np.int64)
    for number, point in enumerate(other):  # a table of all pairs would not fit for large masks
        own = ((one - point) ** 2).sum(1)
        closer = own < distances
        distances[closer], nearest[closer] = own[closer], number
    at = int(distances.argmin())
    turned = np.roll(other, -int(nearest[at]), axis=0)
    return np.concatenate([one[: at + 1], turned, turned[:1], one[at:]])
