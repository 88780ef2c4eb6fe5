"""CVAT for images 1.1: an XML file with the masks as run lengths, and what comes back of it.

The format is CVAT's own (docs.cvat.ai, "CVAT for images 1.1"): a `<mask>` has a box and the run
lengths of the rows in it, the first run is of zeros.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from xml.parsers import expat  # refuses nothing by itself: see _Reader
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from jaxtyping import Bool

from storage.codecs import decode_rle
from storage.errors import InputError
from storage.exports.drawn_masks import DrawnRegion, DrawnSample
from storage.exports.forms import Entries, ExportFacts, laid_out, stable_id
from storage.exports.label_studio import label_of
from storage.exports.regions import IGNORED, shown_regions
from storage.picture_headers import image_size
from storage.shards import Sample
from storage.vocabulary import Vocabulary

__all__ = ["CvatForm", "read_cvat"]

_SHAPES = ("box", "polygon", "polyline", "points", "cuboid", "ellipse", "skeleton")


class CvatForm:
    """Writes samples as annotations for CVAT.

    Args:
        vocabulary: Its classes are the labels, all of them.
    """

    name = "cvat"
    document = "annotations.xml"
    parts = ("images",)
    folders = ("images",)
    is_numbered = True

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def file_names(self, key: str, suffix: str) -> tuple[str, ...]:
        """The picture of a sample."""
        return (f"{key}{suffix}",)

    def entries(self, sample: Sample, suffix: str) -> Entries:
        """An image with what the label map shows."""
        width, height = image_size(sample.image_bytes)
        masks: list[str] = []
        for each in shown_regions(sample):
            left, top, wide, high = each.box
            mask = decode_rle(each.rle, height, width, name=sample.key)
            runs = _runs(mask[top : top + high, left : left + wide])
            label = quoteattr(label_of(each.class_id, self._vocabulary))
            masks.append(
                f'<mask label={label} source="auto" occluded="0" '
                f'rle="{", ".join(map(str, runs))}" left="{left}" top="{top}" width="{wide}" '
                f'height="{high}" z_order="0"></mask>'
            )
        name = quoteattr(f"{sample.key}{suffix}")
        size = f'width="{width}" height="{height}"'
        head = f'<image id="{stable_id(sample.key)}" name={name} {size}>'
        line = f"{head}{''.join(masks)}</image>"
        return Entries({"images": [line]}, len(masks), (sample.image_bytes,))

    def document_lines(
        self, facts: ExportFacts, lists: Mapping[str, Iterator[str]]
    ) -> Iterator[str]:
        """The beginning with the dataset's facts."""
        description = escape(f"{facts.description}. {facts.licence}. Dataset {facts.dataset}")
        head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
        first = f"{head}<meta><description>{description}</description></meta>\n"
        yield from laid_out((first, "\n</annotations>\n"), lists, "\n")

    def other_files(self, facts: ExportFacts) -> Mapping[str, str]:
        """The labels that the task needs, as CVAT's "Raw" tab takes them."""
        del facts
        names = [each.name for each in self._vocabulary] + [IGNORED]
        return {"labels.json": json.dumps([{"name": each, "attributes": []} for each in names])}


def read_cvat(data: bytes, name: str) -> list[DrawnSample]:
    """Read what CVAT exported in the format "CVAT for images 1.1".

    Args:
        data: The XML file.
        name: What messages call it.

    Returns:
        The samples, in file order.

    Raises:
        InputError: It is no such file, declares entities, or has other shapes than masks in it.
    """
    reader = _Reader(name)
    try:
        reader.parse(data)
    except (expat.ExpatError, LookupError, ValueError) as error:  # encodings, too
        message = f"{name} is no whole XML file ({error}): export from CVAT again"
        raise InputError(message) from error
    if not reader.is_cvat:
        message = (
            f"{name} is no file of CVAT: it has no <annotations>, expected the format 'CVAT for "
            "images 1.1'"
        )
        raise InputError(message)
    return reader.samples


class _Reader:
    """Collects images and masks while an XML file is read."""

    def __init__(self, name: str) -> None:
        self.is_cvat = False
        self.samples: list[DrawnSample] = []
        self._name = name
        self._image: tuple[str, int, int] | None = None
        self._regions: list[DrawnRegion] = []

    def parse(self, data: bytes) -> None:
        parser: Any = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.Parse(data, True)

    def _refuse_doctype(self, *_: object) -> None:
        message = (
            f"{self._name} declares a document type, in which entities may grow without end; "
            "expected plain XML as CVAT writes it"
        )
        raise InputError(message)

    def _start(self, tag: str, fields: dict[str, str]) -> None:
        if tag == "annotations":
            self.is_cvat = True
        elif tag == "image":
            key = self._field(fields, "name").rpartition("/")[2].rpartition(".")[0]
            self._image = (key, self._number(fields, "width"), self._number(fields, "height"))
            self._regions = []
        elif self._image is not None and tag == "mask":
            self._regions.append(self._region(fields))
        elif tag == "track" or (self._image is not None and tag in _SHAPES):
            where = "it" if self._image is None else f"sample {self._image[0]}"
            message = (
                f"{self._name}: {where} has a <{tag}>, expected masks alone: draw it as a mask"
            )
            raise InputError(message)

    def _end(self, tag: str) -> None:
        if tag == "image" and self._image is not None:
            self.samples.append(DrawnSample(self._image[0], tuple(self._regions)))
            self._image = None

    def _region(self, fields: dict[str, str]) -> DrawnRegion:
        key, width, height = self._image or ("", 0, 0)
        box = tuple(self._number(fields, side) for side in ("left", "top", "width", "height"))
        decode = partial(_decode, self._field(fields, "rle"), box, (height, width), key)
        return DrawnRegion(self._field(fields, "label"), width, height, decode)

    def _field(self, fields: dict[str, str], field: str) -> str:
        if field not in fields:
            message = f"{self._name}: an image or mask has no {field!r}: export it again"
            raise InputError(message)
        return fields[field]

    def _number(self, fields: dict[str, str], field: str) -> int:
        text = self._field(fields, field)
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            message = f"{self._name}: {field} is {text[:20]!r}, expected a whole number"
            raise InputError(message)
        return int(text)


def _runs(mask: Bool[np.ndarray, "height width"]) -> Iterator[int]:
    """Lengths of runs of equal pixels, row by row, the first of zeros."""
    flat = mask.ravel()
    if flat[0]:
        yield 0
    edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    yield from np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()


def _decode(
    text: str, box: tuple[int, ...], size: tuple[int, int], key: str
) -> Bool[np.ndarray, "height width"]:
    left, top, wide, high = box
    if left + wide > size[1] or top + high > size[0]:
        message = f"sample {key} has a mask at {box}, beyond its picture of {size[::-1]} pixels"
        raise InputError(message)
    try:
        runs = np.array([int(part) for part in text.split(",")], np.int64)
    except (ValueError, OverflowError) as error:
        message = f"sample {key} has a mask whose rle is no list of numbers: export it again"
        raise InputError(message) from error
    if runs.min() < 0 or runs.max() > wide * high or runs.sum() != wide * high:
        message = (
            f"sample {key} has a mask whose runs do not make {wide} x {high} pixels: export it "
            "again"
        )
        raise InputError(message)
    mask = np.zeros(size, np.bool_)
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(high, wide)
    mask[top : top + high, left : left + wide] = inside
    return mask
