"""The last threshold of a class map: that whose mask agrees best with the random walk."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from models.labelling.attention.dense_crf import DenseCrf, two_label_energies

FINAL_CERTAINTY = 0.5
"""Of a pixel's label before the field, as DiffuMask has it."""
FILLED_SHARE = 1500 / 512**2
"""Share of the image that the box of a part has at least whose holes are filled."""

_THRESHOLDS = np.arange(35, 55) / 100
_TOUCHING = np.ones((3, 3), bool)


@dataclass(frozen=True, eq=False)
class ChosenMask:
    """The mask of one class.

    Attributes:
        mask: Its pixels, holes filled.
        threshold: Of the class map.
        agreement: With the random walk's mask, ``|A and B| / (|A| + |B|)``: at most .5.
    """

    mask: Bool[np.ndarray, "height width"]
    threshold: float
    agreement: float


def choose_mask(
    class_map: Float32[np.ndarray, "height width"],
    walked: Bool[np.ndarray, "height width"],
    field: DenseCrf,
) -> ChosenMask | None:
    """Cut a map at .35, .36, ... .54, refine each mask, and take the best one.

    DiffuMask (ICCV 2023). The threshold is a constant background that a pixel must pass; the field
    has unaries of the certainty .5 among 21 labels. Of equal agreements the lowest threshold wins.

    Args:
        class_map: Of one class, in [0, 1]; values that are not finite count as 0.
        walked: Mask of the random walk along affinities.
        field: Of the image, with `MASK_CRF`.

    Returns:
        The mask, or None if none of the masks overlaps with the walk's.

    Raises:
        InputError: If map and image differ in size.
    """
    if not walked.any():
        return None
    energies = [two_label_energies(class_map > level, FINAL_CERTAINTY) for level in _THRESHOLDS]
    masks = field.infer(np.stack(energies))[:, 1] > 0.5
    common = (masks & walked).sum(axis=(1, 2))
    scores = common / (masks.sum(axis=(1, 2)) + walked.sum())
    best = int(scores.argmax())
    if not common[best]:
        return None
    return ChosenMask(fill_holes(masks[best]), float(_THRESHOLDS[best]), float(scores[best]))


def fill_holes(
    mask: Bool[np.ndarray, "height width"], least_share: float = FILLED_SHARE
) -> Bool[np.ndarray, "height width"]:
    """Fill the holes of the parts of a mask that are not small.

    DiffuMask fills the outer contour of each part whose box has 1,500 pixels or more at 512 x 512;
    here that is a share of the image. Pixels of a part may touch at corners, those of a hole only
    at edges; small parts stay as they are.

    Args:
        mask: Of an object.
        least_share: Share of the image that the box of a part must have.
    """
    parts, _ = cast("tuple[np.ndarray, int]", ndimage.label(mask, structure=_TOUCHING))
    found = mask.copy()
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        own = parts[box] == number
        if own.size >= least_share * mask.size:
            found[box] |= ndimage.binary_fill_holes(own)
    return found
