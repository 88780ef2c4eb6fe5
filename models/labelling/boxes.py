"""Boxes: corners in pixels, and which of those that overlap stay."""

import numpy as np
from jaxtyping import Float, Float32


def suppress(
    boxes: Float[np.ndarray, "boxes 4"], scores: Float[np.ndarray, " boxes"], limit: float
) -> list[int]:
    """Keep the better of every two boxes that overlap too much (greedy non-maximum suppression).

    Args:
        boxes: xyxy.
        scores: Higher is better; of equal ones the earlier is better.
        limit: IoU above which the worse box goes.

    Returns:
        Indices of the boxes that stay, best first.
    """
    left, top, right, bottom = boxes.astype(np.float64).T
    areas = (right - left) * (bottom - top)
    keep: list[int] = []
    rest = np.argsort(-scores, kind="stable")
    while len(rest):
        best, rest = int(rest[0]), rest[1:]
        keep.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        common = width.clip(0) * height.clip(0)
        union = areas[best] + areas[rest] - common
        rest = rest[common <= limit * union]
    return keep


def corners_of(
    boxes: Float32[np.ndarray, "queries 4"], size: tuple[int, int]
) -> Float32[np.ndarray, "queries 4"]:
    """Turn centre and extent into corners, clipped to the image.

    Args:
        boxes: Centre and extent, relative to the image.
        size: Width and height of the image in pixels.

    Returns:
        xyxy in pixels.
    """
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return clipped(np.concatenate([centre - half, centre + half], axis=1), size)


def clipped(
    corners: Float32[np.ndarray, "queries 4"], size: tuple[int, int]
) -> Float32[np.ndarray, "queries 4"]:
    """Clip corners to the image.

    Args:
        corners: xyxy relative to the image.
        size: Width and height of the image in pixels.

    Returns:
        xyxy in pixels.
    """
    return (corners.clip(0, 1) * np.array(size * 2)).astype(np.float32)
