"""Category random sampling: for each image a few class names, its own among them.

MagicSeg (arXiv 2603.19575) trains every image against m of the vocabulary's N names, the image's
own first and the others drawn afresh for each image, because m = N neither fits nor helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int16, UInt16, UInt64

from storage.errors import DataError
from storage.records import IGNORE_LABEL

BACKGROUND = -1
"""Target of a pixel that shows none of the image's classes: a negative for every query."""
IGNORE = -2
"""Target of a pixel about which nothing is known, padding included."""

_OTHER = np.uint64(1 << 62)
_EXCLUDED = np.uint64(1 << 63)
_LEFT_OUT = np.uint64(3 << 62)


@dataclass(frozen=True)
class Subsets:
    """The names that a batch is trained against.

    Attributes:
        class_ids: Vocabulary indices, (batch, m); an image's own classes come first.
        active: Whether a name may teach the image anything, (batch, m); excluded names that had
            to fill the subset are not active.
    """

    class_ids: Int[np.ndarray, "batch m"]
    active: Bool[np.ndarray, "batch m"]


def sample_subsets(
    own: Sequence[Sequence[int]],
    num_classes: int,
    size: int,
    seeds: UInt64[np.ndarray, " batch"],
    excluded: Sequence[Sequence[int]] | None = None,
    left_out: Sequence[int] = (),
) -> Subsets:
    """Draw each image's names without replacement, for the whole batch at once.

    Every (seed, class) pair gets a random key; own classes have the lowest keys, excluded ones the
    highest, and the `size` lowest are taken in order. A subset therefore depends on its image's
    seed alone. If an image has more own classes than `size`, some of them are drawn.

    Args:
        own: Vocabulary indices of each image's classes.
        num_classes: Size N of the vocabulary.
        size: Names an image, m; capped at N.
        seeds: One seed an image.
        excluded: Indices that must not be negatives of the image, see `training.negatives`.
        left_out: Indices that are never drawn, own or not.
    """
    size = min(size, num_classes - len(left_out))
    keys = _keys(seeds, num_classes)  # (batch, N)
    # The two highest bits say own, other, excluded or left out, the others are drawn.
    rank = np.full(keys.shape, _OTHER)
    if excluded is not None:
        _mark(rank, excluded, _EXCLUDED)
    _mark(rank, own, np.uint64(0))
    rank[:, list(left_out)] = _LEFT_OUT
    keys = (keys >> np.uint64(2)) | rank
    if size < num_classes:
        ids = np.argpartition(keys, size - 1, axis=1)[:, :size]
    else:
        ids = np.broadcast_to(np.arange(num_classes), keys.shape)
    # ids holds the `size` lowest keys of each image in any order: (batch, size).
    order = np.argsort(np.take_along_axis(keys, ids, axis=1), axis=1)
    ids = np.take_along_axis(ids, order, axis=1)
    return Subsets(ids, np.take_along_axis(rank, ids, axis=1) != _EXCLUDED)


def remap(
    labels: UInt16[np.ndarray, "height width"],
    class_ids: Int[np.ndarray, " m"],
    num_classes: int,
    out: Int16[np.ndarray, "height width"],
) -> Bool[np.ndarray, " m"]:
    """Turn the stored labels of an image into positions of its subset.

    Args:
        labels: Class index plus one, 0 for background, 65535 for ignored pixels.
        class_ids: The image's names.
        num_classes: Size N of the vocabulary.
        out: Gets the position in the subset, `BACKGROUND` or `IGNORE`. A class outside the subset
            is background for all names in it.

    Returns:
        Which names have a pixel.

    Raises:
        DataError: If a label names no class of the vocabulary.
    """
    shown = _distinct(labels)
    unknown = shown[(shown > num_classes) & (shown != IGNORE_LABEL)]
    if len(unknown):
        message = (
            f"a mask holds the label {unknown.max()}, expected at most {num_classes}, the size of "
            "the vocabulary: verify the shards, or name their vocabulary"
        )
        raise DataError(message)
    table = np.full(IGNORE_LABEL + 1, BACKGROUND, np.int16)  # of every label that 16 bits can hold
    table[IGNORE_LABEL] = IGNORE
    table[class_ids + 1] = np.arange(len(class_ids), dtype=np.int16)
    np.take(table, labels, out=out, mode="wrap")  # without a buffer; no label is out of bounds
    is_shown = np.zeros(IGNORE_LABEL + 1, np.bool_)
    is_shown[shown] = True
    return is_shown[class_ids + 1]


def _distinct(labels: UInt16[np.ndarray, "height width"]) -> UInt16[np.ndarray, " found"]:
    """The labels of a map, by looking at the beginnings of runs alone."""
    flat = labels.ravel()
    begins = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.unique(np.append(flat[begins], flat[:1]))


def _mark(rank: np.ndarray, ids: Sequence[Sequence[int]], value: np.uint64) -> None:
    rows = np.repeat(np.arange(len(ids)), [len(own) for own in ids])
    columns = np.fromiter((i for own in ids for i in own), np.int64, len(rows))
    rank[rows, columns] = value


def _keys(seeds: UInt64[np.ndarray, " batch"], num_classes: int) -> UInt64[np.ndarray, "batch n"]:
    """Random 64-bit keys of all (seed, class) pairs, by the finaliser of SplitMix64.

    A hash needs no generator an image, and gives the same keys in every version of numpy.
    """
    with np.errstate(over="ignore"):
        # The state of seed s after k steps is s + k * 0x9E37...: all of them at once.
        step = np.arange(1, num_classes + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        keys = seeds[:, None] + step  # (batch, 1) + (N,) -> (batch, N)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return keys ^ (keys >> np.uint64(31))
