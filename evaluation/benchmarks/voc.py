"""PASCAL VOC 2012, and whatever else lies on disk as it does.

JPEGImages/<name>.jpg
SegmentationClass/<name>.png              indexed: 0 is background, 255 is ignored
SegmentationClassAug/<name>.png           for the split trainaug, what the first folder lacks
ImageSets/Segmentation/<split>.txt        one name a line
"""

from dataclasses import replace
from pathlib import Path

from evaluation.benchmarks.colour_tables import voc_like
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
from evaluation.benchmarks.near_misses import root_hint
from storage.class_sets import load_benchmark
from storage.errors import InputError

_MARKS = ("ImageSets/Segmentation",)
_AUGMENTED, _AUGMENTED_SPLIT = "SegmentationClassAug", "trainaug"
_VOC_FROM = (
    "PASCAL VOC 2012 is the archive VOCtrainval_11-May-2012.tar of "
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/: unpack it and name its folder "
    "VOCdevkit/VOC2012"
)
_DRAWN_FROM = (
    "the drawn benchmark is written by `python -m models.miniature.benchmark --out FOLDER`"
)
_VOC_TRUTH = "SegmentationClass, void borders ignored"
_ORIGINS = {
    "voc21": Origin(_VOC_FROM, _VOC_TRUTH, "PASCAL VOC", (1449,)),
    "voc20": Origin(
        _VOC_FROM, f"{_VOC_TRUTH}, background ignored", "PASCAL VOC20 (no bg)", (1449,)
    ),
    "miniature": Origin(_DRAWN_FROM, "exact masks of the drawn objects"),
    "miniature14": Origin(_DRAWN_FROM, "exact masks of the drawn objects, background ignored"),
}


def open_voc(config: BenchmarkConfig) -> LabelledImages:
    """Open a benchmark in the layout of PASCAL VOC.

    Args:
        config: `voc21`, `voc20`, `miniature` or `miniature14`; the split is the name of a list.

    Raises:
        InputError: If the split's list is missing or empty.
        DataError: If it names an image twice.
    """
    classes = load_benchmark(config.name)
    origin = _ORIGINS[config.name]
    colours = voc_like(len(classes.names))

    def decode(path: Path) -> Labels:
        stored = read_indices(path, origin.where_to_get, colours)
        return checked_labels(stored, path, highest=colours.highest, void=colours.void)

    labels = config.root / "SegmentationClass"
    more = labels.with_name(_AUGMENTED)
    augmented = config.split == _AUGMENTED_SPLIT and more.is_dir()
    layout = LabelFiles(
        image_folder=config.root / "JPEGImages",
        label_folder=labels,
        decode=decode,
        more_labels=more if augmented else None,
    )
    listing = config.root / "ImageSets" / "Segmentation" / f"{config.split}.txt"
    if not listing.parent.is_dir() and (hint := root_hint(config.root, _MARKS)):
        message = f"{listing} is missing, expected a list of image names; {hint}"
        raise InputError(message)
    names = read_list(listing, origin.where_to_get, layout)
    # A folder that has all labels in one place is scored by the same truth as ever.
    if augmented and any(layout.label_file(name).is_relative_to(more) for name in names):
        origin = replace(origin, truth=f"{origin.truth}, {_AUGMENTED} for labels that it lacks")
    return LabelledImages(config, classes, names, layout, origin)
