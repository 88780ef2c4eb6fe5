"""Baselines: a labeller's objects as scores, such as those of Grounding DINO + SAM."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from evaluation.scoring.background import BACKGROUND_WORD, ScoreMap
from evaluation.scoring.predictors import ClassScores
from models.masks import PackedMasks
from models.protocols import FoundBoxes, Labeller
from storage.errors import InputError

_BASELINE_CHUNK = 8


class DetectedSegments:
    """What a labeller finds and cuts out, as scores: the baseline Grounding DINO + SAM.

    A pixel's score is the labeller's score of the best box whose mask covers it, 0 where there is
    none.

    Args:
        labeller: Finds the classes' phrases and cuts them out.
        phrases: What each class is called.
    """

    def __init__(self, labeller: Labeller, phrases: Sequence[str]) -> None:
        self._labeller = labeller
        self._phrases = tuple(phrases)

    def predict(
        self, image: UInt8[np.ndarray, "height width 3"], candidates: Sequence[int] | None = None
    ) -> ScoreMap:
        """Find the candidates in one image and cut them out."""
        asked = self._asked(candidates)
        best = np.zeros(image.shape[:2], dtype=np.float32)
        index = np.full(image.shape[:2], asked[0] if asked else BACKGROUND_WORD, dtype=np.int32)
        found, masks = self._cut(image, asked)
        # Worse boxes first, and of equal ones the higher class first: the last writer wins.
        for box in np.lexsort((-found.phrases, found.scores)):
            mask = masks[box]
            best[mask] = found.scores[box]
            index[mask] = asked[found.phrases[box]]
        return ScoreMap(best, index)

    def class_scores(
        self, image: UInt8[np.ndarray, "height width 3"], candidates: Sequence[int] | None = None
    ) -> Iterator[ClassScores]:
        """Score every candidate at every pixel; a class without a box scores 0 everywhere."""
        asked = self._asked(candidates)
        found, masks = self._cut(image, asked)
        for first in range(0, len(asked), _BASELINE_CHUNK):
            own = asked[first : first + _BASELINE_CHUNK]
            scores = np.zeros((len(own), *image.shape[:2]), dtype=np.float32)
            inside = (found.phrases >= first) & (found.phrases < first + len(own))
            for box in np.flatnonzero(inside):
                one, mask = scores[found.phrases[box] - first], masks[box]
                one[mask] = np.maximum(one[mask], found.scores[box])
            yield ClassScores(own, torch.from_numpy(scores))

    def _asked(self, candidates: Sequence[int] | None) -> tuple[int, ...]:
        return tuple(range(len(self._phrases)) if candidates is None else sorted(candidates))

    def _cut(
        self, image: UInt8[np.ndarray, "height width 3"], asked: Sequence[int]
    ) -> tuple[FoundBoxes, Bool[np.ndarray, "boxes height width"] | PackedMasks]:
        """The boxes of the classes asked for, and a mask for each.

        Raises:
            InputError: If a model's numbers are not finite.
        """
        [found] = self._labeller.label([image], [tuple(self._phrases[each] for each in asked)])
        _refuse_not_finite(found.boxes.finite, "boxes")
        _refuse_not_finite(found.cuts.finite, "masks")
        return found.boxes, found.cuts.masks


def _refuse_not_finite(finite: bool, what: str) -> None:
    if not finite:
        message = (
            f"the numbers of the baseline's {what} are not finite (NaN or infinite), expected "
            "scores: set its dtype to float32 or bfloat16"
        )
        raise InputError(message)
