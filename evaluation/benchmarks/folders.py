"""Images with label maps, file by file: what the readers of benchmarks have in common.

A reader brings the names of the images, a `Layout` that finds files and decodes labels, and an
`Origin` that says what it reads; `LabelledImages` makes a benchmark of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from evaluation.benchmarks.contract import BenchmarkConfig, BenchmarkSample
from evaluation.benchmarks.label_files import Labels, checked_labels, read_indices
from evaluation.benchmarks.near_misses import exists, is_file, labels_hint, lists_hint
from evaluation.benchmarks.split_files import (
    coverage_words,
    describe_files,
    first_file,
    picture_file,
    read_file,
    read_image,
    read_text,
    require_files,
    spread,
)
from evaluation.benchmarks.split_lists import listed_names
from storage.class_sets import BenchmarkClasses
from storage.errors import DataError, InputError
from storage.picture_headers import read_header
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL

__all__ = [
    "LabelFiles",
    "LabelledImages",
    "Labels",
    "Layout",
    "Origin",
    "checked_labels",
    "read_indices",
]

_PUBLISHED_SPLIT = "val"


@dataclass(frozen=True)
class Origin:
    """Where a benchmark comes from.

    Attributes:
        where_to_get: Where to get its files and where to put them, as part of a sentence.
        truth: How its label maps are made; printed beside every number.
        published_as: Its name in the tables of published results; empty if it is in none.
        published_sizes: Numbers of images that its split `val` has by the sources known.
    """

    where_to_get: str
    truth: str
    published_as: str = ""
    published_sizes: tuple[int, ...] = ()


@runtime_checkable
class Layout(Protocol):
    """Where the files of an image lie, and what its labels are."""

    def image(self, key: str) -> Path:
        """The image's file."""
        ...

    def label_file(self, key: str) -> Path:
        """The file that holds its labels."""
        ...

    def labels(self, key: str) -> Labels:
        """Its labels: 0 background, k + 1 for class k, `IGNORE_LABEL` for ignored pixels.

        Raises:
            InputError: If the file is missing.
            DataError: If the file is damaged or holds a label that is not a class.
        """
        ...

    def candidates(self, key: str) -> tuple[int, ...] | None:
        """The classes that may be predicted in it, as `BenchmarkSample` has them."""
        ...


@dataclass(frozen=True)
class LabelFiles:
    """A layout with a file of labels for each image.

    Attributes:
        image_folder: Holds ``<key>.jpg``, or with another ending of JPEG and PNG files.
        label_folder: Holds ``<key>`` with ``label_suffix`` behind it.
        decode: Reads labels as `Layout.labels` describes them from such a file.
        label_suffix: End of the label files' names.
        more_labels: Folder in which a label is looked for that is not in the first one.
    """

    image_folder: Path
    label_folder: Path
    decode: Callable[[Path], Labels]
    label_suffix: str = ".png"
    more_labels: Path | None = None

    def image(self, key: str) -> Path:
        """The image's file."""
        return picture_file(self.image_folder, key)

    def label_file(self, key: str) -> Path:
        """The file that holds its labels."""
        plain = self.label_folder / f"{key}{self.label_suffix}"
        others = [
            plain.with_name(f"{plain.name[: -len(self.label_suffix)]}{self.label_suffix.upper()}")
        ]
        if self.more_labels is not None:
            others.append(self.more_labels / f"{key}{self.label_suffix}")
        return first_file(plain, others)

    def has(self, key: str) -> bool:
        """Whether there is an image or a label of this name."""
        return is_file(self.image(key)) or is_file(self.label_file(key))

    def labels(self, key: str) -> Labels:
        """Its labels."""
        return self.decode(self.label_file(key))

    def candidates(self, key: str) -> None:
        """All classes."""


class LabelledImages:
    """A benchmark made of a list of images and a layout.

    Args:
        config: Split and number of images.
        classes: What is scored.
        keys: Names of the images of the split.
        layout: Finds and decodes them.
        origin: Where they come from.
    """

    def __init__(
        self,
        config: BenchmarkConfig,
        classes: BenchmarkClasses,
        keys: Sequence[str],
        layout: Layout,
        origin: Origin,
    ) -> None:
        self._split = config.split
        self._classes = classes
        self._origin = origin
        self._layout = layout
        whole = len(keys) in origin.published_sizes and config.split == _PUBLISHED_SPLIT
        there = [key for key in keys if self._has(key)] if config.available else keys
        self._coverage = coverage_words(len(there), len(keys)) if config.available else ""
        self._keys = spread(there or keys, config.limit)  # of none, the missing ones are named
        self._published = whole and len(self._keys) == len(keys)

    @property
    def split(self) -> str:
        """Which part of the benchmark this is."""
        return self._split

    @property
    def classes(self) -> BenchmarkClasses:
        """What is scored."""
        return self._classes

    @property
    def truth(self) -> str:
        """How the label maps are made, and of how many images if some are not there."""
        return "; ".join(part for part in (self._origin.truth, self._coverage) if part)

    @property
    def published_as(self) -> str:
        """Its name in the tables of published results, for the whole split that they are about.

        The split is known by its name and its number of images. What the MagicSeg paper (arXiv
        2603.19575) leaves open is not settled by it: the paper names data sets, not class sets or
        image lists, and its tables collect numbers of several protocols. Section 4.1 says that all
        its sets count background as a class, so that its numbers stand beside the sets with
        background alone; a set without has a name of its own.
        """
        return self._origin.published_as if self._published else ""

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[BenchmarkSample]:
        """Read the images in the order of the list.

        Raises:
            InputError: If a file is missing.
            DataError: If a file cannot be decoded, is of the wrong kind or size, or holds a label
                that is not a class.
        """
        for key in self._keys:
            yield self.sample(key)

    @property
    def keys(self) -> Sequence[str]:
        """Names of the images, in order."""
        return self._keys

    def image_bytes(self, key: str) -> bytes:
        """What the file of an image holds.

        Raises:
            InputError: If it is missing.
            DataError: If it cannot be read.
        """
        return read_file(self._layout.image(key), self._origin.where_to_get, "an image")

    def sample(self, key: str) -> BenchmarkSample:
        """Read one image; raises as reading all of them does."""
        pixels = read_image(self._layout.image(key), self._origin.where_to_get)
        labels = self._layout.labels(key)
        if labels.shape != pixels.shape[:2]:
            raise self._unequal(key, labels.shape, pixels.shape[:2])
        return BenchmarkSample(
            key=key,
            image=pixels,
            labels=_as_scored(labels, background=self._classes.background),
            candidates=self._layout.candidates(key),
        )

    def _unequal(self, key: str, found: tuple[int, ...], expected: tuple[int, ...]) -> DataError:
        """Say that an image and its labels differ in size, and what may have come over them."""
        (rows, columns), (height, width) = found, expected
        way_out = "fetch both again"
        if (columns, rows) == (height, width):
            way_out = "width and height are exchanged, save the labels as they lie on the image"
            image = self._layout.image(key)
            if read_header(image.read_bytes(), str(image)).size != (width, height):
                way_out = (
                    f"{image} is stored as {columns} x {rows} pixels and its EXIF data turn it; "
                    "turn the labels too, or take the orientation out of the image"
                )
        message = (
            f"{self._layout.label_file(key)} gives {key} labels of {columns} x {rows} pixels, "
            f"expected {width} x {height} as its image: {way_out}"
        )
        return DataError(message)

    @property
    def coverage(self) -> str:
        """How many of the images are there, if some are not and that was asked for."""
        return self._coverage

    def _has(self, key: str) -> bool:
        return is_file(self._layout.image(key)) and is_file(self._layout.label_file(key))

    def missing_files(self) -> list[Path]:
        """The images and label files of the split that are not there."""
        return [path for path in dict.fromkeys(self._files()) if not is_file(path)]

    def contents(self) -> str:
        """Digest of the names and sizes of the split's files."""
        return describe_files(self._keys, self._files())

    def _files(self) -> list[Path]:
        return [
            path
            for key in self._keys
            for path in (self._layout.image(key), self._layout.label_file(key))
        ]

    def check(self) -> None:
        """Refuse a split that is not whole.

        Raises:
            InputError: Naming the first missing files, their number and where to get them.
        """
        require_files(self.missing_files(), self.split, self._origin.where_to_get)


def read_list(path: Path, where_to_get: str, layout: LabelFiles) -> list[str]:
    """Read the names of a split's images, as `evaluation.benchmarks.split_lists` describes it.

    Args:
        path: The list.
        where_to_get: Where to get it, as part of a sentence.
        layout: Where the files of an image lie, which decides what a line means.

    Raises:
        InputError: If the file is missing or names no image.
        DataError: If it cannot be read, or names an image twice.
    """
    if not exists(path):
        hint = lists_hint(path) or labels_hint(path, layout.label_folder)
        message = f"{path} is missing, expected a list of image names; {hint or where_to_get}"
        raise InputError(message)
    text = read_text(path, where_to_get, "a list of image names")
    folders = (layout.image_folder.name, layout.label_folder.name)
    return listed_names(text, str(path), layout.has, folders)


def _as_scored(labels: Labels, *, background: bool) -> Labels:
    """Labels as the class set counts them: without background they move down by one."""
    if background:
        return labels
    kept = (labels != BACKGROUND_LABEL) & (labels != IGNORE_LABEL)
    return np.where(kept, labels - 1, np.uint16(IGNORE_LABEL))
