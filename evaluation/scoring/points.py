"""Point IoU (p-mIoU): single points that people answered "is this point on a <class>?" for.

A class is predicted at a point where its own map passes the threshold; classes do not compete for
a point, so several may be predicted at one. For one class,

    TP  yes-points predicted          FN  yes-points not predicted
    FP  no-points predicted           TN  no-points not predicted

and its IoU is TP / (TP + FP + FN). Points at which a class was not asked for say nothing about it.

Nobody published the code that makes one number of these. MagicSeg (arXiv 2603.19575, table III)
follows GEM, which released none; what is retold of LeGrad, of the same group, is a mean over
(image, class) pairs of the mean of foreground and background IoU. So every combination is counted
in the same pass, and one of them is the headline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from pydantic import BaseModel, Field


class Candidates(StrEnum):
    """Which classes are asked for in an image."""

    PRESENT = "present"
    """Those with a yes-point in the image; no-points of other classes are left out (GEM's and
    LeGrad's way: the image's own class list is given)."""
    ASKED = "asked"
    """Those with a yes- or a no-point in the image."""
    VOCABULARY = "vocabulary"
    """All classes of the split. Counted where there are points, as with `asked`: the numbers
    differ only where the scores of one class depend on the others, as those of a softmax and of
    the detector do."""


class Binarise(StrEnum):
    """What is compared with the threshold."""

    SCORE = "score"
    """The score itself, in [0, 1]; a student's is the sigmoid of its logit."""
    MIN_MAX = "min-max"
    """The class's map, stretched to [0, 1] over the image (LeGrad, with 0.5); a constant map is
    nowhere predicted above the threshold 0."""


class Aggregate(StrEnum):
    """What the mean is taken over."""

    CLASS = "class"
    """Classes; each one's points are summed over all images before."""
    PAIR = "pair"
    """(image, class) pairs."""


class PointRules(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How answers at points become one number."""

    candidates: Candidates = Candidates.PRESENT
    """Which classes are asked for in an image."""
    binarise: Binarise = Binarise.SCORE
    """What is compared with the threshold."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """A class is predicted at a point where its value is at least this, compared in float32."""
    aggregate: Aggregate = Aggregate.CLASS
    """What the headline's mean is taken over; the others are counted too."""
    with_background: bool = False
    """Whether the headline averages each foreground IoU with the background IoU, TN / (TN + FP +
    FN); the other way is counted too."""


@dataclass(frozen=True)
class PointMean:
    """One way to average.

    Attributes:
        aggregate: What the mean is taken over.
        with_background: Whether each IoU is the mean of foreground and background.
        value: The mean in [0, 1]; NaN if nothing has an IoU.
        count: Classes or pairs that have an IoU.
    """

    aggregate: Aggregate
    with_background: bool
    value: float
    count: int


class PointCounts:
    """Counts answers at points over many images, at several thresholds at once.

    Args:
        num_classes: Classes are 0 to ``num_classes - 1``.
        thresholds: In any order; compared in float32.
        strict: Whether a value equal to the threshold is not predicted.

    Attributes:
        counts: TP, FP, FN and TN of each class at each threshold.
    """

    def __init__(
        self, num_classes: int, thresholds: Sequence[float], *, strict: bool = False
    ) -> None:
        self.counts: Int64[np.ndarray, "thresholds classes 4"]
        self.counts = np.zeros((len(thresholds), num_classes, 4), dtype=np.int64)
        self._thresholds = np.asarray(thresholds, dtype=np.float32)[:, None]
        self._compare = np.greater if strict else np.greater_equal
        self._pair_sums = np.zeros((len(thresholds), 2))
        self._pairs = np.zeros((len(thresholds), 2), dtype=np.int64)

    def update(
        self,
        class_id: int,
        values: Float32[np.ndarray, " points"],
        is_yes: Bool[np.ndarray, " points"],
    ) -> None:
        """Count the points of one class in one image.

        Args:
            class_id: The class.
            values: What is compared with the thresholds, at each point.
            is_yes: Whether the point is on the class.
        """
        predicted = self._compare(values, self._thresholds)
        hits = (predicted & is_yes).sum(axis=1)
        alarms = predicted.sum(axis=1) - hits
        num_yes = int(is_yes.sum())
        num_no = len(is_yes) - num_yes
        counts = np.stack([hits, alarms, num_yes - hits, num_no - alarms], axis=1)
        self.counts[:, class_id] += counts
        ious = point_ious(counts)
        self._pair_sums += np.nan_to_num(ious)
        self._pairs += ~np.isnan(ious)

    def means(self, threshold: int) -> list[PointMean]:
        """Every way to average, at the threshold of that position."""
        of_class = point_ious(self.counts[threshold])
        sums = {Aggregate.CLASS: np.nansum(of_class, axis=0)}
        counts = {Aggregate.CLASS: (~np.isnan(of_class)).sum(axis=0)}
        sums[Aggregate.PAIR], counts[Aggregate.PAIR] = (
            self._pair_sums[threshold],
            self._pairs[threshold],
        )
        return [
            PointMean(
                aggregate=aggregate,
                with_background=bool(column),
                value=float(total / count) if count else float("nan"),
                count=int(count),
            )
            for aggregate in Aggregate
            for column, (total, count) in enumerate(
                zip(sums[aggregate], counts[aggregate], strict=True)
            )
        ]


def way_words(aggregate: Aggregate, *, both: bool) -> str:
    """Say what a mean is taken over.

    Args:
        aggregate: Classes or pairs.
        both: Whether the background IoU counts too.
    """
    over = {Aggregate.CLASS: "classes", Aggregate.PAIR: "pairs"}[aggregate]
    return f"{over}, {'foreground and background' if both else 'foreground'}"


def point_ious(
    counts: Int64[np.ndarray, "*rows 4"],
) -> Float64[np.ndarray, "*rows 2"]:
    """The foreground IoU, and its mean with the background IoU.

    An IoU is NaN where no point counts for it; the mean is over those that are not NaN.

    Args:
        counts: TP, FP, FN and TN.
    """
    hits, alarms, misses, rejections = np.moveaxis(counts, -1, 0)
    wrong = alarms + misses
    foreground, background = _ratio(hits, hits + wrong), _ratio(rejections, rejections + wrong)
    both = (foreground + background) / 2
    both = np.where(np.isnan(background), foreground, both)
    return np.stack([foreground, np.where(np.isnan(foreground), background, both)], axis=-1)


def rescale(
    values: Float32[np.ndarray, " points"], low: float, high: float
) -> Float32[np.ndarray, " points"]:
    """Rescale values of a map to [0, 1], in float32.

    Args:
        values: Some of the map's values.
        low: Least value of the whole map.
        high: Greatest value of the whole map; where it equals ``low``, all become 0.
    """
    if high <= low:
        return np.zeros_like(values)
    return (values - np.float32(low)) / (np.float32(high) - np.float32(low))


def _ratio(
    part: Int64[np.ndarray, "*rows"], whole: Int64[np.ndarray, "*rows"]
) -> Float64[np.ndarray, "*rows"]:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
