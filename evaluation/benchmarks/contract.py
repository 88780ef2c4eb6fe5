"""What a benchmark is: images with true label maps, their classes, and where they lie.

A benchmark yields labels in the order in which they are scored: with background, 0 is background
and class k of the set is k + 1; without, class k is k and background pixels are ignored. Ignored
pixels are `IGNORE_LABEL`, whatever the files say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8, UInt16
from pydantic import BaseModel, Field, ValidationInfo, field_validator

from evaluation.benchmarks.names import BenchmarkName
from storage.class_sets import BenchmarkClasses

__all__ = ["Benchmark", "BenchmarkConfig", "BenchmarkSample", "LvisConfig"]


@dataclass(frozen=True)
class BenchmarkSample:
    """One image and its truth.

    Attributes:
        key: Name of the image, unique in the split.
        image: RGB.
        labels: True labels at the image's size, as the module describes them.
        candidates: Positions in the class set's names that may be predicted in this image, which
            may be none at all; None allows all of them.
    """

    key: str
    image: UInt8[np.ndarray, "height width 3"]
    labels: UInt16[np.ndarray, "height width"]
    candidates: tuple[int, ...] | None = None


@runtime_checkable
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
    def truth(self) -> str:
        """How the label maps are made; printed beside every number."""
        ...

    @property
    def published_as(self) -> str:
        """Its name in the tables of published results; empty for a benchmark of our own."""
        ...

    @property
    def coverage(self) -> str:
        """How many images of the split are there, if some are not and that was asked for."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """Names of the images, always in the same order."""
        ...

    def sample(self, key: str) -> BenchmarkSample:
        """One image with its truth; threads may ask at the same time.

        Raises:
            DataError: If its files are damaged, or the truth is none.
            InputError: If a file is missing.
        """
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

    def contents(self) -> str:
        """Digest of the names and sizes of the split's files, which must all be there.

        Equal digests stand for the same images and truth, wherever they lie.
        """
        ...

    def check(self) -> None:
        """Refuse a benchmark with missing files, naming them and where to get them."""
        ...


class LvisConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Choices that the federated annotations of LVIS leave open, as does the MagicSeg paper."""

    images: Literal["val2017", "all"] = "val2017"
    """`val2017`: the images of the list that lie in COCO's val2017, the "approximately 5k" of
    MagicSeg (arXiv 2603.19575) section 4.1; `all`: the whole list, most of it in train2017."""
    unlabelled: Literal["background", "ignore"] = "background"
    """Pixels without an annotation: `background` counts them as true background, though they may
    show objects that nobody was asked to mark; `ignore` leaves them out, and background with
    them."""
    overlap: Literal["small_on_top", "file_order"] = "small_on_top"
    """Which of two overlapping objects a pixel belongs to: the one of smaller area, or the later
    one in the file."""
    candidates: Literal["all", "federated"] = "all"
    """Classes that may be predicted in an image: `all` 1,203, or those of which the annotations
    say that they are there or that they are not (`federated`)."""


class BenchmarkConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which benchmark is scored and where it lies."""

    name: BenchmarkName = "miniature"
    """`voc21`, `context60`, `coco_object`, `lvis`: PASCAL VOC 2012, PASCAL Context, COCO-Object and
    LVIS v1 with background as a class; `voc20`, `context59`: the first two with background ignored;
    `coco_stuff`, `cityscapes`: COCO-Stuff and Cityscapes, which have no background; `open_images`:
    the points of Open Images V7; `miniature`: the drawn world, with background; `miniature14`: the
    same, background ignored."""
    root: Path
    """Folder of the benchmark: `VOCdevkit/VOC2012`, `VOCdevkit/VOC2010` for PASCAL Context,
    `coco_stuff164k` for COCO-Object and COCO-Stuff, the folder of `leftImg8bit` and `gtFine` for
    Cityscapes, that of `lvis_v1_val.json` for LVIS, that of the point labels for Open Images."""
    split: str = Field(default="val", pattern=r"^[\w-]+$")
    """Part of the benchmark, as its files call it: the name of a list for VOC and Context, `train`
    or `val` for COCO-Object, COCO-Stuff, Cityscapes and LVIS, those or `test` for Open Images."""
    limit: int | None = Field(default=None, ge=1)
    """Score only this many images, evenly spread over the split; all when empty."""
    available: bool = False
    """Score the images whose files are there, of a split that is not whole; the share stands beside
    every number, published ones do not."""
    lvis: LvisConfig | None = Field(default=None, validate_default=True)
    """Choices for LVIS, and for no other benchmark; its defaults when empty."""

    @field_validator("lvis")
    @classmethod
    def _only_of_lvis(cls, value: LvisConfig | None, info: ValidationInfo) -> LvisConfig | None:
        name = info.data.get("name", "lvis")  # an unknown name is an error already
        if name == "lvis":
            return value or LvisConfig()
        if value is not None:
            message = f"benchmark {name} has no such options: leave out lvis"
            raise ValueError(message)
        return None

    def identity(self) -> dict[str, object]:
        """Fields that decide what is scored; where the files lie is left out."""
        found = self.model_dump(mode="json", exclude={"root"})
        if not self.available:
            del found["available"]  # scores of earlier versions are known without it
        return found


def scored_names(classes: BenchmarkClasses) -> tuple[str, ...]:
    """The name of each label that is scored, background included."""
    return ("background", *classes.names) if classes.background else classes.names
