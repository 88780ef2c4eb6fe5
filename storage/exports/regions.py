"""Regions: the masks of a sample one by one, as other tools want them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, UInt16
from pycocotools import mask as coco_mask

from storage.codecs import decode_label_map, decode_rle, encode_rle
from storage.errors import DataError
from storage.picture_headers import image_size
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL, Instance
from storage.shards import Sample

__all__ = ["Region", "shown_regions", "stored_regions"]

IGNORED = "ignored"
"""What the region of the pixels that are to be ignored is called; no class has this name."""


@dataclass(frozen=True)
class Region:
    """A mask of one class.

    Attributes:
        class_id: Vocabulary index; None for the pixels that are to be ignored.
        rle: COCO run-length counts (compressed, ASCII) at the size of the image.
        area: Its pixels.
        box: Left, top, width and height of the smallest box around it, in pixels.
        size: Height and width of the image.
        score: The detector's score in [0, 1]; None where there was no detector.
        predicted_iou: The segmenter's own estimate; None where there was none.
    """

    class_id: int | None
    rle: str
    area: int
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    score: float | None = None
    predicted_iou: float | None = None

    @property
    def scores(self) -> tuple[float, float]:
        """Score and estimate for forms that need numbers: 1 where there is none."""
        score = 1.0 if self.score is None else self.score
        return score, 1.0 if self.predicted_iou is None else self.predicted_iou

    def mask(self, name: str) -> Bool[np.ndarray, "height width"]:
        """Its pixels.

        Args:
            name: What messages call the mask.

        Raises:
            DataError: The run lengths are not those of the image, or there is no pixel.
        """
        if not self.area:
            message = f"{name} has an object without a pixel; verify the dataset"
            raise DataError(message)
        return decode_rle(self.rle, *self.size, name=name)


def stored_regions(sample: Sample) -> tuple[Region, ...]:
    """The stored objects of a sample, as they are before overlaps are resolved.

    Areas and boxes come from the run lengths; no mask is made. A sample without objects, which the
    engine never writes, gives what its label map shows.
    """
    if not sample.instances:
        return tuple(each for each in shown_regions(sample) if each.class_id is not None)
    width, height = image_size(sample.image_bytes)
    return tuple(_region(each, height, width) for each in sample.instances)


def shown_regions(sample: Sample) -> tuple[Region, ...]:
    """What the label map shows: each object without the pixels that another class won.

    Objects of one class may overlap. Pixels that the map gives to a class without an object are a
    region of their own, and so are those that are to be ignored, so that all regions together are
    the label map. Regions without a pixel are left out.
    """
    labels = decode_label_map(sample.mask_bytes, name=sample.member("mask"))
    return tuple(_shown(sample, labels))


def _shown(sample: Sample, labels: UInt16[np.ndarray, "height width"]) -> Iterator[Region]:
    height, width = labels.shape
    covered = labels == BACKGROUND_LABEL
    for each in sample.instances:
        own = decode_rle(each.rle, height, width, name=sample.key) & (labels == each.class_id + 1)
        covered |= own
        if own.any():
            yield _of_mask(each.class_id, own, each.score, each.predicted_iou)
    for label in np.unique(labels[~covered]).tolist():
        rest = ~covered & (labels == label)
        yield _of_mask(None if label == IGNORE_LABEL else label - 1, rest)


def _of_mask(
    class_id: int | None,
    mask: Bool[np.ndarray, "height width"],
    score: float | None = None,
    predicted_iou: float | None = None,
) -> Region:
    rle, size = encode_rle(mask), (mask.shape[0], mask.shape[1])
    area, box = measure_runs(rle, *size)
    return Region(class_id, rle, area, box, size, score, predicted_iou)


def _region(instance: Instance, height: int, width: int) -> Region:
    area, box = measure_runs(instance.rle, height, width)
    score, iou = instance.score, instance.predicted_iou
    return Region(instance.class_id, instance.rle, area, box, (height, width), score, iou)


def measure_runs(rle: str, height: int, width: int) -> tuple[int, tuple[int, int, int, int]]:
    """Pixels of run lengths, and left, top, width and height of the box around them.

    Args:
        rle: Run lengths that `storage.run_lengths.check_rle` takes.
        height: Rows of the mask.
        width: Columns of the mask.
    """
    encoded: Any = {"size": [height, width], "counts": rle.encode()}
    left, top, wide, high = cast("Any", coco_mask.toBbox(encoded)).tolist()
    return int(cast("Any", coco_mask.area(encoded))), (int(left), int(top), int(wide), int(high))
