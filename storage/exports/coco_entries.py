"""Entries of COCO's lists of images and annotations, and ids that stay the same.

An image's id is `number * 10**8 + position in the slice`, where the number stands for the slice (by
its id, so it is the same in every export), an annotation's id is `image id * 1000 + object`, from 1
on. Both stay below 2**53, where floats and JavaScript are still exact, and do not change when a
dataset grows. The id of a category is the class id + 1, as in the label maps. The format:
https://cocodataset.org/#format-data.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

from pycocotools import mask as coco_mask
from pydantic import Field

from storage.errors import DataError, InputError
from storage.exports.selection import place_of
from storage.files import write_whole
from storage.picture_headers import image_format, image_size
from storage.plan import MAX_SAMPLES
from storage.records import Record, read_record
from storage.shards import Sample

IMAGES, TWINS = "images", "counterfactuals"
"""Folders of an export."""
EXPORT_AGAIN = "remove it and export again"

_SLICES, _PER_SLICE, _PER_IMAGE = 90_000, MAX_SAMPLES, 1000


def annotate(
    sample: Sample, number: int, classes: Collection[int] | None = None
) -> Iterator[dict[str, Any]]:
    """The annotations of a sample, from its run lengths alone.

    Args:
        sample: The sample; its run lengths have been checked.
        number: The number of its slice.
        classes: Objects of these classes alone; they have the ids that they have among all.

    Raises:
        DataError: A mask has another area than its record says.
        InputError: It has more objects than there are ids.
    """
    if len(sample.instances) >= _PER_IMAGE:
        message = (
            f"sample {sample.key} has {len(sample.instances)} objects, expected fewer than "
            f"{_PER_IMAGE}: leave it out ('magicseg exclusions add')"
        )
        raise InputError(message)
    image = image_id(sample.key, number)
    width, height = image_size(sample.image_bytes)
    for position, each in enumerate(sample.instances, start=1):
        if classes is not None and each.class_id not in classes:
            continue
        rle = {"size": [height, width], "counts": each.rle}
        area, box = _measure(rle)
        if area != each.area:
            message = (
                f"{sample.source}: {sample.key}.json: object {position} has a mask of {area} "
                f"pixels, its area says {each.area}; verify the dataset"
            )
            raise DataError(message)
        yield {
            "id": image * _PER_IMAGE + position,
            "image_id": image,
            "category_id": each.class_id + 1,
            "segmentation": rle,
            "area": area,
            "bbox": box,
            "iscrowd": 0,
            "score": each.score,
            "predicted_iou": each.predicted_iou,
        }


def image_id(key: str, number: int) -> int:
    """The id of an image, from the number of its slice and its place there; never 0."""
    return number * _PER_SLICE + place_of(key)[1]


class SliceNumbers:
    """Numbers of slices in [1, 90000], by their ids; what was given once in a folder stays.

    Args:
        file: Where they are kept; written before a new number is used.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, int] = {}
        if file.is_file():
            kept = read_record(_Numbers, file.read_bytes(), str(file), way_out=EXPORT_AGAIN)
            self._known = dict(kept.numbers)

    def of(self, slice_id: str) -> int:
        """The number of a slice; the next free one where two ids give the same."""
        if slice_id not in self._known:
            number = int(slice_id, 16) % _SLICES
            taken = set(self._known.values())
            while number + 1 in taken:
                number = (number + 1) % _SLICES
            self._known[slice_id] = number + 1
            write_whole(self._file, _Numbers(numbers=self._known).model_dump_json().encode())
        return self._known[slice_id]


class _Numbers(Record, frozen=True):
    numbers: dict[str, Annotated[int, Field(ge=1, le=_SLICES)]]


def _measure(rle: dict[str, Any]) -> tuple[int, list[float]]:
    """Pixels and box (left, top, width, height) of run lengths."""
    library: Any = coco_mask
    return int(library.area(rle)), [float(value) for value in library.toBbox(rle)]


def describe_image(sample: Sample, number: int, shard: str) -> dict[str, Any]:
    """The entry of a sample's image.

    Args:
        sample: The sample.
        number: The number of its slice.
        shard: Name of the folder that its image is in.
    """
    width, height = image_size(sample.image_bytes)
    name = f"{shard}/{sample.key}.{image_format(sample.image_bytes)}"
    return {
        "id": image_id(sample.key, number),
        "file_name": name,
        "width": width,
        "height": height,
        "license": 1,
        "key": sample.key,
        "text": sample.text,
        "counterfactual_file_name": f"../{TWINS}/{name}",
        "counterfactual_text": sample.counterfactual_text,
        "class_ids": list(sample.class_ids),
    }
