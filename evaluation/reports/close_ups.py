"""Close-ups: what went well and what went wrong in single images, class by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from evaluation.reports.boards import Scored
from evaluation.reports.gallery import ClassChip, css_colour
from evaluation.reports.series import subject_order
from evaluation.reports.shots import (
    DecodedShot,
    Shot,
    confused_labels,
    crop_shot,
    decode_shot,
    draw_shot,
    most_confused,
    pick_ends,
)
from evaluation.scoring.image_counts import ImageCounts, read_counts
from evaluation.scoring.kept_pictures import KeptPicture, read_pictures
from evaluation.scoring.results import ImageFiles, Scores

MAX_CLOSE_UP_BYTES = 1_800_000
"""About how much of a page the close-ups may take: their pictures are made as small as it needs."""

_SIDES = (128, 104, 88, 72, 60, 48, 36)
_TRIED = 10
_OPEN = 2
_PAIRS, _MISSES = 10, 8
_MAX_CLASSES = 100
_MAX_SHOTS = 400
_EACH = 3


@dataclass(frozen=True)
class ClassShots:
    """The best and the worst images of one class.

    Attributes:
        name: The class.
        colour: CSS colour of its masks.
        iou: Over the whole split, in percent; absent if it occurs nowhere.
        width: The same as the width of a bar.
        best: Best first.
        worst: Worst first.
        is_open: Whether the page shows them at once.
    """

    name: str
    colour: str
    iou: str
    width: float
    best: list[Shot]
    worst: list[Shot]
    is_open: bool


@dataclass(frozen=True)
class Confused:
    """One class that is taken for another.

    Attributes:
        words: Which for which.
        share: Share of the true class's pixels, in percent.
        shot: Where it happens most, among the kept images; none where no picture shows it.
        chips: Both classes with their colours.
    """

    words: str
    share: str
    shot: Shot | None
    chips: list[ClassChip]


@dataclass(frozen=True)
class CloseUps:
    """The close-ups of a subject on a benchmark.

    Attributes:
        title: Benchmark and split.
        subject: Whose predictions they are.
        classes: Lowest IoU first.
        confused: Classes taken for each other.
        missed: Classes taken for background, and background for classes.
        classes_note: Which classes are shown.
        note: Why there are no pictures.
    """

    title: str
    subject: str
    classes: list[ClassShots]
    confused: list[Confused]
    missed: list[Confused]
    classes_note: str
    note: str


@dataclass(frozen=True)
class WithoutImages:
    """Scores of which no single image is known: older ones, or without the files beside them.

    Attributes:
        names: What was scored on what.
    """

    names: list[str]


def make_close_ups(
    scored: Sequence[Scored], *, pictures: bool = True
) -> tuple[list[CloseUps], WithoutImages]:
    """Show single images: for each benchmark of the first student, or else of what there is.

    Args:
        scored: All scores of the page.
        pictures: Whether any are drawn, or what is taken for what is only told.

    Returns:
        Close-ups, one for each benchmark and split; and the scores that know of no single image.

    Raises:
        DataError: If a file beside the scores is missing or damaged.
    """
    chosen: dict[tuple[str, str], tuple[Scored, ImageFiles]] = {}
    for each in sorted(scored, key=lambda each: subject_order(each.scores.subject)):
        protocol = each.scores.protocol
        if (files := each.scores.find_images(each.folder)) is not None:
            chosen.setdefault((protocol.benchmark, protocol.split), (each, files))
    older = [each.scores for each in scored if each.scores.find_images(each.folder) is None]
    names = dict.fromkeys(
        f"{own.subject.name} on {own.protocol.benchmark} {own.protocol.split}" for own in older
    )
    budget = MAX_CLOSE_UP_BYTES // max(1, len(chosen)) if pictures else 0
    shown = [_close_ups(each, files, budget) for each, files in chosen.values()]
    return shown, WithoutImages(list(names))


def _close_ups(scored: Scored, files: ImageFiles, budget: int) -> CloseUps:
    scores = scored.scores
    names = scores.protocol.class_names
    counts = read_counts(scored.folder / files.counts, len(names))
    wanted = budget > 0 and files.pictures
    drawer = _Drawer(
        scores, counts, read_pictures(scored.folder / files.pictures) if wanted else {}
    )
    background = scores.protocol.background
    matrix = counts.matrix(len(names))
    pairs = confused_labels(matrix, _PAIRS, background=False if background else None)
    misses = confused_labels(matrix, _MISSES, background=True) if background else []
    drawer.choose_side([*pairs, *misses], budget)
    shown = len(drawer.shown)
    lowest = f"The {shown} of {drawer.occurring:,} classes with the lowest IoU. "
    return CloseUps(
        title=f"{scores.protocol.benchmark}, {scores.protocol.split}",
        subject=scores.subject.name,
        classes=drawer.classes(),
        confused=[drawer.confused(*pair) for pair in pairs],
        missed=[drawer.confused(*pair) for pair in misses],
        classes_note=lowest if shown < drawer.occurring else "",
        note="" if files.pictures else "No pictures were kept: num_examples was 0.",
    )


_Ends = tuple[list[tuple[str, float]], list[tuple[str, float]]]
"""Names and IoUs of the best and of the worst images."""


class _Drawer:
    """Draws the kept pictures of one subject on one benchmark."""

    def __init__(self, scores: Scores, counts: ImageCounts, kept: dict[str, KeptPicture]) -> None:
        self._names = scores.protocol.class_names
        self._background = scores.protocol.background
        self._ious = [row.iou for row in scores.classes]
        self._counts, self._kept = counts, kept
        self._decoded = cache(self._decode)
        self._side = _SIDES[0]
        first = 1 if self._background else 0
        occurring = [k for k in range(first, len(self._names)) if self._ious[k] is not None]
        occurring.sort(key=lambda k: (self._ious[k], self._names[k]))
        self.occurring = len(occurring)
        self.shown = occurring[:_MAX_CLASSES]
        of_images = counts.ious(len(self._names))
        each = max(1, min(_EACH, _MAX_SHOTS // max(1, 2 * len(self.shown))))
        self._ends: dict[int, _Ends] = {
            k: pick_ends(of_images, counts, set(kept), k, each) for k in self.shown
        }

    def choose_side(self, pairs: Sequence[tuple[int, int, float]], budget: int) -> None:
        """Make the pictures as large as they can be within so many bytes, by drawing a few."""
        keys = [key for ends in self._ends.values() for end in ends for key, _ in end]
        total = len(keys) + len(pairs)
        tried = [self._decoded(key) for key in keys[:: max(1, len(keys) // _TRIED)]]
        for self._side in _SIDES if tried else ():
            shots = [draw_shot(each, self._side, "") for each in tried]
            taken = sum(len(shown.uri) for shot in shots for shown in shot.pictures)
            if taken * total / len(tried) <= budget:
                break

    def classes(self) -> list[ClassShots]:
        return [self._class(k, is_open=place < _OPEN) for place, k in enumerate(self.shown)]

    def confused(self, true: int, found: int, share: float) -> Confused:
        example = most_confused(self._counts, list(self._kept), true, found)
        shot = None
        if example is not None:
            key, pixels = example
            part = crop_shot(self._decoded(key), self._shown(true), self._shown(found))
            if part is not None:
                shot = draw_shot(part, self._side, f"{key}, {pixels:,} pixels")
        return Confused(
            words=self._words(true, found),
            share=f"{100 * share:.1f}",
            shot=shot,
            chips=[
                ClassChip(self._names[k], css_colour(self._shown(k)))
                for k in (true, found)
                if not (self._background and k == 0)
            ],
        )

    def _words(self, true: int, found: int) -> str:
        if self._background and found == 0:
            return f"{self._names[true]} missed"
        if self._background and true == 0:
            return f"background taken for {self._names[found]}"
        return f"{self._names[true]} taken for {self._names[found]}"

    def _class(self, label: int, *, is_open: bool) -> ClassShots:
        best, worst = (
            [
                draw_shot(self._decoded(key), self._side, f"{key}, IoU {100 * iou:.1f}")
                for key, iou in end
            ]
            for end in self._ends[label]
        )
        iou = self._ious[label] or 0.0
        return ClassShots(
            name=self._names[label],
            colour=css_colour(self._shown(label)),
            iou=f"{100 * iou:.1f}",
            width=round(100 * iou, 1),
            best=best,
            worst=worst,
            is_open=is_open,
        )

    def _shown(self, label: int) -> int:
        """A label as the pictures have it."""
        return label if self._background else label + 1

    def _decode(self, key: str) -> DecodedShot:
        return decode_shot(
            self._kept[key], num_classes=len(self._names), background=self._background
        )


def mean_of_images(counts: ImageCounts, num_classes: int) -> dict[str, float]:
    """The mean IoU of the classes that occur in each image, by its name."""
    found = counts.ious(num_classes)
    totals = np.zeros(len(counts.keys))
    numbers = np.zeros(len(counts.keys))
    np.add.at(totals, found.image, found.iou)
    np.add.at(numbers, found.image, 1)
    return dict(zip(counts.keys, (totals / np.maximum(1, numbers)).tolist(), strict=True))
