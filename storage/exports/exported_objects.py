"""The objects of a sample, pixel by pixel."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from storage.codecs import decode_label_map, decode_rle
from storage.picture_headers import image_size
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL
from storage.shards import Sample

__all__ = ["ExportedObject", "exported_objects"]


@dataclass(frozen=True)
class ExportedObject:
    """An object of a sample.

    Attributes:
        class_id: Vocabulary index.
        mask: Its pixels, of the size of the image.
        score: The detector's score in [0, 1]; None where there was no detector.
        predicted_iou: The segmenter's own estimate; None where there was none.
    """

    class_id: int
    mask: Bool[np.ndarray, "height width"]
    score: float | None = None
    predicted_iou: float | None = None


def exported_objects(sample: Sample) -> list[ExportedObject]:
    """The objects of a sample as they are stored, before overlaps are resolved.

    A sample without stored objects has one for each class that its label map shows.

    Raises:
        DataError: The label map or a mask is damaged.
    """
    if sample.instances:
        width, height = image_size(sample.image_bytes)
        return [
            ExportedObject(
                class_id=each.class_id,
                mask=decode_rle(each.rle, height, width, name=sample.member("json")),
                score=each.score,
                predicted_iou=each.predicted_iou,
            )
            for each in sample.instances
        ]
    labels = decode_label_map(sample.mask_bytes, name=sample.member("mask"))
    shown = set(np.unique(labels).tolist()) - {BACKGROUND_LABEL, IGNORE_LABEL}
    return [ExportedObject(label - 1, labels == label) for label in sorted(shown)]
