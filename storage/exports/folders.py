"""Export of shards to a folder of image files and 8-bit label files, for other trainers.

    images/train/<key>.jpg|png     as they are in the shards
    labels/train/<key>.png         one byte a pixel, as `storage.exports.closed_sets` describes it
    splits/train.txt               the keys, one a line: written last, so its presence says "whole"
    classes.json                   the names of the labels and where they come from
    .export/                       what was asked for, and a record of each shard that is done

Only samples that show a class of the set are exported. An interrupted export goes on with the
shards that are not done; a dataset that has grown is exported further.
"""

import json
import logging
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import ValidationError

from storage.codecs import decode_label_map, image_format
from storage.errors import DataError, InputError
from storage.exports.closed_sets import CLOSED_IGNORE, ClosedSet
from storage.files import write_whole
from storage.identity import describe_drift, digest
from storage.locks import LOCK_FILE, hold_folder
from storage.records import Record
from storage.shards import Sample, iterate
from storage.vocabulary import Vocabulary, load_vocabulary

CLASSES_FILE = "classes.json"
SPLIT_FILE = "splits/train.txt"
IMAGE_FOLDER = "images/train"
LABEL_FOLDER = "labels/train"

_REQUEST_FILE = ".export/request.json"
_SHARD_FOLDER = ".export/shards"

_log = logging.getLogger(__name__)


class ExportedSet(Record, frozen=True):
    """What an export holds: the contents of ``classes.json``."""

    closed_set: ClosedSet
    """The classes, in the order of their labels from 1 on."""
    labels: tuple[str, ...]
    """The name of each label, background first."""
    ignore: int = CLOSED_IGNORE
    """Label of the pixels about which nothing is known."""
    image_suffix: str
    """``.jpg`` or ``.png``."""
    num_samples: int
    """Exported samples."""
    num_skipped: int
    """Samples of the shards that show no class of the set."""
    samples_by_class: dict[str, int]
    """Exported samples that show each class; a sample of two classes counts for both."""
    digest: str
    """Stands for the shards that it was made from."""


class _ShardRecord(Record, frozen=True):
    """What one shard gave."""

    identity: str
    keys: tuple[str, ...]
    formats: tuple[str, ...]
    num_skipped: int
    samples_by_class: dict[str, int]


def export_shards(shards: Mapping[str, str], closed_set: ClosedSet, out: Path) -> ExportedSet:
    """Export the samples that show a class of the set.

    Args:
        shards: Paths or URLs of tars, with what their contents are known by (their digest).
        closed_set: The classes.
        out: The folder; made if missing.

    Returns:
        What the folder holds now.

    Raises:
        DataError: If a shard is damaged, or some images are JPEG and others PNG.
        InputError: If the folder holds another export, the shards were made with another
            vocabulary, or no sample shows a class of the set.
        LeaseHeldError: If somebody else exports into the folder.
    """
    _refuse_others(out)
    with hold_folder(out):
        return _export(shards, closed_set, out)


def _export(shards: Mapping[str, str], closed_set: ClosedSet, out: Path) -> ExportedSet:
    vocabulary = load_vocabulary(closed_set.vocabulary)
    _check_request(out, closed_set)
    for folder in (IMAGE_FOLDER, LABEL_FOLDER, _SHARD_FOLDER):
        (out / folder).mkdir(parents=True, exist_ok=True)
    records = []
    for number, (path, identity) in enumerate(sorted(shards.items()), start=1):
        records.append(_shard(path, identity, closed_set, vocabulary, out))
        _log.info("%d of %d shards exported to %s", number, len(shards), out)
    exported = _summary(records, closed_set, out)
    write_whole(out / CLASSES_FILE, exported.model_dump_json(indent=1).encode())
    keys = sorted(key for record in records for key in record.keys)
    write_whole(out / SPLIT_FILE, "".join(f"{key}\n" for key in keys).encode())
    return exported


def read_export(folder: Path) -> ExportedSet:
    """Read what a finished export holds.

    Raises:
        InputError: If the folder holds no export, or an unfinished one.
        DataError: If its description is damaged.
    """
    if not (folder / SPLIT_FILE).is_file() or not (folder / CLASSES_FILE).is_file():
        message = f"{folder} holds no finished export (no {SPLIT_FILE}): run `magicseg export`"
        raise InputError(message)
    try:
        return ExportedSet.model_validate_json((folder / CLASSES_FILE).read_bytes())
    except ValidationError as error:
        message = f"{folder / CLASSES_FILE} is no description of an export: export anew"
        raise DataError(message) from error


def _refuse_others(out: Path) -> None:
    """Refuse a folder that holds other files, before anything is written there."""
    held = {path.name for path in out.iterdir()} - {LOCK_FILE} if out.is_dir() else set()
    if held and not (out / _REQUEST_FILE).is_file():
        message = f"{out} holds other files, expected an export or an empty folder"
        raise InputError(message)


def _check_request(out: Path, closed_set: ClosedSet) -> None:
    """Refuse an export of other classes."""
    path = out / _REQUEST_FILE
    asked = closed_set.model_dump(mode="json")
    if path.is_file():
        drift = describe_drift(json.loads(path.read_bytes()), asked)
        if drift:
            message = f"{out} holds another export: {'; '.join(drift)}; choose another folder"
            raise InputError(message)
        return
    write_whole(path, json.dumps(asked).encode())


def _shard(
    path: str, identity: str, closed_set: ClosedSet, vocabulary: Vocabulary, out: Path
) -> _ShardRecord:
    """Export a shard, or find its record."""
    place = out / _SHARD_FOLDER / f"{path.rpartition('/')[2]}.json"
    if place.is_file():
        record = _ShardRecord.model_validate_json(place.read_bytes())
        if record.identity != identity:
            message = (
                f"{out} was exported from another {path} ({record.identity}, now {identity}): "
                f"choose another folder"
            )
            raise InputError(message)
        return record
    keys, formats, skipped = [], set(), 0
    shown: dict[str, int] = {}
    for sample in iterate(path):
        _check_names(sample, vocabulary, path)
        inside = [name for name, k in _members(closed_set) if k in sample.class_ids]
        if not inside:
            skipped += 1
            continue
        formats.add(_write_sample(sample, closed_set, out))
        keys.append(sample.key)
        for name in inside:
            shown[name] = shown.get(name, 0) + 1
    record = _ShardRecord(
        identity=identity,
        keys=tuple(keys),
        formats=tuple(sorted(formats)),
        num_skipped=skipped,
        samples_by_class=shown,
    )
    write_whole(place, record.model_dump_json().encode())
    return record


def _members(closed_set: ClosedSet) -> list[tuple[str, int]]:
    pairs = zip(closed_set.names, closed_set.class_ids, strict=True)
    return [(name, class_id) for name, class_id in pairs if class_id is not None]


def _check_names(sample: Sample, vocabulary: Vocabulary, path: str) -> None:
    for class_id, name in zip(sample.class_ids, sample.class_names, strict=True):
        known = vocabulary[class_id].name if class_id < len(vocabulary) else "nothing"
        if known != name:
            message = (
                f"{path} calls class {class_id} {name!r}, but the vocabulary "
                f"{vocabulary.name!r} has {known!r} there: export with the dataset's own"
            )
            raise InputError(message)


def _write_sample(sample: Sample, closed_set: ClosedSet, out: Path) -> str:
    """Write both files of a sample; returns the image's format."""
    suffix = image_format(sample.image_bytes)
    labels = closed_set.encode(decode_label_map(sample.mask_bytes))
    write_whole(out / IMAGE_FOLDER / f"{sample.key}.{suffix}", sample.image_bytes)
    write_whole(out / LABEL_FOLDER / f"{sample.key}.png", _encode(labels))
    return suffix


def _encode(labels: UInt8[np.ndarray, "height width"]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(labels).save(buffer, "PNG")
    return buffer.getvalue()


def _summary(records: list[_ShardRecord], closed_set: ClosedSet, out: Path) -> ExportedSet:
    formats = {name for record in records for name in record.formats}
    if not formats:
        message = (
            f"no sample of the {len(records)} shards shows a class of {closed_set.name}: "
            "choose other classes, or generate them first"
        )
        raise InputError(message)
    if len(formats) > 1:
        message = f"{out} has both JPEG and PNG images, expected one format: export two datasets"
        raise DataError(message)
    shown = dict.fromkeys((name for name, _ in _members(closed_set)), 0)
    for record in records:
        for name, count in record.samples_by_class.items():
            shown[name] += count
    return ExportedSet(
        closed_set=closed_set,
        labels=closed_set.labels,
        image_suffix=f".{formats.pop()}",
        num_samples=sum(len(record.keys) for record in records),
        num_skipped=sum(record.num_skipped for record in records),
        samples_by_class=shown,
        digest=digest([record.identity for record in records]),
    )
