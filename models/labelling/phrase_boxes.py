"""Boxes of phrases: what stays of all that a network proposes for the phrases of an image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from models.labelling.boxes import suppress
from models.protocols import FoundBoxes


@dataclass(frozen=True)
class Proposals:
    """What one pass of a network says about some phrases of one image, one row a query.

    Attributes:
        phrases: What was asked for in this pass, all different.
        boxes: xyxy in pixels.
        scores: Of each phrase for each query, in [0, 1].
        passing: Whether a phrase's scores for a query are above the thresholds.
    """

    phrases: tuple[str, ...]
    boxes: Float32[np.ndarray, "queries 4"]
    scores: Float32[np.ndarray, "queries phrases"]
    passing: Bool[np.ndarray, "queries phrases"]

    @property
    def finite(self) -> bool:
        """Whether no box and no score is NaN or infinite."""
        return bool(np.isfinite(self.boxes).all() and np.isfinite(self.scores).all())

    def kept(self, column: int, nms_iou: float) -> np.ndarray:
        """Queries that belong to a phrase, pass the thresholds and survive its suppression.

        A query belongs to the phrase that scores best, to several only if they tie.
        """
        score = self.scores[:, column]
        width, height = (self.boxes[:, 2:] - self.boxes[:, :2]).T
        candidates = np.flatnonzero(
            (score == self.scores.max(axis=1))
            & self.passing[:, column]
            & (width > 0)
            & (height > 0)
        )
        return candidates[suppress(self.boxes[candidates], score[candidates], nms_iou)]


def boxes_of_phrases(
    passes: Sequence[Proposals], phrases: Sequence[str], nms_iou: float
) -> FoundBoxes:
    """Take an image's boxes from all passes over it.

    Args:
        passes: Each about phrases of its own.
        phrases: What was asked for in the image; one that comes twice gets its boxes twice.
        nms_iou: Of two boxes of one phrase that overlap more than this, the better one stays.

    Returns:
        Boxes, best score first; none if a number in any pass is not finite.
    """
    best = np.zeros(len(phrases), np.float32)
    finite = all(own.finite for own in passes)
    boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    owners = [np.zeros(0, np.int64)]
    for own in passes if finite else ():
        for column, text in enumerate(own.phrases):
            rows = own.kept(column, nms_iou)
            for index in (i for i, phrase in enumerate(phrases) if phrase == text):
                best[index] = own.scores[:, column].max()
                boxes.append(own.boxes[rows])
                scores.append(own.scores[rows, column])
                owners.append(np.full(len(rows), index))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return FoundBoxes(
        xyxy=np.concatenate(boxes)[order],
        scores=np.concatenate(scores)[order],
        phrases=np.concatenate(owners)[order],
        best_scores=best,
        finite=finite,
    )
