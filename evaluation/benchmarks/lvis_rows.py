"""The rows of an annotation file of LVIS v1, and of what other programs write in its form.

A segmentation is a list of polygons, as LVIS has it, or run lengths of either of COCO's kinds. An
image is known by its `coco_url` or its `file_name`. What is optional in COCO's format may be
missing; what is not is named.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float64
from pycocotools import mask as coco_mask

from evaluation.benchmarks.split_files import read_file
from storage.errors import DataError
from storage.picture_headers import VERIFY, check_size
from storage.run_lengths import check_rle, decode_rle
from storage.texts import decode_text

_FARTHEST = 1e5
"""No image is this large; a larger polygon would take forever to draw."""
_LARGEST = 1e12
_OF_2014 = re.compile(r"COCO_\w+2014_(?=\d{12}\.)")
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b")
_ROWS = {
    "images": ("id", "width", "height", "coco_url or file_name"),
    "annotations": ("id", "image_id", "category_id", "segmentation"),
    "categories": ("id", "name"),
}


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask as COCO's run lengths, packed in a text or as plain numbers."""

    counts: str | tuple[int, ...]
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class LvisObject:
    """An annotated object.

    Attributes:
        number: Its id.
        image: Id of its image.
        category: Id of its category.
        area: In pixels; None where the file does not say it.
        shape: Polygons, each x and y in turn, in pixels; or run lengths.
    """

    number: int
    image: int
    category: int
    area: float | None
    shape: tuple[Float64[np.ndarray, " _"], ...] | RunLengths

    def drawn(self, height: int, width: int) -> Bool[np.ndarray, "height width"]:
        """Draw it on an image of this size; run lengths must be of the same one."""
        if not isinstance(self.shape, RunLengths):
            rings = [ring.tolist() for ring in self.shape]
            merged = coco_mask.merge(coco_mask.frPyObjects(rings, height, width))
            return coco_mask.decode(merged).astype(bool)
        counts = self.shape.counts
        if isinstance(counts, str):
            return decode_rle(counts, height, width, name=f"annotation {self.number}")
        values = np.arange(len(counts)) % 2 == 1
        return np.repeat(values, counts).reshape(width, height).T


@dataclass(frozen=True, slots=True)
class LvisPicture:
    """An image of the list.

    Attributes:
        number: Its id.
        folder: Such as ``val2017``; empty where the file does not say it.
        name: Its file name.
        width: Pixels.
        height: Pixels.
        absent: Ids of categories that it does not show; None where the file does not say it.
    """

    number: int
    folder: str
    name: str
    width: int
    height: int
    absent: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class LvisCategory:
    """A category: its id and its name."""

    number: int
    name: str


_KINDS = {"images": LvisPicture, "annotations": LvisObject, "categories": LvisCategory}


def read_lvis(path: Path, where_to_get: str) -> Mapping[str, Sequence[Any]]:
    """Read the file; objects become records while it is parsed, so that none is held twice.

    Args:
        path: The file.
        where_to_get: Where to get it, as part of a sentence.

    Returns:
        Lists of `LvisPicture`, `LvisObject` and `LvisCategory` under the names that the file has
        for them: images, annotations and categories.

    Raises:
        InputError: If it is missing.
        DataError: If it is damaged, or has other rows than LVIS v1.
    """
    try:
        document = json.loads(_text_of(path, where_to_get), object_hook=_record)
    except (ValueError, RecursionError) as error:
        message = f"{path} is not JSON ({error}), expected the annotations of LVIS: fetch it again"
        raise DataError(message) from error
    except _DamagedError as error:
        message = f"{path}: {error}; put it right, or fetch the file again"
        raise DataError(message) from error
    for name in _KINDS:
        if reason := _other_rows(document, name):
            message = (
                f"{path} has no list of {name} as LVIS v1 has it ({reason}), expected "
                f"lvis_v1_<split>.json: give that file"
            )
            raise DataError(message)
    return document


def _text_of(path: Path, where_to_get: str) -> str:
    """The file's text; its bytes are not kept beside that, as they take as much memory."""
    data = read_file(path, where_to_get, "the annotations of LVIS", "read")
    try:
        return decode_text(data, "the file")
    except DataError as error:
        reason, way_out = str(error), "fetch it again"
        if data.startswith(_ARCHIVES):
            reason, way_out = "it is an archive", "unpack it"
        message = f"{path} is not JSON ({reason}), expected the annotations of LVIS: {way_out}"
        raise DataError(message) from error


def check_shape(row: LvisObject, picture: LvisPicture) -> str:
    """Say what is wrong with run lengths on this image, as part of a sentence; empty if nothing."""
    if not isinstance(row.shape, RunLengths):
        return ""
    own, image = (row.shape.width, row.shape.height), (picture.width, picture.height)
    if own != image:
        exchanged = ", width and height are exchanged" if own == image[::-1] else ""
        return (
            f"annotation {row.number} has run lengths (RLE) of {own[0]} x {own[1]} pixels, "
            f"expected {image[0]} x {image[1]} as its image{exchanged}"
        )
    counts = row.shape.counts
    if not isinstance(counts, str):
        return "" if sum(counts) == own[0] * own[1] else _sum_in_words(row.number, counts, own)
    try:
        check_rle(counts, picture.height, picture.width, name=f"annotation {row.number}")
    except DataError as error:
        return str(error).removesuffix(f"; {VERIFY}")
    return ""


def _sum_in_words(number: int, counts: tuple[int, ...], size: tuple[int, int]) -> str:
    return (
        f"annotation {number} has run lengths with runs of {sum(counts)} pixels, expected "
        f"{size[0]} x {size[1]}"
    )


def _other_rows(document: object, name: str) -> str:
    """Say why a document has no rows of this name, as part of a sentence; empty if it has."""
    if not isinstance(document, dict):
        return f"it holds a {type(document).__name__}"
    rows = cast("dict[str, object]", document).get(name)
    if not isinstance(rows, list):
        return f"{name} is {'a ' + type(rows).__name__ if name in document else 'missing'}"
    for place, row in enumerate(cast("list[object]", rows), start=1):
        if not isinstance(row, _KINDS[name]):
            if not isinstance(row, dict):
                return f"row {place} of {name} is of another kind"
            lacking = [
                field
                for field in _ROWS[name]
                if not any(each in row for each in field.split(" or "))
            ]
            what = f"lacks {', '.join(lacking)}" if lacking else "is of another kind"
            return f"row {place} of {name}, with id {row.get('id')}, {what}"
    return ""


class _DamagedError(Exception):
    """A part of the file that is not as LVIS has it."""


def _record(found: dict[str, Any]) -> Any:
    """Make a record of a part of the file, by the members that it has."""
    try:
        if "segmentation" in found:
            return _object(found)
        if "coco_url" in found or ("file_name" in found and "image_id" not in found):
            return _picture(found)
        if "synset" in found:
            return LvisCategory(_whole(found, "id"), _text(found, "name"))
        if isinstance(found.get("id"), int) and isinstance(found.get("name"), str):
            return LvisCategory(found["id"], found["name"])
    except _DamagedError as error:
        message = f"the part with id {found.get('id')} is damaged ({error})"
        raise _DamagedError(message) from error
    return found


def _object(found: dict[str, Any]) -> LvisObject:
    area = found.get("area", _ABSENT)
    return LvisObject(
        number=_whole(found, "id"),
        image=_whole(found, "image_id"),
        category=_whole(found, "category_id"),
        area=None if area is _ABSENT else _area(area),
        shape=_shape(found),
    )


_ABSENT = object()


def _area(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LARGEST:
        return float(value)
    message = f"area is {value!r}, expected a number of pixels"
    raise _DamagedError(message)


def _shape(found: dict[str, Any]) -> tuple[Float64[np.ndarray, " _"], ...] | RunLengths:
    who, given = f"annotation {found['id']}", found["segmentation"]
    if isinstance(given, dict):
        return _run_lengths(cast("dict[str, Any]", given), who)
    if not isinstance(given, list) or not given:
        message = f"{who} has no polygon and no run lengths (RLE)"
        raise _DamagedError(message)
    return tuple(_ring(ring, who) for ring in cast("list[Any]", given))


def _ring(given: object, who: str) -> Float64[np.ndarray, " _"]:
    if isinstance(given, dict):
        message = f"{who} has run lengths (RLE) in its list of polygons"
        raise _DamagedError(message)
    try:
        ring = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        ring = np.zeros(0)
    whole = ring.ndim == 1 and len(ring) >= 6 and len(ring) % 2 == 0
    if not whole or not (np.abs(ring) <= _FARTHEST).all():
        message = f"{who} has a malformed polygon"
        raise _DamagedError(message)
    return ring


def _run_lengths(given: dict[str, Any], who: str) -> RunLengths:
    counts, size = given.get("counts"), given.get("size")
    if not isinstance(size, list) or [type(side) for side in cast("list[Any]", size)] != [int, int]:
        message = f"{who} has run lengths (RLE) of the size {size!r}, expected [height, width]"
        raise _DamagedError(message)
    height, width = cast("list[int]", size)
    if isinstance(counts, str):
        return RunLengths(counts, height, width)
    if isinstance(counts, list):
        runs = cast("list[Any]", counts)
        if all(type(run) is int and 0 <= run <= height * width for run in runs):
            return RunLengths(tuple(runs), height, width)
    message = (
        f"{who} has run lengths (RLE) whose counts are neither a text nor numbers from 0 to "
        f"{height * width}"
    )
    raise _DamagedError(message)


def _picture(found: dict[str, Any]) -> LvisPicture:
    number, width, height = (_whole(found, field) for field in ("id", "width", "height"))
    try:
        check_size(width, height, f"image {number}", way_out="look at its row")
    except DataError as error:
        raise _DamagedError(str(error)) from error
    absent = found.get("neg_category_ids")
    if absent is not None and not (
        isinstance(absent, list) and all(type(each) is int for each in absent)
    ):
        message = f"neg_category_ids is {absent!r}, expected ids of categories"
        raise _DamagedError(message)
    folder, name = _place(found)
    return LvisPicture(
        number, folder, name, width, height, None if absent is None else tuple(absent)
    )


def _place(found: dict[str, Any]) -> tuple[str, str]:
    """Folder and name of an image's file, by its address or its name."""
    field = "coco_url" if found.get("coco_url") else "file_name"
    parts = [part for part in _text(found, field).replace("\\", "/").split("/") if part]
    if not parts or ".." in parts[-2:]:
        message = f"{field} is {found[field]!r}, expected the name of a file"
        raise _DamagedError(message)
    folder = parts[-2] if len(parts) > 1 and parts[-2] != "." else ""
    return folder, _OF_2014.sub("", parts[-1])


def _whole(found: dict[str, Any], field: str) -> int:
    if field not in found:
        message = f"it lacks {field}"
        raise _DamagedError(message)
    value = found[field]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    message = f"{field} is {value!r}, expected a whole number"
    raise _DamagedError(message)


def _text(found: dict[str, Any], field: str) -> str:
    value = found.get(field)
    if not isinstance(value, str) or "\0" in value:
        message = (
            f"{field} is {value!r}, expected a text" if field in found else f"it lacks {field}"
        )
        raise _DamagedError(message)
    return value
