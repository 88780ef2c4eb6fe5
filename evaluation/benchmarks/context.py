"""PASCAL Context: the 59 frequent classes, with or without background.

Read from the folder `VOCdevkit/VOC2010`, where the images are, in either of two layouts:

    JPEGImages/<name>.jpg
    SegmentationClassContext/<name>.png             indexed: 0 is background, 1 to 59 the classes;
                                                    what mmsegmentation's converter writes
    trainval/<name>.mat                             the release itself: LabelMap with 459 labels, of
    labels.txt                                      which 59 count and all others are background
    ImageSets/SegmentationContext/<split>.txt       one name a line; the names of val are shipped

Where both are there the PNGs are read: numbers on this benchmark are published on them. Both are
made from the same annotations.
"""

import re
from pathlib import Path

import numpy as np

from evaluation.benchmarks.colour_tables import context_colours
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.folders import (
    LabelFiles,
    LabelledImages,
    Labels,
    Origin,
    checked_labels,
    read_indices,
    read_list,
)
from evaluation.benchmarks.matlab_files import read_label_map
from evaluation.benchmarks.near_misses import exists, root_hint
from evaluation.benchmarks.split_files import read_text
from evaluation.benchmarks.split_lists import listed_names
from storage.class_sets import annotation_ids, load_benchmark
from storage.errors import DataError, InputError
from storage.records import BACKGROUND_LABEL
from storage.tables import table_file
from storage.texts import split_lines

_NUM_RELEASED = 459
_SHIPPED_SPLIT = "val"
_SOURCE = (
    "the images of PASCAL Context are VOCtrainval_03-May-2010.tar of "
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/; unpack trainval.tar.gz of "
    "https://cs.stanford.edu/~roozbeh/pascal-context/ in VOCdevkit/VOC2010, or convert it to "
    "SegmentationClassContext with mmsegmentation's tools/dataset_converters/pascal_context.py"
)
# The official list has 5,105 names by some sources; the lists that others score hold 5,104.
_SIZES = (5104, 5105)
_PUBLISHED_AS = {"context60": "PASCAL Context", "context59": "PASCAL Context59 (no bg)"}
_LINE = re.compile(r"\s*(\d+)\s*:\s*(\S.*?)\s*")


def open_context(config: BenchmarkConfig) -> LabelledImages:
    """Open PASCAL Context.

    Args:
        config: `context60` or `context59`; the split is the name of a list.

    Raises:
        InputError: If there are neither PNGs nor .mat files, or no list of the split.
        DataError: If `labels.txt` numbers the classes in another way than the release, or the list
            names an image twice.
    """
    converted = config.root / "SegmentationClassContext"
    released = config.root / "trainval"
    if converted.is_dir():
        layout = LabelFiles(config.root / "JPEGImages", converted, _read_png)
        truth = "PNGs of SegmentationClassContext"
    elif released.is_dir():
        _check_numbers(config.root / "labels.txt")
        layout = LabelFiles(config.root / "JPEGImages", released, _read_mat, label_suffix=".mat")
        truth = ".mat files of the release, labels outside the 59 are background"
    else:
        way_out = root_hint(config.root, (converted.name, released.name)) or _SOURCE
        message = f"neither {converted} nor {released} is there, expected one of them; {way_out}"
        raise InputError(message)
    classes = load_benchmark(config.name)
    if not classes.background:
        truth += ", background ignored"
    origin = Origin(_SOURCE, truth, _PUBLISHED_AS[config.name], _SIZES)
    return LabelledImages(config, classes, _names(config, layout), layout, origin)


def _names(config: BenchmarkConfig, layout: LabelFiles) -> list[str]:
    listing = config.root / "ImageSets" / "SegmentationContext" / f"{config.split}.txt"
    if config.split == _SHIPPED_SPLIT and not exists(listing):
        shipped = table_file("context_val.txt")
        return listed_names(shipped.read_text(encoding="utf-8"), str(shipped))
    return read_list(listing, _SOURCE, layout)


def _read_png(path: Path) -> Labels:
    colours = context_colours(len(annotation_ids("context60")))
    stored = read_indices(path, _SOURCE, colours)
    return checked_labels(stored, path, highest=colours.highest, void=colours.void)


def _read_mat(path: Path) -> Labels:
    """Read a label map of the release.

    Raises:
        InputError: If the file is missing.
        DataError: If it is damaged, or holds no label map or labels outside the release's list.
    """
    found = read_label_map(path, _SOURCE)
    wrong = (found != np.floor(found)) | (found < BACKGROUND_LABEL) | (found > _NUM_RELEASED)
    if wrong.any():
        message = (
            f"{path} holds the label {found[wrong].max():g}, expected 0 to {_NUM_RELEASED}: fetch "
            f"it again"
        )
        raise DataError(message)
    return _scored_labels()[found.astype(np.int64)]


def _scored_labels() -> np.ndarray:
    """The label that is scored for each label of the release."""
    scored = np.full(_NUM_RELEASED + 1, BACKGROUND_LABEL, dtype=np.uint16)
    ids = annotation_ids("context60")
    scored[list(ids)] = np.arange(1, len(ids) + 1)
    return scored


def _check_numbers(path: Path) -> None:
    """Check the ids that are used against the release's own list of labels, if it is there."""
    if not path.is_file():
        return
    classes = load_benchmark("context60").names
    numbers = dict(zip(classes, annotation_ids("context60"), strict=True))
    for line in split_lines(read_text(path, _SOURCE, "the list of labels")):
        match = _LINE.fullmatch(line)
        if match and numbers.get(match[2], int(match[1])) != int(match[1]):
            message = (
                f"{path} gives {match[2]} the number {match[1]}, expected {numbers[match[2]]} as "
                f"in the release: the .mat files beside it would be misread, fetch both again"
            )
            raise DataError(message)
