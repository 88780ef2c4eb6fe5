"""Shots: single images of scores, in small, with the truth and what was predicted.

A few of each class, the best and the worst, and of what is taken for what.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from evaluation.reports.gallery import Picture, picture
from evaluation.reports.sheets import overlay, resized
from evaluation.scoring.image_counts import ImageCounts, ImageIous
from evaluation.scoring.kept_pictures import KeptPicture
from storage.codecs import decode_image, decode_label_map
from storage.errors import DataError
from storage.records import IGNORE_LABEL

QUALITY = 72
"""JPEG quality of pictures of which a page has hundreds."""

_MARGIN = 0.35
_LEAST_CROP = 24


@dataclass(frozen=True)
class Shot:
    """One image.

    Attributes:
        pictures: The image, the truth over it, and the prediction over it.
        caption: Its name and how well it went.
    """

    pictures: list[Picture]
    caption: str


@dataclass(frozen=True)
class DecodedShot:
    """A kept picture, decoded; labels with 0 as background, whether the class set has one or not.

    Attributes:
        key: Name of the image.
        image: RGB.
        truth: True labels.
        found: Predicted labels.
    """

    key: str
    image: UInt8[np.ndarray, "height width 3"]
    truth: Integer[np.ndarray, "height width"]
    found: Integer[np.ndarray, "height width"]


def decode_shot(kept: KeptPicture, *, num_classes: int, background: bool) -> DecodedShot:
    """Decode a kept picture.

    Raises:
        DataError: If it is damaged, or its label maps do not fit it or the classes.
    """
    image = decode_image(kept.image, name=f"the picture of {kept.key}")
    maps = []
    for data, what in ((kept.truth, "truth"), (kept.prediction, "prediction")):
        labels = decode_label_map(data, name=f"the {what} of {kept.key}")
        wrong = labels[(labels >= num_classes) & (labels != IGNORE_LABEL)]
        if labels.shape != image.shape[:2] or wrong.size:
            message = (
                f"the {what} of {kept.key} does not fit its picture or its {num_classes} classes: "
                "evaluate again"
            )
            raise DataError(message)
        shown = labels if background else np.where(labels == IGNORE_LABEL, labels, labels + 1)
        maps.append(shown)
    return DecodedShot(kept.key, image, *maps)


def draw_shot(shot: DecodedShot, side: int, caption: str) -> Shot:
    """Show an image with its truth and its prediction, each of at most `side` pixels."""
    shot = _shrunk(shot, side)
    return Shot(
        [
            picture(shot.image, side, shot.key, "image", quality=QUALITY),
            _over(shot, shot.truth, side, "truth"),
            _over(shot, shot.found, side, "prediction"),
        ],
        caption,
    )


def crop_shot(shot: DecodedShot, true: int, found: int) -> DecodedShot | None:
    """Cut out the part of an image where one label was taken for another.

    Args:
        shot: The image.
        true: The true label as the shot has it.
        found: The predicted one.

    Returns:
        The part with some margin; None if the picture is too small to show any such pixel.
    """
    rows, columns = np.nonzero((shot.truth == true) & (shot.found == found))
    if not rows.size:
        return None
    parts = tuple(
        _around(int(place.min()), int(place.max()) + 1, size)
        for place, size in zip((rows, columns), shot.truth.shape, strict=True)
    )
    return DecodedShot(shot.key, shot.image[parts], shot.truth[parts], shot.found[parts])


def pick_ends(
    ious: ImageIous, counts: ImageCounts, kept: set[str], label: int, each: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The best and the worst images of a class among the kept ones.

    Args:
        ious: Of all images.
        counts: Where their names are.
        kept: Names of the images of which there is a picture.
        label: The class.
        each: Most images of either.

    Returns:
        Name and IoU, best first; name and IoU, worst first. No image is in both.
    """
    own = np.flatnonzero(ious.label == label)
    rows = [
        (counts.keys[image], iou, union)
        for image, iou, union in zip(
            ious.image[own].tolist(), ious.iou[own].tolist(), ious.union[own].tolist(), strict=True
        )
        if counts.keys[image] in kept
    ]
    rows.sort(key=lambda row: (-row[1], -row[2], row[0]))
    best = rows[: min(each, (len(rows) + 1) // 2)]
    worst = sorted(rows[len(best) :], key=lambda row: (row[1], -row[2], row[0]))[:each]
    return [(key, iou) for key, iou, _ in best], [(key, iou) for key, iou, _ in worst]


def most_confused(
    counts: ImageCounts, kept: Sequence[str], true: int, found: int
) -> tuple[str, int] | None:
    """The kept image with most pixels of one label taken for another, and how many; None if none.

    Args:
        counts: Of all images.
        kept: Names of the images of which there is a picture.
        true: The true label, in scoring order.
        found: The predicted one.
    """
    own = np.flatnonzero((counts.truth == true) & (counts.found == found))
    places = set(kept)
    rows = [
        (pixels, counts.keys[image])
        for image, pixels in zip(
            counts.image[own].tolist(), counts.pixels[own].tolist(), strict=True
        )
        if counts.keys[image] in places
    ]
    if not rows:
        return None
    pixels, key = max(rows, key=lambda row: (row[0], row[1]))
    return key, pixels


def confused_labels(
    matrix: Int64[np.ndarray, "true predicted"], most: int, *, background: bool | None
) -> list[tuple[int, int, float]]:
    """What is taken for what, by the share of the true label's pixels, the largest first.

    Args:
        matrix: The confusion matrix.
        most: Most pairs.
        background: False for pairs of classes alone, True for those with label 0 alone, None for
            class sets without a background.
    """
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    np.fill_diagonal(shares, 0)
    if background is not None:
        zero = np.zeros_like(shares, dtype=bool)
        zero[0], zero[:, 0] = True, True
        shares[zero != background] = 0
    order = np.argsort(-shares, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, shares.shape), strict=True)
    return [(int(t), int(f), float(shares[t, f])) for t, f in pairs if shares[t, f] > 0]


def _shrunk(shot: DecodedShot, side: int) -> DecodedShot:
    """A shot of at most so many pixels, so that masks are laid over few of them."""
    height, width = shot.truth.shape
    if max(height, width) <= side:
        return shot
    image = np.asarray(resized(shot.image, side))
    rows = ((np.arange(image.shape[0]) + 0.5) * height / image.shape[0]).astype(np.intp)
    columns = ((np.arange(image.shape[1]) + 0.5) * width / image.shape[1]).astype(np.intp)
    places = np.ix_(rows, columns)
    return DecodedShot(shot.key, image, shot.truth[places], shot.found[places])


def _over(shot: DecodedShot, labels: np.ndarray, side: int, what: str) -> Picture:
    return picture(
        overlay(shot.image, labels), side, f"{what} of {shot.key}", what, quality=QUALITY
    )


def _around(start: int, stop: int, size: int) -> slice:
    """A range with a margin, inside the picture."""
    wanted = max(_LEAST_CROP, round((stop - start) * (1 + 2 * _MARGIN)))
    middle = (start + stop) // 2
    first = max(0, min(middle - wanted // 2, size - wanted))
    return slice(first, min(size, first + wanted))
