"""LVIS v1: 1,203 classes and background, drawn from the polygons or masks of its annotations.

    lvis_v1_<split>.json              in the folder itself, in `annotations` or in `lvis`
    val2017/<id>.jpg, train2017/...   in the folder itself, in `images`, in `coco`, or in the `coco`
                                      beside it; found by the last two parts of `coco_url`, or
                                      by `file_name`

Label k + 1 is the category whose id is k + 1, wherever it stands in the file. Labels need 16 bits:
category 255 (Christmas tree) is a class as any other. The annotations are federated: of each image
they say which classes are there (annotated) and some that are not (`neg_category_ids`); about all
others nothing is known. `LvisConfig` names the ways to make a label map of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from evaluation.benchmarks.contract import BenchmarkConfig, LvisConfig
from evaluation.benchmarks.folders import LabelledImages, Labels, Origin
from evaluation.benchmarks.lvis_rows import (
    LvisCategory,
    LvisObject,
    LvisPicture,
    RunLengths,
    check_shape,
    read_lvis,
)
from evaluation.benchmarks.near_misses import files_hint, is_file, root_hint, splits_hint
from evaluation.benchmarks.split_files import picture_file
from storage.class_sets import annotation_ids, load_benchmark
from storage.errors import DataError, InputError
from storage.records import BACKGROUND_LABEL

_SOURCE = (
    "lvis_v1_val.json is in https://dl.fbaipublicfiles.com/LVIS/lvis_v1_val.json.zip, the images "
    "are COCO's: val2017.zip and train2017.zip of http://images.cocodataset.org/zips/"
)
_NUM_VAL_IMAGES = 19809

_RowT = TypeVar("_RowT", LvisObject, LvisPicture, LvisCategory)


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
        truth=_in_words(options, runs=layout.has_runs),
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
        document = read_lvis(path, _SOURCE)
        _check_categories(document["categories"], path)
        listed = _by_number(document["images"], "image", path)
        self.num_listed = len(listed)
        placed = {number: _placed(each, root, path.stem) for number, each in listed.items()}
        wanted = {
            number: picture
            for number, picture in placed.items()
            if options.images in {"all", picture.folder}
        }
        if not wanted:
            message = (
                f"{path} lists {len(listed)} images, none of them in {options.images}: set "
                f"benchmark.lvis.images=all"
            )
            raise InputError(message)
        self._pictures = {f"{p.folder}/{PurePosixPath(p.name).stem}": p for p in wanted.values()}
        if len(self._pictures) < len(wanted):
            message = f"{path} lists the same image file twice, expected it once: fetch it again"
            raise DataError(message)
        _check_references(document["annotations"], listed, path)
        if options.candidates == "federated":
            _check_absent(wanted, path)
        self._objects = _grouped(document["annotations"], wanted)
        folders = {picture.folder for picture in wanted.values()}
        self._folders = {folder: _image_folder(root, folder) for folder in sorted(folders)}
        self.has_runs = any(
            isinstance(each.shape, RunLengths) for rows in self._objects.values() for each in rows
        )

    @property
    def keys(self) -> list[str]:
        """Names of the images in the order of the file, such as ``val2017/000000000139``."""
        return list(self._pictures)

    def image(self, key: str) -> Path:
        """The image's file."""
        picture = self._pictures[key]
        folder = self._folders[picture.folder]
        plain = folder / picture.name
        return plain if is_file(plain) else _or_plain(picture_file(folder, plain.stem), plain)

    def label_file(self, key: str) -> Path:
        """The annotations, which are the same file for all images."""
        return self._path

    def labels(self, key: str) -> Labels:
        """Draw the objects of an image over one another."""
        picture = self._pictures[key]
        labels = np.full((picture.height, picture.width), BACKGROUND_LABEL, dtype=np.uint16)
        found = self._objects.get(picture.number, [])
        if self._options.overlap == "small_on_top":
            found = sorted(found, key=lambda each: -_area(each, picture))
        for each in found:
            labels[each.drawn(picture.height, picture.width)] = each.category
        return labels

    def candidates(self, key: str) -> tuple[int, ...] | None:
        """All classes, or those that the annotations of this image say something about."""
        if self._options.candidates == "all":
            return None
        picture = self._pictures[key]
        present = {each.category for each in self._objects.get(picture.number, [])}
        return tuple(category - 1 for category in sorted(present | set(picture.absent or ())))


def _area(each: LvisObject, picture: LvisPicture) -> float:
    """In pixels; counted where the file does not say it."""
    if each.area is not None:
        return each.area
    return float(each.drawn(picture.height, picture.width).sum())


def _or_plain(found: Path, plain: Path) -> Path:
    return found if is_file(found) else plain


def _placed(picture: LvisPicture, root: Path, annotations: str) -> LvisPicture:
    """Give an image the folder that holds it, if the file does not say it."""
    if picture.folder:
        return picture
    own = f"{annotations.rpartition('_')[2]}2017"
    for folder in (own, "val2017", "train2017"):
        for base in _bases(root):
            if is_file(base / folder / picture.name):
                return replace(picture, folder=folder)
    return replace(picture, folder=own)


def _in_words(options: LvisConfig, *, runs: bool) -> str:
    return ", ".join(
        (
            "polygons and run lengths of LVIS v1" if runs else "polygons of LVIS v1",
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
        if is_file(path):
            return path
    hint = (
        root_hint(config.root, (name, f"annotations/{name}", f"lvis/{name}"))
        or files_hint(places)
        or next(filter(None, (splits_hint(path, "lvis_v1_") for path in places)), "")
    )
    message = f"{places[0]} is missing, and so are {places[1]} and {places[2]}; {hint or _SOURCE}"
    raise InputError(message)


def _bases(root: Path) -> list[Path]:
    """Where folders of images are looked for."""
    return [root, root / "images", root / "coco", root.parent / "coco"]


def _image_folder(root: Path, name: str) -> Path:
    bases = _bases(root)
    for base in bases:
        if (base / name).is_dir():
            return base / name
    looked = ", ".join(str(base) for base in bases)
    hint = files_hint([base / name for base in bases]) or root_hint(root, (name,))
    message = f"the folder {name} with images is missing in each of {looked}; {hint or _SOURCE}"
    raise InputError(message)


def _check_categories(found: Sequence[LvisCategory], path: Path) -> None:
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


def _check_references(
    rows: Sequence[LvisObject], listed: Mapping[int, LvisPicture], path: Path
) -> None:
    """Refuse annotations of images or categories that are not listed."""
    categories = set(annotation_ids("lvis"))
    for each in _by_number(rows, "annotation", path).values():
        if each.image not in listed or each.category not in categories:
            message = (
                f"{path}: annotation {each.number} is of image {each.image} and category "
                f"{each.category}, expected both to be listed: fetch it again"
            )
            raise DataError(message)
        if reason := check_shape(each, listed[each.image]):
            message = (
                f"{path}: the part with id {each.number} is damaged ({reason}); put it right, or "
                f"fetch the file again"
            )
            raise DataError(message)
    for picture in listed.values():
        unknown = set(picture.absent or ()) - categories
        if unknown:
            message = (
                f"{path}: image {picture.number} lists category {min(unknown)} as absent, expected "
                f"1 to {max(categories)}: fetch it again"
            )
            raise DataError(message)


def _check_absent(wanted: Mapping[int, LvisPicture], path: Path) -> None:
    """Refuse images of which nobody says what they lack, where that decides the candidates."""
    for picture in wanted.values():
        if picture.absent is None:
            message = (
                f"{path}: image {picture.number} lacks neg_category_ids, which "
                f"candidates=federated needs: leave that setting out, or fetch LVIS v1"
            )
            raise DataError(message)


def _grouped(
    rows: Sequence[LvisObject], wanted: Mapping[int, LvisPicture]
) -> Mapping[int, list[LvisObject]]:
    """The objects of each wanted image, in the order of the file."""
    groups: dict[int, list[LvisObject]] = {}
    for each in rows:
        if each.image in wanted:
            groups.setdefault(each.image, []).append(each)
    return groups
