"""Intersection over union, counted in exact integers over a whole benchmark.

Pixels whose truth is `IGNORE_LABEL` are left out. By default the mean is taken over the classes
that occur in the truth or in the prediction, as `mmseg` does: a class that occurs in neither is
skipped, one that is predicted but never true counts as 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Integer, UInt8

from storage.errors import DataError
from storage.records import IGNORE_LABEL


class Average(StrEnum):
    """Which classes the mean is taken over."""

    OCCURRING = "occurring"
    """Those in the truth or the prediction (mmsegmentation)."""
    TRUE = "true"
    """Those in the truth."""
    ALL = "all"
    """All of them; one that occurs nowhere counts 0 (CLIP-DIY)."""


@dataclass(frozen=True)
class Summary:
    """The metrics of a confusion matrix.

    Attributes:
        ious: IoU of each class in [0, 1]; NaN where the class occurs nowhere.
        miou: Mean over the classes asked for; NaN if there is none.
        pixel_accuracy: Share of the counted pixels that are right; NaN if there is no pixel.
        true_pixels: Counted pixels of each class in the truth.
    """

    ious: Float64[np.ndarray, " classes"]
    miou: float
    pixel_accuracy: float
    true_pixels: Int64[np.ndarray, " classes"]


@dataclass(frozen=True)
class LabelPairs:
    """How often each label of the truth met each predicted label in an image.

    Attributes:
        truth: True labels.
        found: The predicted label beside each; a pair stands here once.
        pixels: Counted pixels that have both.
    """

    truth: Int64[np.ndarray, " pairs"]
    found: Int64[np.ndarray, " pairs"]
    pixels: Int64[np.ndarray, " pairs"]


class Confusion:
    """Counts of (true class, predicted class) over many label maps.

    Args:
        num_classes: Labels are 0 to ``num_classes - 1``, background included where it counts.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        # The last count is that of ignored pixels, which are cheaper to count than to leave out.
        self._counts = np.zeros(num_classes**2 + 1, dtype=np.int64)
        self.matrix: Int64[np.ndarray, "true predicted"]
        self.matrix = self._counts[:-1].reshape(num_classes, num_classes)
        # Of one image; zeros between two of them.
        self._of_image: Int64[np.ndarray, " counts"] | None = None

    def update(
        self,
        truth: Integer[np.ndarray, "height width"],
        prediction: Integer[np.ndarray, "height width"],
    ) -> None:
        """Count one image.

        Raises:
            DataError: If a label or a predicted class is out of range.
        """
        keys, _ = self._keys(truth, prediction)
        # In place: 1,204 classes have 1.4 million pairs, of which an image has a few hundred.
        np.add.at(self._counts, keys, 1)

    def update_with_pairs(
        self,
        truth: Integer[np.ndarray, "height width"],
        prediction: Integer[np.ndarray, "height width"],
    ) -> LabelPairs:
        """Count one image, and say what was counted.

        Raises:
            DataError: If a label or a predicted class is out of range.
        """
        keys, counted = self._keys(truth, prediction)
        if self._of_image is None:
            self._of_image = np.zeros_like(self._counts)
        np.add.at(self._of_image, keys, 1)
        self._of_image[-1] = 0
        met = self._met(self._of_image, truth, counted)
        pixels = self._of_image[met]
        self._of_image[met] = 0
        self._counts[met] += pixels
        return LabelPairs(*np.divmod(met, self.num_classes), pixels)

    def _keys(
        self,
        truth: Integer[np.ndarray, "height width"],
        prediction: Integer[np.ndarray, "height width"],
    ) -> tuple[Int64[np.ndarray, " pixels"], Bool[np.ndarray, "height width"]]:
        """Place of each pixel's pair among the counts, and which pixels count."""
        counted = _counted(truth, prediction, self.num_classes)
        keys = truth.astype(np.int64)
        keys *= self.num_classes
        keys += prediction
        keys[~counted] = len(self._counts) - 1
        return keys.ravel(), counted

    def _met(
        self,
        counts: Int64[np.ndarray, " counts"],
        truth: Integer[np.ndarray, "height width"],
        counted: Bool[np.ndarray, "height width"],
    ) -> Int64[np.ndarray, " pairs"]:
        """Places of all counts of an image that are not zero."""
        if len(counts) <= truth.size:
            return np.flatnonzero(counts)
        # Few of the many labels are in an image: only their rows are looked through.
        shown = np.zeros(self.num_classes + 1, dtype=bool)
        shown[np.where(counted, truth, self.num_classes)] = True
        rows = np.flatnonzero(shown[:-1])
        own = counts[:-1].reshape(self.num_classes, self.num_classes)[rows]
        row, column = np.nonzero(own)
        return rows[row] * self.num_classes + column

    def summary(self, average: Average = Average.OCCURRING) -> Summary:
        """IoUs, their mean and the pixel accuracy of everything counted so far."""
        true_pixels = self.matrix.sum(axis=1)
        intersections = np.diag(self.matrix)
        return _summary(intersections, true_pixels, self.matrix.sum(axis=0), average)


class ThresholdSweep:
    """The scores at several background thresholds, from one pass over the images.

    A pixel is foreground at a threshold if its best class scores at least that much (more than
    that, if ``strict``). Only each class's intersection and area are counted per threshold.

    Args:
        num_classes: Classes with background, which is 0.
        thresholds: Ascending, at most 255; compared in float32.
        strict: Whether a score equal to the threshold is background.
    """

    def __init__(
        self, num_classes: int, thresholds: Sequence[float], *, strict: bool = False
    ) -> None:
        self.thresholds = np.asarray(thresholds, dtype=np.float32)
        self._num_classes = num_classes
        self._beats = np.greater if strict else np.greater_equal
        shape = (len(self.thresholds) + 1, num_classes)
        # Row b counts pixels whose score passes exactly b thresholds.
        self._predicted = np.zeros(shape, dtype=np.int64)
        self._hits = np.zeros(shape, dtype=np.int64)
        self._background = np.zeros(shape[0], dtype=np.int64)
        self._true = np.zeros(num_classes, dtype=np.int64)

    def update(
        self,
        truth: Integer[np.ndarray, "height width"],
        best: Float32[np.ndarray, "height width"],
        label: Integer[np.ndarray, "height width"],
    ) -> None:
        """Count one image.

        Args:
            truth: True labels.
            best: Score of the best foreground class.
            label: Label of the best foreground class, from 1.

        Raises:
            DataError: If a label is out of range.
        """
        counted = _counted(truth, label, self._num_classes)
        true, found = truth[counted].astype(np.int64), label[counted].astype(np.int64)
        passed = self._passed(best[counted])
        self._true += np.bincount(true, minlength=self._num_classes)
        self._predicted += self._histogram(passed, found)
        right = true == found
        self._hits += self._histogram(passed[right], found[right])
        self._background += np.bincount(passed[true == 0], minlength=len(self._background))

    def summaries(self, average: Average = Average.OCCURRING) -> list[Summary]:
        """One summary for each threshold, in order."""
        total = int(self._true.sum())
        results = []
        for index in range(len(self.thresholds)):
            predicted = self._predicted[index + 1 :].sum(axis=0)
            hits = self._hits[index + 1 :].sum(axis=0)
            predicted[0] = total - predicted.sum()
            hits[0] = self._background[: index + 1].sum()
            results.append(_summary(hits, self._true, predicted, average))
        return results

    def _passed(self, best: Float32[np.ndarray, " pixels"]) -> UInt8[np.ndarray, " pixels"]:
        """How many thresholds each score passes; bytes are much faster than a binary search."""
        passed = np.zeros(len(best), dtype=np.uint8)
        for threshold in self.thresholds:
            passed += self._beats(best, threshold).view(np.uint8)
        return passed

    def _histogram(
        self, passed: UInt8[np.ndarray, " pixels"], classes: Int64[np.ndarray, " pixels"]
    ) -> Int64[np.ndarray, "passed classes"]:
        keys = passed.astype(np.int64) * self._num_classes + classes
        return np.bincount(keys, minlength=self._hits.size).reshape(self._hits.shape)


def mean_iou(
    ious: Float64[np.ndarray, " classes"],
    true_pixels: Int64[np.ndarray, " classes"],
    average: Average,
) -> float:
    """Mean over the classes asked for.

    Args:
        ious: NaN where the class occurs nowhere.
        true_pixels: Pixels of each class in the truth.
        average: Which classes are asked for.

    Returns:
        NaN if there is none.
    """
    if average is Average.ALL:
        asked = np.nan_to_num(ious)
    else:
        asked = ious[true_pixels > 0 if average is Average.TRUE else ~np.isnan(ious)]
    return float(asked.mean()) if len(asked) else float("nan")


def _summary(
    intersections: Int64[np.ndarray, " classes"],
    true_pixels: Int64[np.ndarray, " classes"],
    predicted_pixels: Int64[np.ndarray, " classes"],
    average: Average,
) -> Summary:
    unions = true_pixels + predicted_pixels - intersections
    ious = np.full(len(unions), np.nan)
    np.divide(intersections, unions, out=ious, where=unions > 0)
    total = int(true_pixels.sum())
    return Summary(
        ious=ious,
        miou=mean_iou(ious, true_pixels, average),
        pixel_accuracy=float(intersections.sum() / total) if total else float("nan"),
        true_pixels=true_pixels,
    )


def _counted(
    truth: Integer[np.ndarray, "height width"],
    prediction: Integer[np.ndarray, "height width"],
    num_classes: int,
) -> Bool[np.ndarray, "height width"]:
    """Pixels that count, of which both labels are in range."""
    counted = truth != IGNORE_LABEL
    for values, what in ((truth, "true label"), (prediction, "predicted class")):
        wrong = values[((values < 0) | (values >= num_classes)) & counted]
        if wrong.size:
            message = f"{what} {wrong[0]} is out of range, expected 0 to {num_classes - 1}"
            raise DataError(message)
    return counted
