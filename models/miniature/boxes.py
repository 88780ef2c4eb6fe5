"""Geometry of boxes.

A box is (x, y, width, height) with x and y of its centre, or its corners (left, top, right,
bottom); units are the caller's, the same on both sides of a comparison.
"""

import torch
from torch import Tensor

_TINY = 1e-7


def centred(corners: Tensor) -> Tensor:
    """Corners to centre and size, float (..., 4)."""
    left, top, right, bottom = corners.unbind(-1)  # (...) each
    return torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), -1)


def corners(boxes: Tensor) -> Tensor:
    """Centre and size to corners, float (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2  # (..., 2) each
    return torch.cat((centre - half, centre + half), -1)


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union, pair by pair: corners (..., 4) twice to (...) in [0, 1]."""
    inner, union = _areas(first, second)
    return inner / (union + _TINY)


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU less the share of the common hull that neither box fills (arXiv 1902.09630).

    Corners (..., 4) twice, pair by pair, to (...) in [-1, 1].
    """
    inner, union = _areas(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])  # left and top of the hull, (..., 2)
    high = torch.maximum(first[..., 2:], second[..., 2:])  # right and bottom, (..., 2)
    hull = (high - low).prod(-1)
    return inner / (union + _TINY) - (hull - union) / (hull + _TINY)


def _areas(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and union of corner boxes, (...) each."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    inner = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (first, second)]
    return inner, areas[0] + areas[1] - inner
