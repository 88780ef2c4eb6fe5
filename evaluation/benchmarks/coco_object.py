"""COCO-Object: the 80 things of COCO and background, on the images of COCO's val2017.

    images/val2017/<id>.jpg
    annotations/val2017/<id>_instanceTrainIds.png   0 is background, 1 to 80 the classes; what
                                                    GroupViT's converter writes
    annotations/val2017/<id>.png                    or the pixel maps of COCO-Stuff: COCO's category
                                                    id - 1; stuff and unlabelled pixels, which are
                                                    255, are background

No pixel is ignored. Where both are there the converted maps are read; they are made from the
others. Masks that people draw themselves from `instances_val2017.json` differ wherever objects
overlap, and are no COCO-Object.
"""

from functools import cache
from pathlib import Path

import numpy as np

from evaluation.benchmarks.coco_folders import coco_folder, image_numbers
from evaluation.benchmarks.colour_tables import LabelColours
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.folders import (
    LabelFiles,
    LabelledImages,
    Labels,
    Origin,
    checked_labels,
    read_indices,
)
from evaluation.benchmarks.split_files import PICTURE_ENDINGS
from storage.class_sets import annotation_ids, load_benchmark
from storage.errors import DataError, InputError
from storage.records import BACKGROUND_LABEL

_SIZE = 5000
_CONVERTED = "_instanceTrainIds.png"
_RAW = ".png"
_ALL_STUFF = "_labelTrainIds.png"
_STUFF = range(91, 182)
_UNLABELLED = 255
_SOURCE = (
    "COCO-Object is made of val2017.zip of http://images.cocodataset.org/zips/, unpacked in "
    "coco_stuff164k/images, and stuffthingmaps_trainval2017.zip of "
    "https://github.com/nightrome/cocostuff, unpacked in coco_stuff164k/annotations"
)


def open_coco_object(config: BenchmarkConfig) -> LabelledImages:
    """Open COCO-Object.

    Args:
        config: The split is `val` or `train`.

    Raises:
        InputError: If a folder is missing, or holds no label map.
    """
    images = coco_folder(config, "images", _SOURCE)
    annotations = coco_folder(config, "annotations", _SOURCE)
    converted = image_numbers(annotations, _CONVERTED)
    suffix = _CONVERTED if converted else _RAW
    labelled = converted or image_numbers(annotations, _RAW)
    if not labelled:
        way_out = _other_labels(annotations) or _SOURCE
        message = f"{annotations} holds no label map <id>{_CONVERTED} or <id>{_RAW}; {way_out}"
        raise InputError(message)
    layout = LabelFiles(
        image_folder=images,
        label_folder=annotations,
        decode=_read_converted if converted else _read_raw,
        label_suffix=suffix,
    )
    truth = f"annotations/{config.split}2017/<id>{suffix}, all but the 80 things is background"
    origin = Origin(_SOURCE, truth, "COCO", (_SIZE,))
    # Of both, so that half of a pair is found missing.
    keys = sorted(labelled | image_numbers(images, *PICTURE_ENDINGS))
    return LabelledImages(config, load_benchmark(config.name), keys, layout, origin)


def _other_labels(folder: Path) -> str:
    """Say what the folder holds in place of label maps, as part of a sentence."""
    if image_numbers(folder, _ALL_STUFF):
        return (
            f"it holds <id>{_ALL_STUFF}, which number all 171 classes of COCO-Stuff: score them as "
            "coco_stuff, convert the pixel maps with GroupViT's converter, or put them there "
            "themselves"
        )
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if image_numbers(inner, _CONVERTED, _RAW):
            return f"{inner} holds some: move them to {folder}"
    return ""


def _read_converted(path: Path) -> Labels:
    known = LabelColours(len(annotation_ids("coco_object")))
    return checked_labels(
        read_indices(path, _SOURCE, known), path, highest=known.highest, void=known.void
    )


def _read_raw(path: Path) -> Labels:
    """Read a pixel map of COCO-Stuff.

    Raises:
        InputError: If the file is missing.
        DataError: If it is damaged or holds a value that COCO-Stuff does not use.
    """
    stored = read_indices(path, _SOURCE, LabelColours(_STUFF.stop - 1, _UNLABELLED))
    table = _scored_labels()
    wrong = (stored >= len(table)) | (table[np.minimum(stored, len(table) - 1)] < 0)
    if wrong.any():
        message = (
            f"{path} holds the value {stored[wrong].max()}, which COCO-Stuff does not use: fetch "
            f"the pixel maps of stuffthingmaps_trainval2017.zip"
        )
        raise DataError(message)
    return table[stored].astype(np.uint16)


@cache
def _scored_labels() -> np.ndarray:
    """The label that is scored for each value of a pixel map; -1 for values without a meaning."""
    scored = np.full(256, -1, dtype=np.int32)
    things = np.asarray(annotation_ids("coco_object"))
    scored[things - 1] = np.arange(1, len(things) + 1)
    scored[_STUFF.start : _STUFF.stop] = BACKGROUND_LABEL
    scored[_UNLABELLED] = BACKGROUND_LABEL
    return scored
