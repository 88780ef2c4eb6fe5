"""Agreement: how far a label map and a prediction of the same image say the same."""

from collections.abc import Collection
from statistics import fmean

import numpy as np
from jaxtyping import Bool, Shaped

from storage.records import BACKGROUND_LABEL, IGNORE_LABEL, Record

__all__ = ["Agreement", "find_agreement"]


class Agreement(Record, frozen=True):
    """How far a prediction says what the mask of a sample says."""

    classes: dict[int, float]
    """Class id -> intersection over union in [0, 1], of each class that is judged."""
    objects: float
    """The same of all objects together, whatever they are taken for."""

    @property
    def score(self) -> float:
        """Mean over the classes."""
        return fmean(self.classes.values())


def find_agreement(
    labels: Shaped[np.ndarray, "height width"],
    predicted: Shaped[np.ndarray, "height width"],
    known: Collection[int],
) -> Agreement | None:
    """Compare the classes that a label map shows with a prediction.

    Pixels that the label map ignores count on neither side. This is the cleanliness of DiffuMask
    (ICCV 2023, section 3.3): the predicting network must not have been trained on the image.

    Args:
        labels: ``class_id + 1``, 0 background, 65535 ignored.
        predicted: The same of the prediction.
        known: Ids of the classes that the network can find.

    Returns:
        The agreement; None where the map shows none of these classes.
    """
    counted = labels != IGNORE_LABEL
    shown, found = labels[counted], predicted[counted]
    classes = {
        label - 1: _overlap(shown == label, found == label)
        for label in np.unique(shown).tolist()
        if label != BACKGROUND_LABEL and label - 1 in known
    }
    if not classes:
        return None
    objects = _overlap(shown != BACKGROUND_LABEL, found != BACKGROUND_LABEL)
    return Agreement(classes=classes, objects=objects)


def _overlap(first: Bool[np.ndarray, " pixels"], second: Bool[np.ndarray, " pixels"]) -> float:
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)
