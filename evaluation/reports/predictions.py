"""Predictions: kept images with their truth and what each kind of subject made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.reports.boards import Scored
from evaluation.reports.gallery import ClassChip, Picture, css_colour, picture
from evaluation.reports.series import subject_order
from evaluation.reports.sheets import overlay
from evaluation.scoring.results import Example
from storage.codecs import decode_image, decode_label_map
from storage.errors import DataError
from storage.records import IGNORE_LABEL


@dataclass(frozen=True)
class Prediction:
    """One image with its truth and every kind's prediction.

    Attributes:
        pictures: In this order.
        caption: The image's name.
    """

    pictures: list[Picture]
    caption: str


def make_predictions(
    scored: Sequence[Scored], side: int
) -> tuple[list[Prediction], list[ClassChip]]:
    """Show the kept images of the first benchmark, with every kind's first prediction.

    Args:
        scored: All scores of the page.
        side: Most pixels of a picture's side.

    Returns:
        One row for each image, and the classes that the rows show.

    Raises:
        DataError: If a file that the scores name is missing or broken.
    """
    if not scored:
        return [], []
    first = scored[0].scores.protocol
    where = (first.benchmark, first.split)
    same = [
        each
        for each in scored
        if (each.scores.protocol.benchmark, each.scores.protocol.split) == where
    ]
    firsts = {subject_order(each.scores.subject): each for each in reversed(same)}
    chosen = [firsts[key] for key in sorted(firsts)]
    names = first.class_names if first.background else ("", *first.class_names)
    seen: set[int] = set()
    rows = []
    for example in chosen[0].scores.examples:
        pictures, labels = example_pictures(chosen, example, side)
        rows.append(Prediction(pictures, example.key))
        seen |= labels
    shown = sorted(seen - {0, IGNORE_LABEL})
    if shown and shown[-1] >= len(names):
        message = (
            f"the label maps beside {chosen[0].folder} hold label {shown[-1]}, expected at most "
            f"{len(names) - 1}: evaluate again"
        )
        raise DataError(message)
    return rows, [ClassChip(names[label], css_colour(label)) for label in shown]


def example_pictures(
    chosen: Sequence[Scored], example: Example, side: int
) -> tuple[list[Picture], set[int]]:
    """An image, its truth, and what each subject made of it; and the labels that they show.

    Args:
        chosen: The scores whose predictions are shown; the first has the image and the truth.
        example: The image as the first names it.
        side: Most pixels of a picture's side.

    Raises:
        DataError: If a file that the scores name is missing or broken.
    """
    folder = chosen[0].folder
    background = chosen[0].scores.protocol.background
    image = decode_image(_file(folder / example.image), name=str(folder / example.image))
    truth = _labels(folder / example.truth, image, background=background)
    pictures = [
        picture(image, side, f"{example.key}", "image"),
        picture(overlay(image, truth), side, f"truth of {example.key}", "truth"),
    ]
    seen = set(np.unique(truth).tolist())
    for each in chosen:
        match = next((e for e in each.scores.examples if e.key == example.key), None)
        if match is not None:
            found = _labels(each.folder / match.prediction, image, background=background)
            caption = each.scores.subject.kind
            alt = f"prediction of {each.scores.subject.name} for {example.key}"
            pictures.append(picture(overlay(image, found), side, alt, caption))
            seen |= set(np.unique(found).tolist())
    return pictures, seen


def _labels(path: Path, image: np.ndarray, *, background: bool) -> np.ndarray:
    """Labels of an image with 0 as background, whether the class set has one or not."""
    labels = decode_label_map(_file(path), name=str(path))
    if labels.shape != image.shape[:2]:
        message = (
            f"{path} has {labels.shape[1]} x {labels.shape[0]} pixels, expected "
            f"{image.shape[1]} x {image.shape[0]} as its image: evaluate again"
        )
        raise DataError(message)
    return labels if background else np.where(labels == IGNORE_LABEL, labels, labels + 1)


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        message = f"{path} is missing, though the scores name it: evaluate again"
        raise DataError(message) from error
