"""COCO instances: one JSON file with the stored run lengths as they are, images beside it.

The format is COCO's object detection (cocodataset.org/#format-data): `images`, `annotations` with
compressed run lengths, `categories`. A category's id is the class id + 1, whatever is exported.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from storage.exports.forms import Entries, ExportFacts, laid_out, stable_id
from storage.exports.regions import stored_regions
from storage.picture_headers import image_size
from storage.shards import Sample
from storage.vocabulary import Vocabulary

__all__ = ["CocoForm"]

_LICENCE_ID = 1


class CocoForm:
    """Writes samples as COCO instances.

    Args:
        vocabulary: Its classes are the categories, all of them.
    """

    name = "coco"
    document = "instances.json"
    parts = ("images", "annotations")
    folders = ("images", "counterfactuals")
    is_numbered = True

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def file_names(self, key: str, suffix: str) -> tuple[str, ...]:
        """Image and counterfactual of a sample."""
        return f"{key}{suffix}", f"{key}{suffix}"

    def entries(self, sample: Sample, suffix: str) -> Entries:
        """An image, and an annotation for each stored object."""
        width, height = image_size(sample.image_bytes)
        image_id = stable_id(sample.key)
        image = {
            "id": image_id,
            "file_name": f"images/{sample.key}{suffix}",
            "width": width,
            "height": height,
            "license": _LICENCE_ID,
            "key": sample.key,
            "text": sample.text,
            "counterfactual_file_name": f"counterfactuals/{sample.key}{suffix}",
            "counterfactual_text": sample.counterfactual_text,
        }
        annotations = [
            {
                "id": stable_id(sample.key, number),
                "image_id": image_id,
                "category_id": (each.class_id or 0) + 1,
                "segmentation": {"size": [height, width], "counts": each.rle},
                "area": each.area,
                "bbox": each.box,
                "iscrowd": 0,
                "score": each.scores[0],
                "predicted_iou": each.scores[1],
            }
            for number, each in enumerate(stored_regions(sample))
        ]
        lines = {"images": [_json(image)], "annotations": [_json(each) for each in annotations]}
        return Entries(lines, len(annotations), (sample.image_bytes, sample.counterfactual_bytes))

    def document_lines(
        self, facts: ExportFacts, lists: Mapping[str, Iterator[str]]
    ) -> Iterator[str]:
        """The dataset's facts, images, annotations; all categories are in the beginning."""
        info = {
            "description": facts.description,
            "version": facts.dataset,
            "contributor": "MagicSeg engine",
            "vocabulary": facts.vocabulary,
        }
        licences = [{"id": _LICENCE_ID, "name": facts.licence, "url": ""}]
        categories = [
            {"id": each.class_id + 1, "name": each.name, "supercategory": ""}
            for each in self._vocabulary
        ]
        head = f'{{"info":{_json(info)},\n"licenses":{_json(licences)},\n"categories":'
        first = f'{head}{_json(categories)},\n"images":[\n'
        yield from laid_out((first, '\n],\n"annotations":[\n', "\n]}\n"), lists, ",\n")

    def other_files(self, facts: ExportFacts) -> Mapping[str, str]:
        """None."""
        del facts
        return {}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
