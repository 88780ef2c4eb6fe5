"""Masks of attention fitted to the edges of their image."""

import numpy as np
from jaxtyping import Bool, UInt8

from models.labelling.attention.config import Refinement
from models.labelling.attention.dense_crf import (
    MASK_CRF,
    CrfSettings,
    DenseCrf,
    two_label_energies,
)
from models.labelling.attention.final_threshold import FINAL_CERTAINTY, fill_holes
from models.labelling.attention.grabcut import grabcut_mask
from models.labelling.attention.thresholds import Seeds
from models.opencv import load_opencv

_PUBLISHED_SIDE = 512
"""Pixels of a side of the images that distances in pixels were published for."""

_LEAST_NEAR, _LEAST_ALIKE = 0.1, 1.0
"""The smallest deviations of kernels, in pixels."""


class Refiner:
    """Fits masks to edges, one image at a time.

    Args:
        kind: By what.

    Raises:
        InputError: If OpenCV is needed and cannot be loaded.
    """

    def __init__(self, kind: Refinement) -> None:
        self._kind = kind
        if kind == "grabcut":
            load_opencv()  # so that it is missed at once

    def refined(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        masks: Bool[np.ndarray, "classes height width"],
    ) -> Bool[np.ndarray, "classes height width"]:
        """Fit the masks of an image, each by itself.

        Args:
            image: RGB.
            masks: What is probably of each class. GrabCut takes what is of another class for
                background.
        """
        if self._kind == "none" or not len(masks):
            return masks
        if self._kind == "grabcut":
            taken = masks.sum(axis=0)
            nothing = np.zeros_like(masks[0])
            fitted = [
                grabcut_mask(image, mask, Seeds(nothing, ~mask & (taken > 0))) for mask in masks
            ]
        else:
            fitted = list(_in_field(image, masks))
        return np.stack([fill_holes(mask) for mask in fitted])


def field_of(image: UInt8[np.ndarray, "height width 3"], settings: CrfSettings) -> DenseCrf:
    """The field of an image; distances were published for 512 pixels, and shrink with the image."""
    scale = min(image.shape[:2]) / _PUBLISHED_SIDE
    distances = {
        "near": max(settings.near * scale, _LEAST_NEAR),
        "alike": max(settings.alike * scale, _LEAST_ALIKE),
    }
    return DenseCrf(image, settings.model_copy(update=distances))


def _in_field(
    image: UInt8[np.ndarray, "height width 3"], masks: Bool[np.ndarray, "classes height width"]
) -> Bool[np.ndarray, "classes height width"]:
    energies = np.stack([two_label_energies(mask, FINAL_CERTAINTY) for mask in masks])
    return field_of(image, MASK_CRF).infer(energies)[:, 1] > 0.5
