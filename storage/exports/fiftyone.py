"""FiftyOne's own folder (`fiftyone.types.FiftyOneDataset`), written without FiftyOne.

    metadata.json                          fields, classes, what the dataset is
    samples.json                           the samples; there only while the folder is whole
    data/<key>.jpg|png                     images as they are in the shards
    fields/counterfactual/<key>.jpg|png    counterfactuals, which FiftyOne finds as a media field

Source: https://docs.voxel51.com/user_guide/export_datasets.html#fiftyonedataset; arrays are bytes
of `numpy.save`, packed by zlib, in MongoDB's extended JSON. Written as version 1.0 of FiftyOne;
later ones bring it up to date when they read it.
"""

import hashlib
import io
import json
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from storage.exports.forms import Entries, ExportFacts, card_text, laid_out
from storage.exports.regions import Region, stored_regions
from storage.picture_headers import image_size
from storage.shards import Sample
from storage.vocabulary import Vocabulary

__all__ = ["FiftyOneForm"]

_VERSION = "1.0.0"
_FIELDS = "fiftyone.core.fields"
_MIME = {".jpg": "image/jpeg", ".png": "image/png"}
_TEXTS = ("text", "counterfactual_text", "key", "writer", "counterfactual")


class FiftyOneForm:
    """Samples as FiftyOne imports them, each mask a detection.

    Args:
        vocabulary: Names the classes.
    """

    name = "fiftyone"
    document = "samples.json"
    parts = ("samples",)
    is_numbered = False
    folders = ("data", "fields/counterfactual")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def file_names(self, key: str, suffix: str) -> tuple[str, ...]:
        """Image and counterfactual of a sample."""
        return f"{key}{suffix}", f"{key}{suffix}"

    def entries(self, sample: Sample, suffix: str) -> Entries:
        """What a sample becomes.

        Raises:
            DataError: A mask has no pixel.
        """
        width, height = image_size(sample.image_bytes)
        regions = stored_regions(sample)
        found = [self._detection(sample, number, each) for number, each in enumerate(regions)]
        document: dict[str, Any] = {
            "_id": _object_id(sample.key),
            "filepath": f"data/{sample.key}{suffix}",
            "tags": [],
            "_media_type": "image",
            "_rand": int(_hash(sample.key, "rand")[:13], 16) / 16**13,
            "metadata": {
                "_cls": "ImageMetadata",
                "size_bytes": len(sample.image_bytes),
                "mime_type": _MIME[suffix],
                "width": width,
                "height": height,
                "num_channels": 3,
            },
            "key": sample.key,
            "text": sample.text,
            "counterfactual_text": sample.counterfactual_text,
            "writer": sample.writer,
            "counterfactual": f"fields/counterfactual/{sample.key}{suffix}",
            "class_names": list(sample.class_names),
            "masks": {"_cls": "Detections", "detections": found},
        }
        pictures = (sample.image_bytes, sample.counterfactual_bytes)
        line = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        return Entries({"samples": [line]}, len(found), pictures)

    def document_lines(
        self, facts: ExportFacts, lists: Mapping[str, Iterator[str]]
    ) -> Iterator[str]:
        """`samples.json`, a sample a line."""
        del facts  # metadata.json has them
        yield from laid_out(('{"samples":[\n', "\n]}\n"), lists, ",\n")

    def other_files(self, facts: ExportFacts) -> Mapping[str, str]:
        """`metadata.json`."""
        document = {
            "version": _VERSION,
            "media_type": "image",
            "tags": [],
            "info": {
                "dataset": facts.dataset,
                "vocabulary": self._vocabulary.name,
                "card": card_text(facts),
            },
            "app_config": {
                "_cls": "DatasetAppConfig",
                "media_fields": ["filepath", "counterfactual"],
                "grid_media_field": "filepath",
                "modal_media_field": "filepath",
            },
            "classes": {"masks": [each.name for each in self._vocabulary]},
            "default_classes": [],
            "sample_fields": _sample_fields(),
            "frame_fields": [],
        }
        return {"metadata.json": json.dumps(document, ensure_ascii=False, indent=1) + "\n"}

    def _detection(self, sample: Sample, number: int, each: Region) -> dict[str, Any]:
        """An object; its box goes around its pixels, and its mask is that part of the image."""
        mask = each.mask(sample.member("json"))
        (height, width), (left, top, wide, high) = each.size, each.box
        found: dict[str, Any] = {
            "_id": _object_id(sample.key, number),
            "_cls": "Detection",
            "tags": [],
            "label": self._vocabulary[each.class_id or 0].name,
            "bounding_box": [left / width, top / height, wide / width, high / height],
            "mask": _array(mask[top : top + high, left : left + wide]),
            "area": each.area,
        }
        if each.score is not None:
            found["confidence"] = each.score
        if each.predicted_iou is not None:
            found["predicted_iou"] = each.predicted_iou
        return found


def _hash(*parts: str | int) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _object_id(*parts: str | int) -> dict[str, str]:
    """An id of MongoDB's that follows from a sample's key, whatever else is exported."""
    return {"$oid": _hash(*parts)[:24]}


def _array(values: Bool[np.ndarray, "rows columns"]) -> Mapping[str, Any]:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    data = b64encode(zlib.compress(buffer.getvalue())).decode("ascii")
    return {"$binary": {"base64": data, "subType": "00"}}


def _sample_fields() -> list[dict[str, Any]]:
    return [
        _field("id", "ObjectIdField", db_field="_id"),
        _field("filepath", "StringField"),
        _field("tags", "ListField", subfield=f"{_FIELDS}.StringField"),
        _embedded("metadata", "fiftyone.core.metadata.ImageMetadata", _metadata_fields()),
        _field("created_at", "DateTimeField", read_only=True),
        _field("last_modified_at", "DateTimeField", read_only=True),
        *(_field(name, "StringField") for name in _TEXTS),
        _field("class_names", "ListField", subfield=f"{_FIELDS}.StringField"),
        _embedded("masks", "fiftyone.core.labels.Detections", [_detections()]),
    ]


def _metadata_fields() -> list[dict[str, Any]]:
    numbers = ("width", "height", "num_channels")
    return [
        _field("size_bytes", "IntField"),
        _field("mime_type", "StringField"),
        *(_field(name, "IntField") for name in numbers),
    ]


def _detections() -> dict[str, Any]:
    fields = [
        _field("id", "ObjectIdField", db_field="_id"),
        _field("tags", "ListField", subfield=f"{_FIELDS}.StringField"),
        _field("label", "StringField"),
        _field("bounding_box", "ListField", subfield=f"{_FIELDS}.FloatField"),
        _field("mask", "ArrayField"),
        _field("mask_path", "StringField"),
        _field("confidence", "FloatField"),
        _field("index", "IntField"),
        _field("area", "IntField"),
        _field("predicted_iou", "FloatField"),
    ]
    inner = f"{_FIELDS}.EmbeddedDocumentField"
    kind = "fiftyone.core.labels.Detection"
    return _field("detections", "ListField", subfield=inner, embedded=kind, fields=fields)


def _embedded(name: str, kind: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return _field(name, "EmbeddedDocumentField", embedded=kind, fields=fields)


def _field(
    name: str,
    kind: str,
    *,
    subfield: str | None = None,
    embedded: str | None = None,
    fields: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """A field as FiftyOne describes its fields."""
    return {
        "_cls": "SampleFieldDocument",
        "name": name,
        "ftype": f"{_FIELDS}.{kind}",
        "embedded_doc_type": embedded,
        "subfield": subfield,
        "fields": list(fields),
        "db_field": more.get("db_field", name),
        "description": None,
        "info": None,
        "read_only": more.get("read_only", False),
    }
