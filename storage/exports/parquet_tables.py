"""Parquet files of samples, with the features that `datasets` reads: pictures, classes, objects.

A shard becomes one file. Pictures are stored as they are in the tar (structs of bytes and path, as
the feature `Image` of `datasets` has them), so nothing is decoded or encoded again. Rows are
written in groups of a few samples: memory does not grow with the shard.
"""

# pyarrow comes without types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.picture_headers import image_size
from storage.shards import Sample

TABLE_VERSION = 1
"""Raised when the same samples give another file."""

_ROWS = 64
_PICTURE: Any = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_CORNERS: Any = pa.list_(pa.float64())
_SCHEMA: Any = pa.schema(
    [
        ("key", pa.string()),
        ("image", _PICTURE),
        ("counterfactual", _PICTURE),
        ("mask", _PICTURE),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("text", pa.string()),
        ("counterfactual_text", pa.string()),
        ("class_ids", pa.list_(pa.int32())),
        ("class_names", pa.list_(pa.string())),
        (
            "mentions",
            pa.list_(
                pa.struct([("class_id", pa.int32()), ("start", pa.int32()), ("end", pa.int32())])
            ),
        ),
        (
            "instances",
            pa.list_(
                pa.struct(
                    [
                        ("class_id", pa.int32()),
                        ("score", pa.float64()),
                        ("predicted_iou", pa.float64()),
                        ("xyxy", _CORNERS),
                        ("area", pa.int64()),
                        ("rle", pa.string()),
                    ]
                )
            ),
        ),
        (
            "counterfactual_boxes",
            pa.list_(
                pa.struct([("class_id", pa.int32()), ("score", pa.float64()), ("xyxy", _CORNERS)])
            ),
        ),
        ("writer", pa.string()),
        ("seed", pa.int64()),
    ]
)
_PICTURES = ("image", "counterfactual", "mask")


def write_table(samples: Iterable[Sample], path: Path) -> int:
    """Write samples as a Parquet file.

    Args:
        samples: In the order of the rows.
        path: The file; what is there is replaced.

    Returns:
        The number of rows; of none there is no file.
    """
    left = iter(samples)
    schema = _SCHEMA.with_metadata({"huggingface": json.dumps(_features())})
    count = 0
    group = _group(left)
    if not group:
        return 0
    writer: Any = pq.ParquetWriter(path, schema, compression="zstd", write_page_index=True)
    with writer:
        while group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
            group = _group(left)
    return count


def _group(samples: Iterator[Sample]) -> list[dict[str, Any]]:
    return [_row(sample) for sample in islice(samples, _ROWS)]


def _row(sample: Sample) -> dict[str, Any]:
    width, height = image_size(sample.image_bytes)
    pictures = {
        "image": sample.image_bytes,
        "counterfactual": sample.counterfactual_bytes,
        "mask": sample.mask_bytes,
    }
    return {
        "key": sample.key,
        **{
            kind: {"bytes": data, "path": sample.member(kind).rpartition(" ")[2]}
            for kind, data in pictures.items()
        },
        "width": width,
        "height": height,
        "text": sample.text,
        "counterfactual_text": sample.counterfactual_text,
        "class_ids": sample.class_ids,
        "class_names": sample.class_names,
        "mentions": [each.model_dump() for each in sample.mentions],
        "instances": [each.model_dump() for each in sample.instances],
        "counterfactual_boxes": [each.model_dump() for each in sample.counterfactual_boxes],
        "writer": sample.writer,
        "seed": sample.seed,
    }


def _features() -> dict[str, Any]:
    """What `datasets` looks for in the metadata of a file: the types of its columns."""
    features = {
        field.name: {"_type": "Image"} if field.name in _PICTURES else _feature(field.type)
        for field in _SCHEMA
    }
    return {"info": {"features": features}}


def _feature(kind: Any) -> Any:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    names = {"double": "float64"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
