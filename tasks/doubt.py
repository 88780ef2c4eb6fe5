"""Doubt: which samples of a dataset a person should look at first.

Four things speak against a sample. Three of them were recorded when it was made: the lowest score
of its boxes, the lowest IoU that the segmenter itself expects of its masks, and areas that are odd
for their classes. The fourth is asked of a student: how little its prediction agrees with the mask.
They have no common scale, so that each sample gets a place by each of them, from 0 for the least
doubtful to 1. Doubt is the mean of what was recorded and of the student, who counts three times.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from evaluation.scoring.agreement import Agreement
from storage.manifest import ManifestRow
from storage.records import Record

__all__ = ["DoubtedSample", "rank_doubt"]

BOX, IOU, AREA, STUDENT = "box", "iou", "area", "student"
SIGNALS: Mapping[str, str] = {
    BOX: "lowest score of the detector's boxes, in [0, 1]",
    IOU: "lowest IoU that the segmenter expects of its masks, in [0, 1]",
    AREA: "how far the area of a class is from what is usual for it, in robust deviations",
    STUDENT: "agreement of a student's prediction with the mask, in [0, 1]",
}
"""What speaks for or against a sample; all but the area speak against it where they are low."""

_STUDENT_WEIGHT = 3.0
"""What a student says counts so often as much as all that was recorded. What was recorded judges
the picture as the labeller saw it and can hardly tell a mask that is not its own; with equal
weights it hides half of those that a student finds (`benchmarks.rank`)."""
_FEWEST = 5
"""Samples of a class from which on it is known what is usual for it."""
_DEVIATION = 1.4826
"""Standard deviations in a median absolute deviation, of what is normally distributed."""
_LEAST_DEVIATION = 0.05
"""Of the logarithm of the area: a class whose masks are all alike to 5 % has no odd ones."""


class DoubtedSample(Record, frozen=True):
    """A sample in the order of doubt."""

    key: str
    """Sample key."""
    shard: str
    """The shard that holds it."""
    class_names: tuple[str, ...]
    """Display names of the classes in its mask."""
    doubt: float
    """Weighted mean of its places, from 0 to 1, the most doubtful."""
    values: dict[str, float]
    """What was measured, by signal; without those that are not known of it."""
    places: dict[str, float]
    """The share of samples that are less doubtful by each of these signals, in (0, 1)."""


def rank_doubt(
    rows: Sequence[ManifestRow], agreements: Mapping[str, Agreement] | None = None
) -> list[DoubtedSample]:
    """Order samples, the most doubtful first.

    The doubt of a sample is a mean of two numbers: the mean of its places by what was recorded, and
    its place by the student, which counts three times. Where one of them is not known the other is
    the doubt, and where nothing is known it is a half.

    Args:
        rows: Of written samples.
        agreements: How far a student agrees with the masks, by key; None if nobody was asked.
    """
    measured = _measure(rows, agreements or {})
    places: dict[str, dict[str, float]] = {row.key: {} for row in rows}
    for signal, values in measured.items():
        for key, place in _places(values).items():
            places[key][signal] = place
    ranked = [
        DoubtedSample(
            key=row.key,
            shard=row.shard,
            class_names=row.class_names,
            doubt=_doubt(places[row.key]),
            values={
                signal: abs(values[row.key][0])
                for signal, values in measured.items()
                if row.key in values
            },
            places=places[row.key],
        )
        for row in rows
    ]
    return sorted(ranked, key=lambda each: (-each.doubt, each.key))


_Value = tuple[float, ...]
"""Low is doubtful; what follows the first number decides between equals."""


def _measure(
    rows: Sequence[ManifestRow], agreements: Mapping[str, Agreement]
) -> dict[str, dict[str, _Value]]:
    judged = ((row.key, agreements[row.key]) for row in rows if row.key in agreements)
    return {
        BOX: {row.key: (min(row.instance_scores),) for row in rows if row.instance_scores},
        IOU: {row.key: (min(row.instance_ious),) for row in rows if row.instance_ious},
        AREA: {key: (-odd,) for key, odd in _oddness(rows).items()},
        STUDENT: {key: (own.score, own.objects) for key, own in judged},
    }


def _oddness(rows: Iterable[ManifestRow]) -> dict[str, float]:
    """How many robust deviations the oddest class of each sample is from what is usual for it.

    The logarithm of its share of the picture is looked at: half of the usual area is as odd as
    twice. Nothing is said of classes that few samples show.
    """
    sizes: dict[int, dict[str, float]] = {}
    for row in rows:
        for class_id, area in zip(row.mask_class_ids, row.mask_areas, strict=True):
            if area and row.width and row.height:
                share = area / (row.width * row.height)
                sizes.setdefault(class_id, {})[row.key] = float(np.log(share))
    odd: dict[str, float] = {}
    for own in sizes.values():
        if len(own) < _FEWEST:
            continue
        usual = median(own.values())
        spread = _DEVIATION * median(abs(size - usual) for size in own.values())
        for key, size in own.items():
            deviation = abs(size - usual) / max(spread, _LEAST_DEVIATION)
            odd[key] = max(odd.get(key, 0.0), deviation)
    return odd


def _places(values: Mapping[str, _Value]) -> dict[str, float]:
    """The share of values that are higher; of equals each has the middle of their places."""
    ordered = sorted(values.values())
    return {
        key: 1 - (bisect_left(ordered, value) + bisect_right(ordered, value)) / (2 * len(ordered))
        for key, value in values.items()
    }


def _doubt(places: Mapping[str, float]) -> float:
    recorded = [place for signal, place in places.items() if signal != STUDENT]
    parts = [(fmean(recorded), 1.0)] if recorded else []
    if STUDENT in places:
        parts.append((places[STUDENT], _STUDENT_WEIGHT))
    weight = sum(own for _, own in parts)
    return sum(place * own for place, own in parts) / weight if parts else 0.5


def table_row(sample: DoubtedSample, place: int) -> dict[str, Any]:
    """A sample as a row of a table; what is not known of it is empty.

    Args:
        sample: The sample.
        place: Its place in the order, from 1.
    """
    columns: dict[str, Any] = {
        "place": place,
        "key": sample.key,
        "classes": ", ".join(sample.class_names),
        "doubt": round(sample.doubt, 4),
    }
    for signal in SIGNALS:
        known = signal in sample.values
        columns[signal] = round(sample.values[signal], 4) if known else ""
        columns[f"{signal}_place"] = round(sample.places[signal], 4) if known else ""
    columns["shard"] = sample.shard
    return columns
