"""Background: when a pixel belongs to none of the classes that were asked for."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from evaluation.scoring.config import Background

__all__ = ["ScoreMap", "apply_background"]

BACKGROUND_WORD = -1
"""What stands for a class where a background word won."""


@dataclass(frozen=True)
class ScoreMap:
    """The best class of each pixel.

    Attributes:
        best: Its score in [0, 1].
        index: Its position in the class set's names, without background; the lowest of equals.
            `BACKGROUND_WORD` where a background word won or no class was a candidate.
    """

    best: Float32[np.ndarray, "height width"]
    index: Int32[np.ndarray, "height width"]


def apply_background(
    scores: ScoreMap, rule: Background, threshold: float, *, background: bool
) -> Int32[np.ndarray, "height width"]:
    """Turn scores into the labels of a class set.

    Args:
        scores: The best class of each pixel.
        rule: The background rule; of no effect on a class set without background.
        threshold: Its threshold, compared in float32.
        background: Whether the class set scores background, as label 0 before the others.
    """
    if not background:
        return scores.index
    labels = scores.index + 1
    if rule is Background.NONE:
        return labels
    limit = np.float32(threshold)
    sure = confidence(scores, rule)
    return labels * (sure > limit if rule is Background.CONSTANT else sure >= limit)


def confidence(scores: ScoreMap, rule: Background) -> Float32[np.ndarray, "height width"]:
    """What a threshold is compared with, so that one pass over the images serves every threshold.

    Returns:
        The best score; -1 where no class won; 1 where GroupViT's rule finds the image's
        best score, which no threshold makes background.
    """
    sure = scores.best.copy()
    if rule is Background.GROUPVIT:
        sure[sure == sure.max()] = 1
    sure[scores.index == BACKGROUND_WORD] = -1
    return sure
