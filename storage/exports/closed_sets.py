"""Closed sets: the few classes that an ordinary segmenter is trained on, background among them.

Its label maps are 8 bits wide: 0 is background, k + 1 the k-th class of the set, 255 is ignored.
A class of the vocabulary that is outside the set is background, since a closed-set benchmark labels
its pixels so too.
"""

from functools import cached_property

import numpy as np
from jaxtyping import UInt8, UInt16
from pydantic import Field

from storage.class_sets import load_benchmark
from storage.errors import DataError, InputError
from storage.records import IGNORE_LABEL, Record
from storage.vocabulary import Vocabulary, load_vocabulary

__all__ = ["ClosedSet", "resolve_closed_set"]

CLOSED_IGNORE = 255
MAX_CLASSES = 254

_BENCHMARKS = ("voc20", "coco80", "coco_stuff", "cityscapes", "context59", "miniature")


class ClosedSet(Record, frozen=True):
    """Classes in the order of their labels."""

    name: str
    """What people call it."""
    vocabulary: str
    """The vocabulary that ``class_ids`` index."""
    names: tuple[str, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    """Names without the background; label k stands for the name k - 1."""
    class_ids: tuple[int | None, ...]
    """For each name the class of the vocabulary, None where it has none: such a class has a label
    of its own that no pixel ever gets."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each label, background first."""
        return ("background", *self.names)

    def encode(
        self, labels: UInt16[np.ndarray, "height width"]
    ) -> UInt8[np.ndarray, "height width"]:
        """Turn a label map of the vocabulary into one of this set.

        Args:
            labels: ``class_id + 1``; 0 background, 65535 ignored.

        Returns:
            0 for background and for classes outside the set, 255 for ignored pixels.

        Raises:
            DataError: If a label is not a class of the vocabulary.
        """
        known = (labels < len(self._table)) | (labels == IGNORE_LABEL)
        if not known.all():
            message = (
                f"label map holds {labels[~known].max()}, expected at most {len(self._table) - 1} "
                f"or {IGNORE_LABEL}: verify the dataset"
            )
            raise DataError(message)
        inside = self._table[np.minimum(labels, len(self._table) - 1)]
        return np.where(labels == IGNORE_LABEL, np.uint8(CLOSED_IGNORE), inside)

    @cached_property
    def _table(self) -> UInt8[np.ndarray, "labels"]:
        """The closed label of each label of the vocabulary."""
        table = np.zeros(len(load_vocabulary(self.vocabulary)) + 1, np.uint8)
        for position, class_id in enumerate(self.class_ids):
            if class_id is not None:
                table[class_id + 1] = position + 1
        return table


def resolve_closed_set(vocabulary: Vocabulary, text: str) -> ClosedSet:
    """Find the classes that a text means, in the order of their labels.

    Args:
        vocabulary: Where the classes come from.
        text: voc20, coco80, coco_stuff, cityscapes, context59 or miniature (the benchmark's own
            order), or class names between commas.

    Raises:
        InputError: If the text means no class, an unknown, an ambiguous or a doubled one, more than
            fit into 8-bit labels, or a benchmark that has another vocabulary.
    """
    wanted = text.strip()
    if wanted in _BENCHMARKS:
        benchmark = load_benchmark(wanted)
        if benchmark.vocabulary != vocabulary.name:
            message = (
                f"classes {wanted} belong to vocabulary {benchmark.vocabulary}, the dataset has "
                f"{vocabulary.name}: choose other classes or another dataset"
            )
            raise InputError(message)
        names, ids = benchmark.names, benchmark.class_ids
    else:
        records = [vocabulary.by_name(name.strip()) for name in wanted.split(",")]
        names, ids = tuple(r.name for r in records), tuple(r.class_id for r in records)
    known = [class_id for class_id in ids if class_id is not None]
    if len(set(known)) < len(known):
        message = f"classes {wanted!r} name a class twice: a pixel can have one label only"
        raise InputError(message)
    if len(names) > MAX_CLASSES:
        message = (
            f"{len(names)} classes, expected at most {MAX_CLASSES}: with background and "
            f"{CLOSED_IGNORE} for ignored pixels no more fit into 8-bit labels, choose a subset"
        )
        raise InputError(message)
    return ClosedSet(name=wanted, vocabulary=vocabulary.name, names=names, class_ids=ids)
