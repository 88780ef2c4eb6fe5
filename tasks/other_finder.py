"""What looks an image through for objects that nobody asked for: the recipe's models as one."""

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int, UInt8

from models.protocols import (
    ClassScout,
    CutMasks,
    Detector,
    FoundBoxes,
    FoundObjects,
    Labeller,
    Segmenter,
)
from models.writing.mentions import ClassFinder
from storage.vocabulary import Vocabulary
from tasks.detections import is_finite, phrases_of
from tasks.pipeline import HoldDevice

Image = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Question:
    """What an image is asked for.

    Attributes:
        own: The classes that it was made for.
        others: Classes that nobody asked for.
    """

    own: tuple[int, ...]
    others: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class OtherFinder:
    """The models that look an image through.

    Attributes:
        vocabulary: All classes.
        detector: Finds; a labeller cuts in the same pass.
        segmenter: Cuts, where the detector does not.
        scout: Says which classes an image may show; None if nobody asks it.
    """

    vocabulary: Vocabulary
    detector: Detector
    segmenter: Segmenter | None = None
    scout: ClassScout | None = None

    @cached_property
    def _names(self) -> ClassFinder:
        return ClassFinder(self.vocabulary)

    @cached_property
    def _phrases(self) -> list[tuple[str, ...]]:
        return [record.embedding_phrases for record in self.vocabulary]

    def named(self, text: str) -> frozenset[int]:
        """The classes that a text names."""
        return self._names.named(text)

    def likeness(
        self, images: Sequence[Image], hold: HoldDevice = nullcontext
    ) -> Float32[np.ndarray, "images classes"] | None:
        """How like each class some part of each image is; None without a scout."""
        if self.scout is None:
            return None
        with hold():
            return self.scout.likeness(images, self._phrases)

    def look(
        self,
        images: Sequence[Image],
        questions: Sequence[Question],
        min_score: float,
        hold: HoldDevice = nullcontext,
    ) -> list[FoundObjects]:
        """Find and cut out objects of the other classes.

        The own classes are asked for once more beside them: a box belongs to the class that scores
        best for it, so that an own object is less often taken for another one.

        Args:
            images: The images.
            questions: What each is asked for.
            min_score: Least score of a box.
            hold: Holds the device while a network computes.

        Returns:
            For each image what was found, best score first, with a mask for each box; its
            `phrases` are positions in the question's other classes.
        """
        classes = [(*each.own, *each.others) for each in questions]
        phrases = [phrases_of(each, self.vocabulary) for each in classes]
        first = [len(each.own) for each in questions]
        if isinstance(self.detector, Labeller):
            with hold():
                labelled = self.detector.label(images, phrases)
            return [
                _picked(each, _rows(each.boxes, least, min_score), least)
                for each, least in zip(labelled, first, strict=True)
            ]
        with hold():
            found = self.detector.detect(images, phrases)
        boxes = [
            _of_rows(each, _rows(each, least, min_score), least)
            for each, least in zip(found, first, strict=True)
        ]
        return self._cut(images, boxes, hold)

    def _cut(
        self, images: Sequence[Image], boxes: Sequence[FoundBoxes], hold: HoldDevice
    ) -> list[FoundObjects]:
        """Cut out what was found; an image without a box is not even looked at."""
        objects = [
            FoundObjects(each, _no_masks(image)) for each, image in zip(boxes, images, strict=True)
        ]
        full = [place for place, each in enumerate(boxes) if len(each.scores)]
        if not full or self.segmenter is None:
            return objects
        with hold():
            cuts = self.segmenter.segment(
                [images[place] for place in full], [boxes[place].xyxy for place in full]
            )
        for place, cut in zip(full, cuts, strict=True):
            objects[place] = FoundObjects(boxes[place], cut)
        return objects


def _rows(found: FoundBoxes, first: int, min_score: float) -> Int[np.ndarray, " kept"]:
    """The boxes of other classes that score enough."""
    if not is_finite(found):
        return np.zeros(0, np.int64)
    return np.flatnonzero((found.phrases >= first) & (found.scores >= np.float32(min_score)))


def _of_rows(found: FoundBoxes, rows: Int[np.ndarray, " kept"], first: int) -> FoundBoxes:
    return dataclasses.replace(
        found,
        xyxy=found.xyxy[rows],
        scores=found.scores[rows],
        phrases=found.phrases[rows] - first,
        best_scores=found.best_scores[first:],
        finite=is_finite(found),
    )


def _picked(found: FoundObjects, rows: Int[np.ndarray, " kept"], first: int) -> FoundObjects:
    cuts = found.cuts
    masks = np.array([cuts.masks[row] for row in rows], np.bool_).reshape(-1, *cuts.masks.shape[1:])
    own = CutMasks(masks, cuts.predicted_ious[rows], cuts.finite)
    return FoundObjects(_of_rows(found.boxes, rows, first), own)


def _no_masks(image: Image) -> CutMasks:
    return CutMasks(np.zeros((0, *image.shape[:2]), np.bool_), np.zeros(0, np.float32))
