"""GrabCut of OpenCV: a refinement of masks by the colours of the image.

Rother, Kolmogorov and Blake (SIGGRAPH 2004). It learns the colours of object and background in
each image.
"""

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from models.labelling.attention.thresholds import Seeds
from models.opencv import load_opencv
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL

_SURE_BACKGROUND, _SURE_FOREGROUND, _BACKGROUND, _FOREGROUND = range(4)  # OpenCV's numbers
_MODEL = (1, 65)  # 5 Gaussians of 13 values


def grabcut_mask(
    image: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    seeds: Seeds | None = None,
    *,
    iterations: int = 5,
) -> Bool[np.ndarray, "height width"]:
    """Move the edges of a mask to where colours change.

    The same input gives the same mask, in any thread: OpenCV's random numbers are each thread's
    own, and begin at the same place.

    Args:
        image: RGB.
        mask: What is probably of the object.
        seeds: What surely is, and what surely is not.
        iterations: Rounds.

    Returns:
        The mask; as it was given, corrected by the seeds, if there is no object in it or nothing
        else, from which colours could be learned.

    Raises:
        InputError: If OpenCV cannot be loaded.
    """
    marks = np.where(mask, _FOREGROUND, _BACKGROUND).astype(np.uint8)
    if seeds is not None:
        marks[seeds.foreground] = _SURE_FOREGROUND
        marks[seeds.background] = _SURE_BACKGROUND
    inside = np.isin(marks, (_FOREGROUND, _SURE_FOREGROUND))
    if inside.all() or not inside.any():
        return inside
    cv2 = load_opencv()
    cv2.setRNGSeed(0)
    models = np.zeros(_MODEL), np.zeros(_MODEL)
    pixels = np.ascontiguousarray(image)
    cv2.grabCut(pixels, marks, None, *models, iterations, cv2.GC_INIT_WITH_MASK)
    return np.isin(marks, (_FOREGROUND, _SURE_FOREGROUND))


def grabcut_labels(
    image: UInt8[np.ndarray, "height width 3"],
    labels: UInt16[np.ndarray, "height width"],
    *,
    iterations: int = 5,
) -> UInt16[np.ndarray, "height width"]:
    """Refine a label map, one class after the other, from the lowest label on.

    Pixels of other classes are never taken, neither as they were nor as they have become. A pixel
    that is to be ignored is probably background of every class, and is background if none takes it.

    Args:
        image: RGB.
        labels: Class index plus one, 0 for background, 65535 for ignored pixels.
        iterations: Rounds for each class.

    Raises:
        InputError: If OpenCV cannot be loaded.
    """
    found = np.where(labels == IGNORE_LABEL, BACKGROUND_LABEL, labels).astype(np.uint16)
    for label in np.unique(found).tolist():
        if label == BACKGROUND_LABEL:
            continue
        own = found == label
        others = (found != BACKGROUND_LABEL) & ~own
        cut = grabcut_mask(image, own, Seeds(np.zeros_like(own), others), iterations=iterations)
        found[own] = BACKGROUND_LABEL
        found[cut] = label
    return found
