"""Slices: named parts of a vocabulary, planned, run and extended on their own."""

import re
from collections import Counter
from typing import Self

from pydantic import Field

from storage.class_sets import load_benchmark
from storage.errors import InputError
from storage.identity import digest
from storage.records import Record
from storage.vocabulary import Vocabulary

__all__ = ["Slice", "resolve_slice"]

_RANGE = re.compile(r"(\d+):(\d+)")

_FREQUENCY = re.compile(r"lvis-([rcf])")

_NAMED_SLICES = ("voc20", "context59", "coco80")

SLICE_NAMES = ("all", *_NAMED_SLICES, "lvis-r", "lvis-c", "lvis-f")
"""The slices that have a name."""


class Slice(Record, frozen=True):
    """A named part of a vocabulary, which is planned, run and extended on its own."""

    slice_id: str = Field(pattern=r"^[0-9a-f]{8}$")
    """Begins the names of shards and the keys of samples. Two datasets of one slice have different
    ones; outside a dataset, and in one of scheme 1, it is the `classes_id`."""
    classes_id: str = Field(pattern=r"^[0-9a-f]{8}$")
    """Stands for the vocabulary's contents and the classes, however they were asked for: orders and
    seeds are drawn from it, so that datasets can be compared sample by sample."""
    class_ids: tuple[int, ...] = Field(min_length=1)
    """Vocabulary indices, ascending."""
    label: str
    """What people call it."""
    absent: tuple[str, ...] = ()
    """Classes of the benchmark that the slice is named after which the vocabulary does not have."""

    def of_dataset(self, dataset_id: str) -> Self:
        """The same classes under the names that they have in a dataset.

        Args:
            dataset_id: Stands for the dataset.
        """
        slice_id = slice_id_of(dataset_id, self.classes_id)
        return self.model_copy(update={"slice_id": slice_id})


def slice_id_of(dataset_id: str, classes_id: str) -> str:
    """Name a slice of a dataset, in 8 hex digits.

    Args:
        dataset_id: Stands for the dataset.
        classes_id: Stands for the classes.
    """
    return digest([dataset_id, classes_id])[:8]


def resolve_slice(vocabulary: Vocabulary, text: str) -> Slice:
    """Find the classes that a slice's text means.

    Args:
        vocabulary: Where to look.
        text: ``all``; ``lvis-r``, ``lvis-c`` or ``lvis-f`` (rare, common, frequent); ``voc20``,
            ``context59`` or ``coco80`` (the classes of the benchmark that the vocabulary has); a
            half-open range of ids such as ``0:100``; or class names between commas.

    Raises:
        InputError: If the text means no class, an unknown, an ambiguous or a doubled one, or
            classes outside the vocabulary.
    """
    wanted = text.strip()
    span, frequency = _RANGE.fullmatch(wanted), _FREQUENCY.fullmatch(wanted)
    if wanted == "all":
        ids = list(range(len(vocabulary)))
    elif span is not None:
        ids = _range_ids(vocabulary, int(span[1]), int(span[2]))
    elif frequency is not None:
        ids = [record.class_id for record in vocabulary if record.frequency == frequency[1]]
    elif wanted in _NAMED_SLICES:
        ids = _benchmark_ids(vocabulary, wanted)
    else:
        ids = _listed_ids(vocabulary, wanted)
    if not ids:
        message = f'slice "{wanted}" holds no class of {vocabulary.name}: {_ways(vocabulary)}'
        raise InputError(message)
    name = digest([vocabulary.digest, ids])[:8]
    absent = _absent(wanted) if wanted in _NAMED_SLICES else ()
    return Slice(slice_id=name, classes_id=name, class_ids=tuple(ids), label=wanted, absent=absent)


def _range_ids(vocabulary: Vocabulary, start: int, stop: int) -> list[int]:
    if not start < stop <= len(vocabulary):
        message = (
            f'slice "{start}:{stop}" is out of bounds or empty: expected start < stop <= '
            f"{len(vocabulary)}, the number of classes of vocabulary {vocabulary.name}"
        )
        raise InputError(message)
    return list(range(start, stop))


def _benchmark_ids(vocabulary: Vocabulary, name: str) -> list[int]:
    benchmark = load_benchmark(name)
    if benchmark.vocabulary != vocabulary.name:
        return []
    return sorted({class_id for class_id in benchmark.class_ids if class_id is not None})


def _absent(name: str) -> tuple[str, ...]:
    benchmark = load_benchmark(name)
    pairs = zip(benchmark.names, benchmark.class_ids, strict=True)
    return tuple(official for official, class_id in pairs if class_id is None)


def _listed_ids(vocabulary: Vocabulary, text: str) -> list[int]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        message = f'slice "{text}" holds an empty class name: {_ways(vocabulary)}'
        raise InputError(message)
    ids = [vocabulary.by_name(name).class_id for name in names]
    doubled = [vocabulary[i].name for i, count in sorted(Counter(ids).items()) if count > 1]
    if doubled:
        message = f'slice "{text}" names a class twice: {", ".join(doubled)}; name each one once'
        raise InputError(message)
    return sorted(ids)


def _ways(vocabulary: Vocabulary) -> str:
    return (
        f"write all, lvis-r, lvis-c, lvis-f, {', '.join(_NAMED_SLICES)}, a range such as "
        f"0:{len(vocabulary)}, or class names between commas"
    )
