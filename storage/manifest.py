"""Manifests: one row for every planned sample of a shard, whatever became of it."""

# pyarrow comes without types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from jaxtyping import UInt16
from pyarrow import parquet
from pydantic import Field, ValidationError

from storage.codecs import decode_label_map
from storage.commits import ClassOutcomes
from storage.documents import explain
from storage.errors import DataError
from storage.manifest_files import VERSION_FIELD, read_columns, read_parquet, readable
from storage.picture_headers import image_size
from storage.records import (
    BACKGROUND_LABEL,
    IGNORE_LABEL,
    PlannedShard,
    Prompt,
    Record,
    Rejected,
)
from storage.shards import Sample

__all__ = ["ManifestRow"]


class ManifestRow(Record, frozen=True):
    """The fate of one planned sample; texts and lists are empty where there is nothing to say."""

    key: str
    """Sample key."""
    shard: str
    """Shard name."""
    index: int
    """Position in the slice."""
    seed: int
    """Seed of every random choice for this sample."""
    status: str = Field(pattern="^(written|rejected|failed)$")
    """What became of it."""
    stage: str = ""
    """Where it was dropped."""
    reason: str = ""
    """Why it was dropped."""
    detail: str = ""
    """The values behind the reason."""
    class_ids: tuple[int, ...]
    """Classes: those in the mask if written, else those planned."""
    class_names: tuple[str, ...]
    """Their display names."""
    text: str = ""
    """What the positive image shows, if a text was written."""
    counterfactual_text: str = ""
    """The text of the counterfactual image."""
    writer: str = ""
    """What wrote the text."""
    width: int = 0
    """Pixels."""
    height: int = 0
    """Pixels."""
    image_sha256: str = ""
    """Digest of the positive image's bytes."""
    counterfactual_sha256: str = ""
    """Digest of the counterfactual image's bytes."""
    mask_sha256: str = ""
    """Digest of the label map's bytes."""
    mask_class_ids: tuple[int, ...] = ()
    """Classes in the label map, ascending."""
    mask_areas: tuple[int, ...] = ()
    """Pixels of each class in ``mask_class_ids``."""
    instance_class_ids: tuple[int, ...] = ()
    """Class of each object."""
    instance_scores: tuple[float, ...] = ()
    """Detector's score of each object."""
    instance_ious: tuple[float, ...] = ()
    """Segmenter's own IoU estimate of each object."""


_COLUMNS: dict[str, pa.DataType] = {
    "index": pa.int64(),
    "seed": pa.int64(),
    "class_ids": pa.list_(pa.int32()),
    "class_names": pa.list_(pa.string()),
    "width": pa.int32(),
    "height": pa.int32(),
    "mask_class_ids": pa.list_(pa.int32()),
    "mask_areas": pa.list_(pa.int64()),
    "instance_class_ids": pa.list_(pa.int32()),
    "instance_scores": pa.list_(pa.float64()),
    "instance_ious": pa.list_(pa.float64()),
}
SCHEMA = pa.schema(
    [
        pa.field(name, _COLUMNS.get(name, pa.string()), nullable=False)
        for name in ManifestRow.model_fields
    ],
    metadata={VERSION_FIELD: b"1"},
)


def describe_samples(
    planned: PlannedShard,
    class_names: Mapping[int, str],
    *,
    samples: Iterable[Sample],
    dropped: Iterable[Rejected],
    prompts: Iterable[Prompt] = (),
    areas: Mapping[str, Mapping[int, int]] = MappingProxyType({}),
) -> list[ManifestRow]:
    """Say what became of every planned sample.

    Args:
        planned: The shard's plan.
        class_names: Display name of each planned class.
        samples: What was written.
        dropped: What was rejected or failed, at any stage.
        prompts: Texts, so that rows of samples that were dropped later show them.
        areas: Pixels of each class in the label map, by sample key, where that is known; of other
            samples the map is read.

    Returns:
        One row for each planned sample, in plan order.

    Raises:
        DataError: A planned sample has no fate, or two.
    """
    written = {sample.key: sample for sample in samples}
    lost = {row.key: row for row in dropped}
    texts = {prompt.key: prompt for prompt in prompts}
    outcomes = sorted([*written, *lost])
    if outcomes != sorted(sample.key for sample in planned.samples):
        message = (
            f"{planned.name}: {len(written)} samples written and {len(lost)} dropped do not match "
            f"the {len(planned.samples)} planned ones key by key; each must have exactly one fate"
        )
        raise DataError(message)
    rows = []
    for sample in planned.samples:
        fields = {
            "key": sample.key,
            "shard": planned.name,
            "index": sample.index,
            "seed": sample.seed,
            "class_ids": sample.class_ids,
            "class_names": tuple(class_names[class_id] for class_id in sample.class_ids),
            **_text_fields(texts.get(sample.key)),
        }
        if sample.key in written:
            own = written[sample.key]
            known = areas.get(sample.key)
            known = class_areas(decode_label_map(own.mask_bytes)) if known is None else known
            fields |= _written_fields(own, known)
        else:
            fields |= _dropped_fields(lost[sample.key])
        rows.append(ManifestRow.model_validate(fields))
    return rows


def encode_manifest(rows: Sequence[ManifestRow]) -> bytes:
    """Write rows as a Parquet file with a typed schema and its version in the footer."""
    table = pa.Table.from_pylist([row.model_dump() for row in rows], schema=SCHEMA)
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def decode_manifest(data: bytes, *, name: str = "manifest") -> list[ManifestRow]:
    """Read what `encode_manifest` wrote.

    Args:
        data: The file.
        name: What messages call it.

    Raises:
        DataError: The bytes are no Parquet file, or of another schema, or a row says what no row
            can say.
    """
    try:
        return [ManifestRow.model_validate(row) for row in read_parquet(data, SCHEMA, name)]
    except ValidationError as error:
        message = f"{name} has a wrong row ({explain(ManifestRow, error)}); verify the dataset"
        raise DataError(message) from error


def read_classes(data: bytes, *, name: str = "manifest") -> dict[str, tuple[int, ...]]:
    """Read which classes the written samples of a manifest have, without the rest of it.

    Args:
        data: What `encode_manifest` wrote.
        name: What messages call it.

    Returns:
        Vocabulary indices by sample key.

    Raises:
        DataError: See `decode_manifest`; rows are not checked.
    """
    rows = read_parquet(data, SCHEMA, name, columns=["key", "status", "class_ids"])
    return {row["key"]: tuple(row["class_ids"]) for row in rows if row["status"] == "written"}


def read_manifest_columns(data: bytes, columns: list[str], *, name: str = "manifest") -> pa.Table:
    """Read some columns of a manifest, for work on many rows.

    Args:
        data: What `encode_manifest` wrote.
        columns: Names of fields of `ManifestRow`.
        name: What messages call it.

    Returns:
        A table whose texts are dictionaries.

    Raises:
        DataError: See `decode_manifest`; rows are not checked.
    """
    return read_columns(data, SCHEMA, name, columns=columns)


def read_manifest_row(data: bytes, key: str, *, name: str = "manifest") -> ManifestRow | None:
    """Read the row of one sample; None if the manifest has none.

    Raises:
        DataError: See `decode_manifest`.
    """
    table = read_columns(data, SCHEMA, name)
    with readable(name):
        keys = table["key"].to_pylist()
        if key not in keys:
            return None
        row = table.slice(keys.index(key), 1).to_pylist()[0]
    try:
        return ManifestRow.model_validate(row)
    except ValidationError as error:
        message = f"{name} has a wrong row ({explain(ManifestRow, error)}); verify the dataset"
        raise DataError(message) from error


def count_outcomes(data: bytes, *, name: str = "manifest") -> Counter[tuple[str, str]]:
    """Count the samples of a manifest by class name and status.

    Args:
        data: What `encode_manifest` wrote.
        name: What messages call it.

    Returns:
        Number of samples by (class name, status); a sample of two classes counts for both.
    """
    rows = read_parquet(data, SCHEMA, name, columns=["class_names", "status"])
    return Counter((each, row["status"]) for row in rows for each in row["class_names"])


def _text_fields(prompt: Prompt | None) -> dict[str, object]:
    if prompt is None:
        return {}
    return {
        "text": prompt.text,
        "counterfactual_text": prompt.counterfactual_text,
        "writer": prompt.writer,
    }


def _dropped_fields(row: Rejected) -> dict[str, object]:
    return {
        "status": "failed" if row.reason.is_failure else "rejected",
        "stage": row.stage.value,
        "reason": row.reason.value,
        "detail": row.detail,
    }


def class_areas(labels: UInt16[np.ndarray, "height width"]) -> dict[int, int]:
    """Pixels of each class in a label map, by class id in ascending order.

    Args:
        labels: ``class_id + 1``; 0 is background, 65535 is ignored.
    """
    counts = np.bincount(labels.ravel(), minlength=IGNORE_LABEL + 1)
    counts[[BACKGROUND_LABEL, IGNORE_LABEL]] = 0
    found = np.flatnonzero(counts)
    return dict(zip((found - 1).tolist(), counts[found].tolist(), strict=True))


def _written_fields(sample: Sample, areas: Mapping[int, int]) -> dict[str, object]:
    width, height = image_size(sample.image_bytes)
    return {
        "status": "written",
        "class_ids": sample.class_ids,
        "class_names": sample.class_names,
        "text": sample.text,
        "counterfactual_text": sample.counterfactual_text,
        "writer": sample.writer,
        "width": width,
        "height": height,
        "image_sha256": hashlib.sha256(sample.image_bytes).hexdigest(),
        "counterfactual_sha256": hashlib.sha256(sample.counterfactual_bytes).hexdigest(),
        "mask_sha256": hashlib.sha256(sample.mask_bytes).hexdigest(),
        "mask_class_ids": tuple(areas),
        "mask_areas": tuple(areas.values()),
        "instance_class_ids": tuple(item.class_id for item in sample.instances),
        "instance_scores": tuple(item.score for item in sample.instances),
        "instance_ious": tuple(item.predicted_iou for item in sample.instances),
    }


def count_classes(rows: Iterable[ManifestRow]) -> dict[int, ClassOutcomes]:
    """Count what became of the samples of each class, from the rows of a manifest."""
    planned: dict[int, int] = {}
    written: dict[int, int] = {}
    for row in rows:
        for class_id in row.class_ids:
            planned[class_id] = planned.get(class_id, 0) + 1
            if row.status == "written":
                written[class_id] = written.get(class_id, 0) + 1
    return {
        class_id: ClassOutcomes(planned=count, written=written.get(class_id, 0))
        for class_id, count in sorted(planned.items())
    }
