"""Export of shards to a folder of image files and 8-bit label files, for other trainers.

    images/train/<key>.jpg|png     as they are in the shards
    labels/train/<key>.png         one byte a pixel, as `storage.exports.closed_sets` describes it
    splits/train.txt               the keys, one a line: there only while the folder is whole
    classes.json                   the names of the labels and where they come from
    .export/                       what was asked for, a record of each shard that is done, a lock

Only samples that show a class of the set are exported. An export can be repeated at any time: it
goes on where it was interrupted, adds new shards, and replaces what came of shards that have
changed or are gone. As long as anything differs from what the last files say, the split is missing
and `read_export` refuses the folder; it is removed first and written last.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from storage.codecs import decode_image, decode_label_map
from storage.corrections import Correction, content_digest, iterate_corrected_images
from storage.errors import DataError, InputError
from storage.exports.closed_sets import CLOSED_IGNORE, ClosedSet
from storage.files import TEMP_SUFFIX, remove, sync_all, write_whole
from storage.identity import digest, refuse_drift
from storage.labelled_images import LabelledImage
from storage.locks import LOCK_FILE, hold_folder, refuse_other_files
from storage.picture_headers import image_format
from storage.records import (
    BACKGROUND_LABEL,
    IGNORE_LABEL,
    Record,
    read_object,
    read_record,
)
from storage.sample_keys import UniqueKeys
from storage.vocabulary import Vocabulary, load_vocabulary

__all__ = ["ExportedSet", "export_shards", "read_export"]

_CLASSES_FILE = "classes.json"
SPLIT_FILE = "splits/train.txt"
IMAGE_FOLDER = "images/train"
LABEL_FOLDER = "labels/train"

_OWN_FOLDER = ".export"
_REQUEST_FILE = f"{_OWN_FOLDER}/request.json"
_SHARD_FOLDER = f"{_OWN_FOLDER}/shards"

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


@dataclass(frozen=True)
class _Request:
    """What is exported, and where to."""

    closed_set: ClosedSet
    vocabulary: Vocabulary
    out: Path
    excluded: frozenset[str]
    corrected: Sequence[Correction]


def export_shards(
    shards: Mapping[str, str],
    closed_set: ClosedSet,
    out: Path,
    *,
    excluded: Mapping[str, Collection[str]] | None = None,
    corrected: Mapping[str, Sequence[Correction]] | None = None,
) -> ExportedSet:
    """Export the samples that show a class of the set.

    Args:
        shards: Paths or URLs of tars, with what their contents are known by (their digest).
        closed_set: The classes.
        out: The folder; made if missing.
        excluded: Keys of samples that are left out, by the path or URL of their tar.
        corrected: Masks that were corrected, by the same.

    Returns:
        What the folder holds now: these shards, and nothing of others.

    Raises:
        DataError: If a shard is damaged, a sample is in two shards, or some images are JPEG and
            others PNG.
        InputError: If the folder holds other files or an export of other classes, the shards were
            made with another vocabulary, or no sample shows a class of the set.
        LeaseHeldError: If another export into the folder is at work.
    """
    vocabulary = load_vocabulary(closed_set.vocabulary)
    left_out = {path: frozenset(keys) for path, keys in (excluded or {}).items() if keys}
    corrections = {path: own for path, own in (corrected or {}).items() if own}
    identities = {
        _name(path): content_digest(identity, left_out.get(path, ()), corrections.get(path, ()))
        for path, identity in shards.items()
    }
    if len(identities) < len(shards):
        message = "two of the shards have the same file name, expected those of one dataset"
        raise InputError(message)
    refuse_other_files(out, "an export", marks=(_OWN_FOLDER,))
    with hold_folder(out):
        _remove_temporary(out)
        _check_request(out, closed_set)
        done = _finished_records(out, identities)
        if done.keys() != identities.keys():
            remove(out / SPLIT_FILE)
        _drop_records(out, done)
        keys = UniqueKeys()
        for path in sorted(shards):
            if _name(path) in done:
                keys.add(done[_name(path)].keys, path)
        for number, path in enumerate(sorted(shards), start=1):
            name = _name(path)
            if name not in done:
                request = _Request(
                    closed_set,
                    vocabulary,
                    out,
                    left_out.get(path, frozenset()),
                    corrections.get(path, ()),
                )
                record = _export_shard(path, shards[path], request, keys)
                done[name] = record.model_copy(update={"identity": identities[name]})
                sync_all()  # before there is a record that vouches for the files
                write_whole(_record_path(out, name), done[name].model_dump_json().encode())
            _log.info("%d of %d shards exported to %s", number, len(shards), out)
        return _finish([done[_name(path)] for path in sorted(shards)], closed_set, out)


def read_export(folder: Path) -> ExportedSet:
    """Read what a finished export holds.

    Raises:
        InputError: If the folder holds no export, or an unfinished one.
        DataError: If its description is damaged.
    """
    if not (folder / SPLIT_FILE).is_file() or not (folder / _CLASSES_FILE).is_file():
        message = f"{folder} holds no finished export (no {SPLIT_FILE}): run `magicseg export`"
        raise InputError(message)
    place = folder / _CLASSES_FILE
    return read_record(ExportedSet, place.read_bytes(), str(place), way_out="export again")


def _remove_temporary(out: Path) -> None:
    """Remove what exports left that were killed; whoever waits for the lock may make a file."""
    for path in out.rglob(f".*{TEMP_SUFFIX}"):
        if not path.name.startswith(f".{LOCK_FILE}."):
            remove(path)


def _check_request(out: Path, closed_set: ClosedSet) -> None:
    """Write down which classes the folder is for, or refuse others."""
    path = out / _REQUEST_FILE
    asked = closed_set.model_dump(mode="json")
    if path.is_file():
        old = read_object(path.read_bytes(), str(path), way_out="export into another folder")
        refuse_drift(f"{out} holds another export", old, asked, way_out="Choose another folder")
    else:
        write_whole(path, json.dumps(asked).encode())


def _finished_records(out: Path, identities: Mapping[str, str]) -> dict[str, _ShardRecord]:
    """The shards whose samples are all there and still the same, by name."""
    images = {path.stem for path in (out / IMAGE_FOLDER).glob("[!.]*")}
    present = images & {path.stem for path in (out / LABEL_FOLDER).glob("[!.]*.png")}
    done: dict[str, _ShardRecord] = {}
    for name, identity in identities.items():
        place = _record_path(out, name)
        if not place.is_file():
            continue
        record = read_record(
            _ShardRecord, place.read_bytes(), str(place), way_out="remove it and export again"
        )
        if record.identity == identity and present.issuperset(record.keys):
            done[name] = record
    return done


def _drop_records(out: Path, done: Mapping[str, _ShardRecord]) -> None:
    """Remove the records of shards that changed or are gone; their files go when all is there."""
    for path in sorted((out / _SHARD_FOLDER).glob("[!.]*.json")):
        if path.name.removesuffix(".json") not in done:
            remove(out / SPLIT_FILE)
            remove(path)


def _export_shard(path: str, identity: str, request: "_Request", known: UniqueKeys) -> _ShardRecord:
    closed_set = request.closed_set
    keys: list[str] = []
    formats: set[str] = set()
    skipped = 0
    shown: dict[str, int] = {}
    for sample in iterate_corrected_images(path, identity, request.corrected):
        known.add([sample.key], path)  # before it would overwrite another one
        request.vocabulary.check_names(sample.class_ids, sample.class_names, path)
        if sample.key in request.excluded:
            continue
        inside = [name for name, k in _members(closed_set) if k in sample.class_ids]
        if not inside:
            skipped += 1
            continue
        formats.add(_write_sample(sample, closed_set, request.out))
        keys.append(sample.key)
        for name in inside:
            shown[name] = shown.get(name, 0) + 1
    return _ShardRecord(
        identity=identity,
        keys=tuple(keys),
        formats=tuple(sorted(formats)),
        num_skipped=skipped,
        samples_by_class=shown,
    )


def _finish(records: list[_ShardRecord], closed_set: ClosedSet, out: Path) -> ExportedSet:
    """Make the folder whole: no file but those of the records, the description, the split."""
    exported = _summary(records, closed_set, out)
    keys = sorted(key for record in records for key in record.keys)
    contents = {
        _CLASSES_FILE: exported.model_dump_json(indent=1).encode(),
        SPLIT_FILE: "".join(f"{key}\n" for key in keys).encode(),
    }
    wanted = {
        IMAGE_FOLDER: {f"{key}{exported.image_suffix}" for key in keys},
        LABEL_FOLDER: {f"{key}.png" for key in keys},
    }
    strays = [
        path
        for folder, names in wanted.items()
        for path in sorted((out / folder).iterdir())
        if path.name not in names
    ]
    changed = [name for name, data in contents.items() if not _holds(out / name, data)]
    if strays or changed:
        remove(out / SPLIT_FILE)
        for path in strays:
            remove(path)
        for name, data in contents.items():
            write_whole(out / name, data)
    return exported


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


def _write_sample(sample: LabelledImage, closed_set: ClosedSet, out: Path) -> str:
    """Write both files of a sample; returns the image's format.

    The image is copied as it is, but decoded first: a trainer would meet the damage much later.
    """
    suffix = image_format(sample.image_bytes)
    decode_image(sample.image_bytes, name=sample.part("image"))
    labels = closed_set.encode(_known_labels(sample, closed_set))
    write_whole(out / IMAGE_FOLDER / f"{sample.key}.{suffix}", sample.image_bytes, durable=False)
    write_whole(out / LABEL_FOLDER / f"{sample.key}.png", _encode(labels), durable=False)
    return suffix


def _known_labels(
    sample: LabelledImage, closed_set: ClosedSet
) -> UInt16[np.ndarray, "height width"]:
    """The stored labels; background that may show a class of the set is ignored.

    Nobody looked for a lamp in PASCAL VOC: what is background there is no evidence against lamps.
    """
    labels = decode_label_map(sample.mask_bytes, name=sample.part("mask"))
    judged = sample.judged_class_ids
    if judged is not None and {k for _, k in _members(closed_set)}.difference(judged):
        labels[labels == BACKGROUND_LABEL] = IGNORE_LABEL
    return labels


def _encode(labels: UInt8[np.ndarray, "height width"]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(labels).save(buffer, "PNG")
    return buffer.getvalue()


def _members(closed_set: ClosedSet) -> list[tuple[str, int]]:
    pairs = zip(closed_set.names, closed_set.class_ids, strict=True)
    return [(name, class_id) for name, class_id in pairs if class_id is not None]


def _name(path: str) -> str:
    """What the folder calls a shard: its file name, wherever the dataset lies."""
    return path.rpartition("/")[2]


def _record_path(out: Path, name: str) -> Path:
    return out / _SHARD_FOLDER / f"{name}.json"


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data
