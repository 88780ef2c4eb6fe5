"""Means over groups of classes, all from the one confusion of a pass.

Categories of a benchmark (human and vehicle of Cityscapes), frequencies of LVIS, and seen and
unseen classes with their harmonic mean (ZegCLIP, arXiv 2212.03588, section 4.2).
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from evaluation.scoring.metrics import Average, Summary, mean_iou
from evaluation.scoring.results import GroupScore
from storage.class_groups import category_positions
from storage.class_sets import BenchmarkClasses
from storage.vocabulary import load_vocabulary

_FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
SEEN, UNSEEN, HARMONIC = "seen", "unseen", "harmonic mean"
"""The groups of a zero-shot split."""


def group_scores(
    summary: Summary, classes: BenchmarkClasses, unseen: Sequence[str], average: Average
) -> tuple[GroupScore, ...]:
    """Average groups of classes by themselves; background is in none.

    Args:
        summary: What was counted, background included where it is scored.
        classes: The class set.
        unseen: Names of the unseen classes; empty if there is no split.
        average: Which classes of a group count.
    """
    first = 1 if classes.background else 0

    def averaged(name: str, positions: Sequence[int]) -> GroupScore:
        own = [first + place for place in positions]
        ious, pixels = summary.ious[own], summary.true_pixels[own]
        asked = {Average.ALL: len(own), Average.TRUE: int((pixels > 0).sum())}
        count = asked.get(average, int((~np.isnan(ious)).sum()))
        miou = mean_iou(ious, pixels, average)
        return GroupScore(name=name, num_classes=count, miou=None if math.isnan(miou) else miou)

    found = [averaged(name, own) for name, own in category_positions(classes).items()]
    found += [averaged(name, own) for name, own in _frequencies(classes)]
    if unseen:
        places = [k for k, name in enumerate(classes.names) if name in set(unseen)]
        others = [k for k, name in enumerate(classes.names) if name not in set(unseen)]
        pair = averaged(SEEN, others), averaged(UNSEEN, places)
        found += [*pair, _harmonic(*pair)]
    return tuple(found)


def _harmonic(seen: GroupScore, unseen: GroupScore) -> GroupScore:
    """The harmonic mean of two means; 0 if either is."""
    count = seen.num_classes + unseen.num_classes
    if seen.miou is None or unseen.miou is None:
        return GroupScore(name=HARMONIC, num_classes=count, miou=None)
    total = seen.miou + unseen.miou
    value = 2 * seen.miou * unseen.miou / total if total else 0.0
    return GroupScore(name=HARMONIC, num_classes=count, miou=value)


def _frequencies(classes: BenchmarkClasses) -> Iterator[tuple[str, list[int]]]:
    """Classes by their frequency in LVIS, of class sets in which every class has one."""
    vocabulary = load_vocabulary(classes.vocabulary)
    frequencies = [
        vocabulary[class_id].frequency if class_id is not None else ""
        for class_id in classes.class_ids
    ]
    if all(frequencies):
        for frequency, name in _FREQUENCIES.items():
            yield name, [place for place, each in enumerate(frequencies) if each == frequency]
