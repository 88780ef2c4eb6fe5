"""Cityscapes: 19 classes of street scenes, in the folders of the release.

    leftImg8bit/<split>/<city>/<name>_leftImg8bit.png
    gtFine/<split>/<city>/<name>_gtFine_labelIds.png        the label ids of the release, 0 to 33
    gtFine/<split>/<city>/<name>_gtFine_labelTrainIds.png   or what cityscapesScripts make of them:
                                                            0 to 18 the classes, 255 void

The table from label ids to classes is that of cityscapesScripts (helpers/labels.py): 19 labels
count, the other 15 are void and ignored, and so are 255 and -1, which no file of label ids holds.
Where both are there the label ids are read: the train ids are everybody's own to change. There is
no list of a split: its folders are the list.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from evaluation.benchmarks.colour_tables import LabelColours
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.folders import (
    LabelledImages,
    Labels,
    Origin,
    checked_labels,
    read_indices,
)
from evaluation.benchmarks.near_misses import files_hint, root_hint
from evaluation.benchmarks.split_files import PICTURE_ENDINGS, first_file
from storage.class_sets import annotation_ids, load_benchmark
from storage.errors import InputError
from storage.records import IGNORE_LABEL

_SIZE = 500
_IMAGES, _LABELS = "leftImg8bit", "gtFine"
_IMAGE = "_leftImg8bit"
_LABEL_IDS = "_gtFine_labelIds.png"
_TRAIN_IDS = "_gtFine_labelTrainIds.png"
_HIGHEST_ID = 33
_VOID = 255
_WITHOUT_TRUTH = "test"
_SOURCE = (
    "Cityscapes is leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of "
    "https://www.cityscapes-dataset.com/downloads/ (after registration), unpacked in one folder"
)


def open_cityscapes(config: BenchmarkConfig) -> LabelledImages:
    """Open Cityscapes.

    Args:
        config: The split is `val` or `train`.

    Raises:
        InputError: If a folder is missing or holds no city with label maps, or the split is `test`,
            whose truth is not public.
    """
    if config.split == _WITHOUT_TRUTH:
        message = (
            "the split test of Cityscapes has no public truth (its label maps are void all over), "
            "expected val or train: choose one of them"
        )
        raise InputError(message)
    images, annotations = _folder(config, _IMAGES), _folder(config, _LABELS)
    released = _keys(annotations, _LABEL_IDS)
    suffix = _LABEL_IDS if released else _TRAIN_IDS
    labelled = released or _keys(annotations, _TRAIN_IDS)
    if not labelled:
        way_out = _other_labels(annotations) or _SOURCE
        message = (
            f"{annotations} holds no label map <city>/<name>{_LABEL_IDS} or "
            f"<city>/<name>{_TRAIN_IDS}; {way_out}"
        )
        raise InputError(message)
    layout = CityFolders(images, annotations, suffix, _read_ids if released else _read_train_ids)
    truth = f"{_LABELS}/{config.split}/<city>/<name>{suffix}, 19 classes, all other labels ignored"
    origin = Origin(_SOURCE, truth, "Cityscapes", (_SIZE,))
    # Of both, so that half of a pair is found missing.
    keys = labelled.union(*(_keys(images, f"{_IMAGE}{ending}") for ending in PICTURE_ENDINGS))
    return LabelledImages(config, load_benchmark(config.name), sorted(keys), layout, origin)


@dataclass(frozen=True)
class CityFolders:
    """A folder for each city.

    Attributes:
        images: Holds ``<city>/<name>_leftImg8bit.png``, a key being ``<city>/<name>``.
        annotations: Holds ``<city>/<name>`` with ``suffix`` behind it.
        suffix: End of the label files' names.
        decode: Reads labels as `evaluation.benchmarks.folders.Layout.labels` describes them.
    """

    images: Path
    annotations: Path
    suffix: str
    decode: Callable[[Path], Labels]

    def image(self, key: str) -> Path:
        """The image's file."""
        plain = self.images / f"{key}{_IMAGE}.png"
        others = [self.images / f"{key}{_IMAGE}{ending}" for ending in PICTURE_ENDINGS]
        return first_file(plain, others)

    def label_file(self, key: str) -> Path:
        """The file that holds its labels."""
        return self.annotations / f"{key}{self.suffix}"

    def labels(self, key: str) -> Labels:
        """Its labels."""
        return self.decode(self.label_file(key))

    def candidates(self, key: str) -> None:
        """All classes."""


def _folder(config: BenchmarkConfig, kind: str) -> Path:
    path = config.root / kind / config.split
    if not path.is_dir():
        splits = _folders(path.parent)
        hint = f"there are the splits {', '.join(splits)}: choose one of them" if splits else ""
        hint = hint or files_hint([path]) or root_hint(config.root, (f"{kind}/{path.name}",))
        message = f"the folder {path} is missing; {hint or _SOURCE}"
        raise InputError(message)
    return path


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(child.name for child in folder.iterdir() if child.is_dir())


def _keys(folder: Path, ending: str) -> set[str]:
    """The images, as city and name, of which the folder holds a file with such an end."""
    return {
        f"{path.parent.name}/{path.name.removesuffix(ending)}"
        for path in folder.glob(f"*/*{ending}")
        if path.name != ending
    }


def _other_labels(folder: Path) -> str:
    """Say what the folder holds in place of label maps, as part of a sentence."""
    if any(folder.glob("*/*_gtCoarse_labelIds.png")):
        return "it holds the coarse annotations, expected the fine ones of gtFine_trainvaltest.zip"
    if any(folder.glob("*/*_gtFine_polygons.json")):
        return (
            "it holds polygons alone: draw them with cityscapesscripts' "
            "preparation/createTrainIdLabelImgs.py, or unpack gtFine_trainvaltest.zip as a whole"
        )
    if any(folder.glob(f"*{_LABEL_IDS}")) or any(folder.glob(f"*{_TRAIN_IDS}")):
        return "label maps lie in it without a folder of their city: put them into <city>/"
    return ""


def _read_ids(path: Path) -> Labels:
    """Read the label ids of the release.

    Raises:
        InputError: If the file is missing.
        DataError: If it is damaged or holds a value that is no label id.
    """
    stored = read_indices(path, _SOURCE, LabelColours(_HIGHEST_ID))
    return _scored_labels()[checked_labels(stored, path, highest=_HIGHEST_ID, void=None)]


def _read_train_ids(path: Path) -> Labels:
    """Read train ids.

    Raises:
        InputError: If the file is missing.
        DataError: If it is damaged or holds a value that is no train id.
    """
    highest = len(annotation_ids("cityscapes")) - 1
    stored = read_indices(path, _SOURCE, LabelColours(highest, _VOID))
    labels = checked_labels(stored, path, highest=highest, void=_VOID)
    return np.where(labels == IGNORE_LABEL, labels, labels + np.uint16(1))


@cache
def _scored_labels() -> np.ndarray:
    """The label that is scored for each label id."""
    scored = np.full(_HIGHEST_ID + 1, IGNORE_LABEL, dtype=np.uint16)
    ids = annotation_ids("cityscapes")
    scored[list(ids)] = np.arange(1, len(ids) + 1)
    return scored
