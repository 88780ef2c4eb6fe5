"""COCO-Stuff: 80 things and 91 stuff classes, on the images of COCO's val2017.

    images/val2017/<id>.jpg
    annotations/val2017/<id>_labelTrainIds.png      0 to 170 the classes, 255 unlabelled; what
                                                    mmsegmentation's converter writes
    annotations/val2017/<id>.png                    or the pixel maps of the release: COCO's
                                                    category id - 1, 255 unlabelled

Unlabelled pixels are ignored; there is no background. Where both are there the converted maps are
read; they are made from the others.
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
from storage.records import IGNORE_LABEL

_SIZE = 5000
_CONVERTED = "_labelTrainIds.png"
_RAW = ".png"
_THINGS_ALONE = "_instanceTrainIds.png"
_UNLABELLED = 255
_SOURCE = (
    "COCO-Stuff is val2017.zip of http://images.cocodataset.org/zips/, unpacked in "
    "coco_stuff164k/images, and stuffthingmaps_trainval2017.zip of "
    "https://github.com/nightrome/cocostuff, unpacked in coco_stuff164k/annotations"
)


def open_coco_stuff(config: BenchmarkConfig) -> LabelledImages:
    """Open COCO-Stuff.

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
        message = (
            f"{annotations} holds no label map <id>{_CONVERTED} or <id>{_RAW}; "
            f"{_other_labels(annotations) or _SOURCE}"
        )
        raise InputError(message)
    layout = LabelFiles(
        image_folder=images,
        label_folder=annotations,
        decode=_read_converted if converted else _read_raw,
        label_suffix=suffix,
    )
    truth = f"annotations/{config.split}2017/<id>{suffix}, unlabelled pixels ignored"
    origin = Origin(_SOURCE, truth, "COCO-Stuff", (_SIZE,))
    # Of both, so that half of a pair is found missing.
    keys = sorted(labelled | image_numbers(images, *PICTURE_ENDINGS))
    return LabelledImages(config, load_benchmark(config.name), keys, layout, origin)


def _other_labels(folder: Path) -> str:
    """Say what the folder holds in place of label maps, as part of a sentence."""
    if image_numbers(folder, _THINGS_ALONE):
        return (
            f"it holds <id>{_THINGS_ALONE}, which number the 80 things of COCO-Object alone: score "
            "them as coco_object, or put the pixel maps of COCO-Stuff there"
        )
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if image_numbers(inner, _CONVERTED, _RAW):
            return f"{inner} holds some: move them to {folder}"
    return ""


def _read_converted(path: Path) -> Labels:
    highest = len(annotation_ids("coco_stuff")) - 1
    stored = read_indices(path, _SOURCE, LabelColours(highest, _UNLABELLED))
    labels = checked_labels(stored, path, highest=highest, void=_UNLABELLED)
    return np.where(labels == IGNORE_LABEL, labels, labels + np.uint16(1))


def _read_raw(path: Path) -> Labels:
    """Read a pixel map of the release.

    Raises:
        InputError: If the file is missing.
        DataError: If it is damaged or holds a value that COCO-Stuff does not use.
    """
    table = _scored_labels()
    highest = int(np.flatnonzero(table)[-1])
    stored = read_indices(path, _SOURCE, LabelColours(highest, _UNLABELLED))
    labels = checked_labels(stored, path, highest=highest, void=_UNLABELLED)
    found = table[np.minimum(labels, highest)]
    wrong = (found == 0) & (labels != IGNORE_LABEL)
    if wrong.any():
        message = (
            f"{path} holds the value {stored[wrong].max()}, which COCO-Stuff does not use: fetch "
            f"the pixel maps of stuffthingmaps_trainval2017.zip"
        )
        raise DataError(message)
    return np.where(labels == IGNORE_LABEL, labels, found)


@cache
def _scored_labels() -> np.ndarray:
    """The label that is scored for each value of a pixel map; 0 for values without a meaning."""
    ids = np.asarray(annotation_ids("coco_stuff"))
    scored = np.zeros(ids.max(), dtype=np.uint16)
    scored[ids - 1] = np.arange(1, len(ids) + 1)
    return scored
