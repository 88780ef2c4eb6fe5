"""Pixels as closed-set networks take them."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

MEAN = (123.675, 116.28, 103.53)

STD = (58.395, 57.12, 57.375)


def normalisation_document() -> dict[str, Any]:
    """How pixels become the input of a network: ImageNet's mean and deviation, RGB."""
    return {
        "type": "mmseg.SegDataPreProcessor",
        "mean": MEAN,
        "std": STD,
        "bgr_to_rgb": True,
        "pad_val": 0,
        "seg_pad_val": 255,
    }


def normalise(pixels: UInt8[Tensor, "1 3 rows columns"]) -> Float[Tensor, "1 3 rows columns"]:
    """Turn RGB levels into the input of a network, as in training."""
    shape = (1, 3, 1, 1)
    mean = torch.tensor(MEAN, device=pixels.device).view(shape)
    return (pixels - mean) / torch.tensor(STD, device=pixels.device).view(shape)
