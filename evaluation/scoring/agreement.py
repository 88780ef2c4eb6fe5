"""Agreement: how far a label map and a prediction of the same image say the same."""

import numpy as np
from jaxtyping import Shaped

from storage.records import BACKGROUND_LABEL, IGNORE_LABEL

__all__ = ["class_agreements"]


def class_agreements(
    labels: Shaped[np.ndarray, "height width"], predicted: Shaped[np.ndarray, "height width"]
) -> dict[int, float]:
    """Intersection over union of each class that the label map shows.

    Pixels that the label map ignores count on neither side. This is the cleanliness of DiffuMask
    (ICCV 2023, section 3.3): the predicting network must not have been trained on the image.

    Args:
        labels: ``class_id + 1``, 0 background, 65535 ignored.
        predicted: The same of the prediction.

    Returns:
        Class id -> IoU in [0, 1], by ascending id; empty where the map shows no class.
    """
    counted = labels != IGNORE_LABEL
    shown, found = labels[counted], predicted[counted]
    agreements: dict[int, float] = {}
    for label in np.unique(shown).tolist():
        if label != BACKGROUND_LABEL:
            both = np.count_nonzero((shown == label) & (found == label))
            either = np.count_nonzero((shown == label) | (found == label))
            agreements[label - 1] = both / either
    return agreements
