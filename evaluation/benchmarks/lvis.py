"""LVIS v1: 1,203 classes and background, drawn from the polygons of its annotations.

    lvis_v1_<split>.json              in the folder itself, in `annotations` or in `lvis`
    val2017/<id>.jpg, train2017/...   in the folder itself, in `images`, in `coco`, or in the `coco`
                                      beside it; found by the last two parts of `coco_url`

Label k + 1 is the category whose id is k + 1, wherever it stands in the file. Labels need 16 bits:
category 255 (Christmas tree) is a class as any other. The annotations are federated: of each image
they say which classes are there (annotated) and some that are not (`neg_category_ids`); about all
others nothing is known. `LvisConfig` names the ways to make a label map of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64
from pycocotools import mask as coco_mask

from evaluation.benchmarks.contract import BenchmarkConfig, LvisConfig
from evaluation.benchmarks.folders import LabelledImages, Labels, Origin
from storage.class_sets import annotation_ids, load_benchmark
from storage.errors import DataError, InputError
from storage.records import BACKGROUND_LABEL

_SOURCE = (
    "lvis_v1_val.json is in https://dl.fbaipublicfiles.com/LVIS/lvis_v1_val.json.zip, the images "
    "are COCO's: val2017.zip and train2017.zip of http://images.cocodataset.org/zips/"
)
_NUM_VAL_IMAGES = 19809
_FARTHEST = 1e5
"""No image is this large; a larger polygon would take forever to draw."""


@dataclass(frozen=True, slots=True)
class _Object:
    """An annotated object; `polygons` holds x and y in turn, in pixels."""

    number: int
    image: int
    category: int
    area: float
    polygons: tuple[Float64[np.ndarray, " _"], ...]


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image of the list; `place` is its folder and file name."""

    number: int
    place: str
    width: int
    height: int
    absent: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Category:
    number: int
    name: str


_RowT = TypeVar("_RowT", _Object, _Picture, _Category)


def open_lvis(config: BenchmarkConfig) -> LabelledImages:
    """Open LVIS v1; the annotations are read at once, the polygons drawn image by image.

    Reading takes some seconds and, at its peak, two to three times the size of the file in memory.

    Args:
        config: The split names the JSON file; `lvis` holds the options.

    Raises:
        InputError: If the annotations or a folder of images is missing, or no image is left.
        DataError: If the annotations are damaged, contradict themselves, or are not LVIS v1.
    """
    options = config.lvis or LvisConfig()
    classes = load_benchmark("lvis" if options.unlabelled == "background" else "lvis1203")
    path = _annotation_file(config)
    layout = LvisAnnotations(path, config.root, options)
    plain = options.candidates == "all" and options.unlabelled == "background"
    origin = Origin(
        where_to_get=_SOURCE,
        truth=_in_words(options),
        published_as="LVIS" if plain and options.images == "val2017" else "",
        published_sizes=(len(layout.keys),) if layout.num_listed == _NUM_VAL_IMAGES else (),
    )
    return LabelledImages(config, classes, layout.keys, layout, origin)


class LvisAnnotations:
    """The objects of a list of images.

    Args:
        path: The JSON file.
        root: Where the images are looked for.
        options: Which images count, and how their labels are made.

    Raises:
        InputError: If no image is left or a folder of images is missing.
        DataError: If the file is damaged, contradicts itself, or is not LVIS v1.
    """

    def __init__(self, path: Path, root: Path, options: LvisConfig) -> None:
        self._path = path
        self._options = options
        document = _read(path)
        _check_categories(document["categories"], path)
        listed = _by_number(document["images"], "image", path)
        self.num_listed = len(listed)
        wanted = {
            number: picture
            for number, picture in listed.items()
            if options.images == "all" or picture.place.startswith(f"{options.images}/")
        }
        if not wanted:
            message = (
                f"{path} lists {len(listed)} images, none of them in {options.images}: set "
                f"benchmark.lvis.images=all"
            )
            raise InputError(message)
        self._pictures = {Path(p.place).with_suffix("").as_posix(): p for p in wanted.values()}
        if len(self._pictures) < len(wanted):
            message = f"{path} lists the same image file twice, expected it once: fetch it again"
            raise DataError(message)
        _check_references(document["annotations"], listed, path)
        self._objects = _grouped(document["annotations"], wanted)
        folders = {picture.place.split("/")[0] for picture in wanted.values()}
        self._folders = {folder: _image_folder(root, folder) for folder in sorted(folders)}

    @property
    def keys(self) -> list[str]:
        """Names of the images in the order of the file, such as ``val2017/000000000139``."""
        return list(self._pictures)

    def image(self, key: str) -> Path:
        """The image's file."""
        folder, name = self._pictures[key].place.split("/")
        return self._folders[folder] / name

    def label_file(self, key: str) -> Path:
        """The annotations, which are the same file for all images."""
        return self._path

    def labels(self, key: str) -> Labels:
        """Draw the objects of an image over one another."""
        picture = self._pictures[key]
        labels = np.full((picture.height, picture.width), BACKGROUND_LABEL, dtype=np.uint16)
        found = self._objects.get(picture.number, [])
        if self._options.overlap == "small_on_top":
            found = sorted(found, key=lambda each: -each.area)
        for each in found:
            rings = [ring.tolist() for ring in each.polygons]
            drawn = coco_mask.merge(coco_mask.frPyObjects(rings, picture.height, picture.width))
            labels[coco_mask.decode(drawn).astype(bool)] = each.category
        return labels

    def candidates(self, key: str) -> tuple[int, ...] | None:
        """All classes, or those that the annotations of this image say something about."""
        if self._options.candidates == "all":
            return None
        picture = self._pictures[key]
        present = {each.category for each in self._objects.get(picture.number, [])}
        return tuple(category - 1 for category in sorted(present | set(picture.absent)))


def _in_words(options: LvisConfig) -> str:
    return ", ".join(
        (
            "polygons of LVIS v1",
            "images of val2017" if options.images == "val2017" else "images of the whole list",
            f"unlabelled pixels {_UNLABELLED[options.unlabelled]}",
            _OVERLAP[options.overlap],
            _CANDIDATES[options.candidates],
        )
    )


_UNLABELLED = {"background": "are background", "ignore": "and background ignored"}
_OVERLAP = {"small_on_top": "smaller objects on top", "file_order": "later objects on top"}
_CANDIDATES = {
    "all": "all 1203 classes may be predicted",
    "federated": "classes annotated as present or absent in the image may be predicted",
}


def _annotation_file(config: BenchmarkConfig) -> Path:
    name = f"lvis_v1_{config.split}.json"
    places = [config.root / folder / name for folder in (".", "annotations", "lvis")]
    for path in places:
        if path.is_file():
            return path
    message = f"{places[0]} is missing, and so are {places[1]} and {places[2]}; {_SOURCE}"
    raise InputError(message)


def _image_folder(root: Path, name: str) -> Path:
    bases = (root, root / "images", root / "coco", root.parent / "coco")
    for base in bases:
        if (base / name).is_dir():
            return base / name
    looked = ", ".join(str(base) for base in bases)
    message = f"the folder {name} with images is missing in each of {looked}; {_SOURCE}"
    raise InputError(message)


def _read(path: Path) -> Mapping[str, Sequence[Any]]:
    """Read the file; objects become records while it is parsed, so that none is held twice."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_hook=_record)
    except (ValueError, RecursionError) as error:
        message = f"{path} is not JSON ({error}), expected the annotations of LVIS: fetch it again"
        raise DataError(message) from error
    except _DamagedError as error:
        message = f"{path}: {error}; fetch it again"
        raise DataError(message) from error
    kinds = {"images": _Picture, "annotations": _Object, "categories": _Category}
    for name, kind in kinds.items():
        rows = document.get(name) if isinstance(document, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, kind) for row in rows):
            message = (
                f"{path} has no list of {name} as LVIS v1 has it, expected lvis_v1_<split>.json: "
                f"fetch it again"
            )
            raise DataError(message)
    return document


class _DamagedError(Exception):
    """A part of the file that is not as LVIS has it."""


def _record(found: dict[str, Any]) -> Any:
    """Make a record of a part of the file, by the members that it has."""
    try:
        if "segmentation" in found:
            return _object(found)
        if "coco_url" in found:
            return _picture(found)
        if "synset" in found:
            return _Category(int(found["id"]), str(found["name"]))
    except (KeyError, TypeError, ValueError) as error:
        message = f"the part with id {found.get('id')} is damaged ({error!r})"
        raise _DamagedError(message) from error
    return found


def _object(found: dict[str, Any]) -> _Object:
    rings = tuple(np.asarray(ring, dtype=np.float64) for ring in found["segmentation"])
    for ring in rings:
        whole = ring.ndim == 1 and len(ring) >= 6 and len(ring) % 2 == 0
        if not whole or not (np.abs(ring) <= _FARTHEST).all():
            message = f"annotation {found['id']} has a malformed polygon"
            raise _DamagedError(message)
    if not rings:
        message = f"annotation {found['id']} has no polygon"
        raise _DamagedError(message)
    return _Object(
        number=int(found["id"]),
        image=int(found["image_id"]),
        category=int(found["category_id"]),
        area=float(found["area"]),
        polygons=rings,
    )


def _picture(found: dict[str, Any]) -> _Picture:
    *_, folder, name = found["coco_url"].split("/")
    return _Picture(
        number=int(found["id"]),
        place=f"{folder}/{name}",
        width=int(found["width"]),
        height=int(found["height"]),
        absent=tuple(int(category) for category in found["neg_category_ids"]),
    )


def _check_categories(found: Sequence[_Category], path: Path) -> None:
    """Compare the categories with those of LVIS v1: an earlier release numbers them differently."""
    expected = dict(zip(annotation_ids("lvis"), load_benchmark("lvis").names, strict=True))
    for number, category in _by_number(found, "category", path).items():
        name = category.name.replace("_", " ")
        if expected.get(number, "").casefold() != name.casefold():
            message = (
                f"{path} calls category {number} {category.name!r}, expected "
                f"{expected.get(number)!r} as in LVIS v1: fetch the annotations of version 1"
            )
            raise DataError(message)


def _by_number(rows: Sequence[_RowT], kind: str, path: Path) -> dict[int, _RowT]:
    found = {row.number: row for row in rows}
    if len(found) < len(rows):
        seen: set[int] = set()
        twice = next(row.number for row in rows if row.number in seen or seen.add(row.number))
        message = f"{path} holds {kind} {twice} twice, expected every id once: fetch it again"
        raise DataError(message)
    return found


def _check_references(rows: Sequence[_Object], listed: Mapping[int, _Picture], path: Path) -> None:
    """Refuse annotations of images or categories that are not listed."""
    categories = set(annotation_ids("lvis"))
    for each in _by_number(rows, "annotation", path).values():
        if each.image not in listed or each.category not in categories:
            message = (
                f"{path}: annotation {each.number} is of image {each.image} and category "
                f"{each.category}, expected both to be listed: fetch it again"
            )
            raise DataError(message)
    for picture in listed.values():
        unknown = set(picture.absent) - categories
        if unknown:
            message = (
                f"{path}: image {picture.number} lists category {min(unknown)} as absent, expected "
                f"1 to {max(categories)}: fetch it again"
            )
            raise DataError(message)


def _grouped(
    rows: Sequence[_Object], wanted: Mapping[int, _Picture]
) -> Mapping[int, list[_Object]]:
    """The objects of each wanted image, in the order of the file."""
    groups: dict[int, list[_Object]] = {}
    for each in rows:
        if each.image in wanted:
            groups.setdefault(each.image, []).append(each)
    return groups
