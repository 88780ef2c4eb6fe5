"""Outlines: a mask as one closed polygon, whatever its parts and holes.

The points are centres of pixels of the mask. Filled as OpenCV does it, edges included, the outline
of a mask in one piece is that mask again. Parts and holes are joined to the rest by a cut: the line
between the two nearest points, walked there and back, which holds no area. Where an edge counts
as filled, the cut to another part adds the pixels under it; one to a hole is in the mask mostly.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from scipy.spatial import KDTree

from models.opencv import load_opencv

__all__ = ["fill_outline", "outline"]

Bridges = dict[tuple[int, int], list[tuple[int, int]]]
"""For a ring and the place of a point in it: the rings that are joined there, and where."""

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
    joined = _walk(rings, _bridges(rings)) if len(rings) > 1 else rings[0]
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


def _bridges(rings: Sequence[Int[np.ndarray, "_ 2"]]) -> Bridges:
    """Join each ring to the nearest point of those before it.

    Points are looked up in trees of doubling sizes, each made of those that it outgrew: a speckled
    mask has thousands of rings.
    """
    found: Bridges = {}
    trees: list[tuple[Any, Int[np.ndarray, "points 4"]]] = []
    for number, ring in enumerate(rings):
        places = np.arange(len(ring))
        if trees:
            nearest = [(*tree.query(ring), own) for tree, own in trees]
            gaps, owns, known = min(nearest, key=lambda each: each[0].min())
            start = int(gaps.argmin())
            *_, other, place = known[owns[start]].tolist()
            found.setdefault((other, place), []).append((number, start))
        own = np.column_stack([ring, np.full(len(ring), number), places])
        while trees and len(trees[-1][1]) <= len(own):
            own = np.concatenate([trees.pop()[1], own])
        trees.append((KDTree(own[:, :2]), own))
    return found


def _walk(rings: Sequence[Int[np.ndarray, "_ 2"]], bridges: Bridges) -> Int[np.ndarray, "points 2"]:
    """Go around the first ring, at each bridge over it, around the ring there, and back."""
    points: list[Any] = []
    todo = [(0, 0, 0, len(rings[0]))]
    while todo:
        ring, start, first, last = todo.pop()
        for step in range(first, last):
            at = (start + step) % len(rings[ring])
            points.append(rings[ring][at])
            over = bridges.pop((ring, at), None)
            if over:
                todo.append((ring, start, step + 1, last))
                for other, there in over:
                    todo.append((ring, at, 0, 1))  # back over the bridge
                    todo.append((other, there, 0, len(rings[other]) + 1))
                break
    return np.array(points)
