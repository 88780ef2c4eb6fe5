"""Baselines: a labeller's objects as scores, such as those of Grounding DINO + SAM."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from evaluation.scoring.background import BACKGROUND_WORD, ScoreMap
from evaluation.scoring.predictors import ClassScores, Watch
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
        self,
        image: UInt8[np.ndarray, "height width 3"],
        candidates: Sequence[int] | None = None,
        *,
        watch: Watch | None = None,
    ) -> ScoreMap:
        """Find the candidates in one image and cut them out.

        Args:
            image: RGB.
            candidates: Positions of the classes that may be predicted; all if not given.
            watch: Told the scores of each class; changes nothing.

        Raises:
            InputError: If a model's numbers are not finite.
        """
        asked = self._asked(candidates)
        best = np.zeros(image.shape[:2], dtype=np.float32)
        index = np.full(image.shape[:2], asked[0] if asked else BACKGROUND_WORD, dtype=np.int32)
        found, masks = self._cut(image, asked)
        # Worse boxes first, and of equal ones the higher class first: the last writer wins.
        for box in np.lexsort((-found.phrases, found.scores)):
            mask = masks[box]
            best[mask] = found.scores[box]
            index[mask] = asked[found.phrases[box]]
        if watch is not None:
            for place, class_id in enumerate(asked):
                watch(class_id, torch.from_numpy(_one_class(found, masks, place, image.shape[:2])))
        return ScoreMap(best, index)

    def class_scores(
        self, image: UInt8[np.ndarray, "height width 3"], candidates: Sequence[int] | None = None
    ) -> Iterator[ClassScores]:
        """Score every candidate at every pixel; a class without a box scores 0 everywhere."""
        asked = self._asked(candidates)
        found, masks = self._cut(image, asked)
        for first in range(0, len(asked), _BASELINE_CHUNK):
            own = asked[first : first + _BASELINE_CHUNK]
            scores = np.stack(
                [
                    _one_class(found, masks, first + place, image.shape[:2])
                    for place in range(len(own))
                ]
            )
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


def _one_class(
    found: FoundBoxes,
    masks: Bool[np.ndarray, "boxes height width"] | PackedMasks,
    place: int,
    size: tuple[int, int],
) -> Float32[np.ndarray, "height width"]:
    """The score of the best box of a phrase at every pixel, 0 where none is."""
    scores = np.zeros(size, dtype=np.float32)
    for box in np.flatnonzero(found.phrases == place):
        mask = masks[box]
        scores[mask] = np.maximum(scores[mask], found.scores[box])
    return scores


def _refuse_not_finite(finite: bool, what: str) -> None:
    if not finite:
        message = (
            f"the numbers of the baseline's {what} are not finite (NaN or infinite), expected "
            "scores: set its dtype to float32 or bfloat16"
        )
        raise InputError(message)
