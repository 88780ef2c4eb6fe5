"""YOLO's segmentation folder: pictures, and a text file of polygons beside each.

    data.yaml                      names of the classes; there only while the folder is whole
    images/train/<key>.jpg|png     as they are in the shards
    labels/train/<key>.txt         a line for each object: class, then x y x y ... in [0, 1]

Source: https://docs.ultralytics.com/datasets/segment/. Nothing of that package is used.
"""

import json
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Int

from storage.exports.forms import Entries, ExportFacts
from storage.exports.regions import Region, stored_regions
from storage.shards import Sample
from storage.vocabulary import Vocabulary

__all__ = ["YoloForm"]

_DIGITS = 6
_HEADER = """\
# Made by `magicseg export --format yolo`; DATASET_CARD.md says what it is and on which terms.
# The format asks for pictures to validate on. Generated ones say little about real ones: put the
# path of labelled real pictures at `val` before a score is believed.
train: images/train
val: images/train
names:
"""

Outline = Callable[[Bool[np.ndarray, "height width"]], Int[np.ndarray, "points 2"]]
"""Gives the one polygon of a mask: column and row of each point."""


class YoloForm:
    """Samples as YOLO's trainers read them.

    Args:
        vocabulary: Its index of a class is the number of the class.
        outline: How a mask becomes a polygon.
    """

    name = "yolo"
    document = "data.yaml"
    parts = ()
    folders = ("images/train", "labels/train")
    is_numbered = False

    def __init__(self, vocabulary: Vocabulary, outline: Outline) -> None:
        self._vocabulary = vocabulary
        self._outline = outline

    def file_names(self, key: str, suffix: str) -> tuple[str, ...]:
        """The picture and the polygons of a sample."""
        return f"{key}{suffix}", f"{key}.txt"

    def entries(self, sample: Sample, suffix: str) -> Entries:
        """What a sample becomes; it has no line in the document.

        Raises:
            DataError: A mask has no pixel.
        """
        del suffix
        name = sample.member("json")
        lines = [self._line(each, name) for each in stored_regions(sample)]
        return Entries({}, len(lines), (sample.image_bytes, "".join(lines).encode()))

    def document_lines(
        self, facts: ExportFacts, lists: Mapping[str, Iterator[str]]
    ) -> Iterator[str]:
        """`data.yaml`: the paths, and every class of the vocabulary."""
        del facts, lists  # a sample is known by its files
        yield _HEADER
        for number, each in enumerate(self._vocabulary):
            yield f"  {number}: {json.dumps(each.name, ensure_ascii=False)}\n"

    def other_files(self, facts: ExportFacts) -> Mapping[str, str]:
        """None."""
        del facts
        return {}

    def _line(self, each: Region, name: str) -> str:
        """Class and polygon; the centre of a pixel is half a pixel from its corner."""
        height, width = each.size
        points = (self._outline(each.mask(name)) + 0.5) / (width, height)
        return f"{each.class_id} {' '.join(f'{v:.{_DIGITS}f}' for v in points.ravel())}\n"
