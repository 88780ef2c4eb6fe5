"""Benchmarks: images with true label maps, from the folders that users have on disk.

A benchmark yields labels in the order in which they are scored: with background, 0 is background
and class k of the set is k + 1; without, class k is k and background pixels are ignored. Ignored
pixels are `IGNORE_LABEL`, whatever the files say.

The layout of PASCAL VOC: `JPEGImages/<name>.jpg`, `SegmentationClass/<name>.png` (palette-indexed:
the indices are the labels, 0 is background, 255 is ignored) and
`ImageSets/Segmentation/<split>.txt`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, Field

from storage.errors import DataError, InputError
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL
from storage.vocabulary import BenchmarkClasses, load_benchmark

_VOC_VOID = 255
_MAX_LISTED = 5


@dataclass(frozen=True)
class BenchmarkSample:
    """One image and its truth.

    Attributes:
        key: Name of the image, unique in the split.
        image: RGB.
        labels: True labels at the image's size, as the module describes them.
        candidates: Positions in the class set's names that may be predicted in this image, which
            may be none at all; nothing means that all of them may.
    """

    key: str
    image: UInt8[np.ndarray, "height width 3"]
    labels: UInt16[np.ndarray, "height width"]
    candidates: tuple[int, ...] | None = None


class Benchmark(Protocol):
    """Images with true label maps and the classes that are scored on them."""

    @property
    def split(self) -> str:
        """Which part of the benchmark this is."""
        ...

    @property
    def classes(self) -> BenchmarkClasses:
        """What is scored."""
        ...

    @property
    def published_as(self) -> str:
        """Its name in the tables of published results; empty for a benchmark of our own."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __iter__(self) -> Iterator[BenchmarkSample]:
        """The images, always in the same order."""
        ...

    def missing_files(self) -> list[Path]:
        """The files that the split needs and that are not there."""
        ...

    def check(self) -> None:
        """Refuse a benchmark with missing files, naming them and where they are had."""
        ...


class BenchmarkConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which benchmark is scored and where it lies."""

    name: Literal["voc21", "voc20", "miniature"] = "miniature"
    """`voc21`: PASCAL VOC 2012 with background as a class; `voc20`: the same images, background
    ignored; `miniature`: the drawn world, with background."""
    root: Path
    """The folder that holds `JPEGImages`; for VOC this is `VOCdevkit/VOC2012`."""
    split: str = Field(default="val", pattern=r"^[\w-]+$")
    """Name of the list in `ImageSets/Segmentation`."""
    limit: int | None = Field(default=None, ge=1)
    """Score only so many images, evenly spread over the split; all when empty."""


@dataclass(frozen=True)
class _Source:
    """What is particular about a benchmark in VOC layout."""

    published_as: str
    had_from: str


_VOC_FROM = (
    "PASCAL VOC 2012 is the archive VOCtrainval_11-May-2012.tar of "
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/: unpack it and name its folder "
    "VOCdevkit/VOC2012"
)
_DRAWN_FROM = (
    "the drawn benchmark is written by `python -m models.miniature.benchmark --out FOLDER`"
)
_SOURCES = {
    "voc21": _Source(published_as="PASCAL VOC", had_from=_VOC_FROM),
    # The published tables count background as a class (MagicSeg section 4.1).
    "voc20": _Source(published_as="", had_from=_VOC_FROM),
    "miniature": _Source(published_as="", had_from=_DRAWN_FROM),
}


def scored_names(classes: BenchmarkClasses) -> tuple[str, ...]:
    """The name of each label that is scored, background included."""
    return ("background", *classes.names) if classes.background else classes.names


def open_benchmark(config: BenchmarkConfig) -> Benchmark:
    """Open a benchmark; images are read later, one by one.

    Raises:
        InputError: If the folder or the split's list is not there, or the list is empty.
    """
    return VocFolder(config)


class VocFolder:
    """A benchmark in the layout of PASCAL VOC.

    Args:
        config: Which one, and where.

    Raises:
        InputError: If the folder or the split's list is not there, or the list is empty.
    """

    def __init__(self, config: BenchmarkConfig) -> None:
        self._config = config
        self._source = _SOURCES[config.name]
        self._classes = load_benchmark(config.name)
        self._keys = _spread(self._read_list(), config.limit)

    @property
    def split(self) -> str:
        """Name of the list in `ImageSets/Segmentation`."""
        return self._config.split

    @property
    def classes(self) -> BenchmarkClasses:
        """What is scored."""
        return self._classes

    @property
    def published_as(self) -> str:
        """Its name in the tables of published results, for all images of the split `val`."""
        whole = self._config.split == "val" and self._config.limit is None
        return self._source.published_as if whole else ""

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[BenchmarkSample]:
        """Read the images in the order of the list.

        Raises:
            InputError: If a file is missing.
            DataError: If a file cannot be decoded, is of the wrong kind or size, or holds a label
                that is no class.
        """
        for key in self._keys:
            with _opened(self._image(key), self._source.had_from) as image:
                pixels = np.asarray(image.convert("RGB"))
            labels = self._read_labels(self._labels(key))
            if labels.shape != pixels.shape[:2]:
                message = (
                    f"{self._labels(key)} is {labels.shape[1]} x {labels.shape[0]} pixels, "
                    f"expected {pixels.shape[1]} x {pixels.shape[0]} as its image: fetch both anew"
                )
                raise DataError(message)
            yield BenchmarkSample(key=key, image=pixels, labels=labels)

    def missing_files(self) -> list[Path]:
        """The images and label maps of the split that are not there."""
        wanted = [path for key in self._keys for path in (self._image(key), self._labels(key))]
        return [path for path in wanted if not path.is_file()]

    def check(self) -> None:
        """Refuse a split that is not whole.

        Raises:
            InputError: Naming the first missing files, their number and where they are had.
        """
        missing = self.missing_files()
        if missing:
            listed = ", ".join(str(path) for path in missing[:_MAX_LISTED])
            more = "" if len(missing) <= _MAX_LISTED else f" and {len(missing) - _MAX_LISTED} more"
            message = (
                f"{len(missing)} files of the split {self.split} are missing: {listed}{more}; "
                f"{self._source.had_from}"
            )
            raise InputError(message)

    def _image(self, key: str) -> Path:
        return self._config.root / "JPEGImages" / f"{key}.jpg"

    def _labels(self, key: str) -> Path:
        return self._config.root / "SegmentationClass" / f"{key}.png"

    def _read_list(self) -> list[str]:
        listing = self._config.root / "ImageSets" / "Segmentation" / f"{self.split}.txt"
        if not listing.is_file():
            message = (
                f"{listing} is missing, expected a list of image names; {self._source.had_from}"
            )
            raise InputError(message)
        lines = listing.read_text(encoding="utf-8").splitlines()
        keys = [line.split()[0] for line in lines if line.strip()]
        if not keys:
            message = f"{listing} names no image, expected one name a line: choose another split"
            raise InputError(message)
        return keys

    def _read_labels(self, path: Path) -> UInt16[np.ndarray, "height width"]:
        with _opened(path, self._source.had_from) as image:
            if image.mode not in {"P", "L"}:
                message = (
                    f"{path} has mode {image.mode}, expected P or L (one class index a pixel): "
                    f"colours cannot be scored, fetch the original file"
                )
                raise DataError(message)
            stored = np.asarray(image).astype(np.uint16)
        highest = len(self._classes.names)
        void = stored == _VOC_VOID
        wrong = (stored > highest) & ~void
        if wrong.any():
            message = (
                f"{path} holds the label {stored[wrong].max()}, expected 0 to {highest} or "
                f"{_VOC_VOID}: is {self._config.name} the right class set for this folder?"
            )
            raise DataError(message)
        return _as_scored(stored, void, background=self._classes.background)


def _as_scored(
    stored: UInt16[np.ndarray, "height width"],
    void: np.ndarray,
    *,
    background: bool,
) -> UInt16[np.ndarray, "height width"]:
    if background:
        return np.where(void, np.uint16(IGNORE_LABEL), stored)
    ignored = void | (stored == BACKGROUND_LABEL)
    return np.where(ignored, np.uint16(IGNORE_LABEL), stored - 1)


def _spread(keys: list[str], limit: int | None) -> list[str]:
    if limit is None or limit >= len(keys):
        return keys
    return [keys[index * len(keys) // limit] for index in range(limit)]


def _opened(path: Path, had_from: str) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        message = f"{path} is missing, though the split names it; {had_from}"
        raise InputError(message) from error
    except (UnidentifiedImageError, OSError) as error:
        message = f"{path} cannot be decoded ({error}), expected an image: fetch it anew"
        raise DataError(message) from error
    return image
