"""Import of corrected masks: what people drew in another tool becomes corrections of a dataset."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt16

from storage.codecs import encode_rle
from storage.corrections import (
    CORRECTIONS,
    CorrectedObject,
    Correction,
    correct,
    current_corrections,
    require_reason,
)
from storage.errors import InputError
from storage.exports.cvat import read_cvat
from storage.exports.drawn_masks import DrawnRegion, DrawnSample
from storage.exports.label_studio import label_of, read_label_studio
from storage.exports.regions import IGNORED, shown_regions
from storage.manifest import ManifestRow
from storage.records import BACKGROUND_LABEL, Record
from storage.shards import Sample, iterate
from storage.store import Store
from storage.vocabulary import Vocabulary, load_vocabulary

__all__ = ["ImportedMasks", "import_masks"]

_BOM = b"\xef\xbb\xbf"
_EXCLUDE = "leave it out with 'magicseg exclusions add', or take it out of the file"


class ImportedMasks(Record, frozen=True):
    """What became of a file of corrected masks."""

    tool: str
    """What wrote the file."""
    corrected: tuple[str, ...]
    """Keys of the samples whose masks are others now."""
    unchanged: int
    """Samples in the file whose masks are what they were."""


def import_masks(store: Store, file: Path, *, who: str, why: str) -> ImportedMasks:
    """Take in the masks that people corrected: those of all samples in the file, or of none.

    Args:
        store: The dataset.
        file: JSON of Label Studio, or XML of CVAT for images 1.1.
        who: User and machine.
        why: The reason, in words.

    Returns:
        What changed. Samples that are not in the file, or that look as they did, are left alone.

    Raises:
        DataError: A shard or a file of the corrections is damaged.
        InputError: The file cannot be read, or says of a sample what cannot be: an unknown key or
            class, another size, two classes for one pixel, no object. Nothing is changed then.
    """
    require_reason(why)
    tool, drawn = _read(file)
    vocabulary = load_vocabulary(store.vocabulary)
    by_key = _by_key(drawn, file)
    lines: list[Correction] = []
    at = datetime.now(UTC)
    for row, sample, now in _samples(store, by_key, file):
        masks = _masks(by_key[row.key], row, vocabulary)
        if _look_alike(masks, now, vocabulary):
            continue
        objects, ignored = _objects(masks, row.key, vocabulary)
        lines.append(
            Correction(
                key=row.key,
                act="correct",
                who=who,
                at=at,
                tool=tool,
                why=why,
                image_sha256=hashlib.sha256(sample.image_bytes).hexdigest(),
                mask_sha256=hashlib.sha256(sample.mask_bytes).hexdigest(),
                width=row.width,
                height=row.height,
                objects=objects,
                ignored=ignored,
            )
        )
    if lines:
        CORRECTIONS.append(store.objects, lines)
    keys = tuple(line.key for line in lines)
    return ImportedMasks(tool=tool, corrected=keys, unchanged=len(by_key) - len(keys))


_Masks = list[tuple[str, Bool[np.ndarray, "height width"]]]


def _read(file: Path) -> tuple[str, list[DrawnSample]]:
    if file.exists() and not file.is_file():
        message = f"{file} is no ordinary file, expected one of corrected masks"
        raise InputError(message)
    try:
        data = file.read_bytes()
    except OSError as error:
        message = f"{file} cannot be read ({error.strerror}): name a file of corrected masks"
        raise InputError(message) from error
    start = data.removeprefix(_BOM).lstrip()[:1]
    if start == b"<":
        return "CVAT", read_cvat(data, str(file))
    if start in {b"[", b"{"}:
        return "Label Studio", read_label_studio(data.removeprefix(_BOM), str(file))
    found = "is empty" if not data else "is neither JSON nor XML"
    message = f"{file} {found}, expected JSON of Label Studio or XML of CVAT for images 1.1"
    raise InputError(message)


def _by_key(drawn: Sequence[DrawnSample], file: Path) -> dict[str, DrawnSample]:
    found: dict[str, DrawnSample] = {}
    for sample in drawn:
        if sample.key in found:
            message = f"{file} has sample {sample.key!r} twice, expected it once"
            raise InputError(message)
        found[sample.key] = sample
    if not found:
        message = f"{file} has no sample with submitted masks: there is nothing to import"
        raise InputError(message)
    return found


def _samples(
    store: Store, by_key: Mapping[str, DrawnSample], file: Path
) -> Iterator[tuple[ManifestRow, Sample, Sample]]:
    """The rows of the named samples, the samples of their tars, and as they are corrected now."""
    left = set(by_key)
    corrections = current_corrections(store.objects)
    wanted: list[tuple[str, str, dict[str, ManifestRow]]] = []
    for shard in store.shards():
        if shard.path is None or not any(key.startswith(shard.commit.slice_id) for key in left):
            continue
        rows = {each.key: each for each in store.manifest(shard.commit) if each.key in left}
        rows = {key: each for key, each in rows.items() if each.status == "written"}
        left -= rows.keys()
        if rows:
            wanted.append((str(shard.path), shard.sha256, rows))
    if left:
        message = (
            f"{file} has sample {min(left)!r}, which is none of {store.root}: import the file into "
            "the dataset that it was exported from"
        )
        raise InputError(message)
    for path, sha256, rows in wanted:
        for sample in iterate(path, sha256):
            if sample.key in rows:
                known = corrections.get(sample.key)
                yield rows[sample.key], sample, correct(sample, known) if known else sample


def _masks(drawn: DrawnSample, row: ManifestRow, vocabulary: Vocabulary) -> _Masks:
    """The masks of a sample with the names of their classes; those without a pixel are left out."""
    found: _Masks = []
    for region in drawn.regions:
        if (region.width, region.height) != (row.width, row.height):
            message = (
                f"sample {row.key} was drawn at {region.width} x {region.height} pixels, but has "
                f"{row.width} x {row.height}: import into the dataset that it was exported from"
            )
            raise InputError(message)
        label = _label(region, row.key, vocabulary)
        mask = region.decode()
        if mask.any():
            found.append((label, mask))
    return found


def _label(region: DrawnRegion, key: str, vocabulary: Vocabulary) -> str:
    if region.label == IGNORED:
        return IGNORED
    try:
        return vocabulary.by_name(region.label).name
    except InputError as error:
        message = f"sample {key}: {error}"
        raise InputError(message) from error


def _look_alike(masks: _Masks, now: Sample, vocabulary: Vocabulary) -> bool:
    """Whether masks are those that an export of the sample would write now."""
    shown = sorted((label_of(each.class_id, vocabulary), each.rle) for each in shown_regions(now))
    return shown == sorted((label, encode_rle(mask)) for label, mask in masks)


def _objects(
    masks: _Masks, key: str, vocabulary: Vocabulary
) -> tuple[tuple[CorrectedObject, ...], str]:
    """The objects and the ignored pixels that masks say, no pixel of two classes."""
    objects: list[CorrectedObject] = []
    labels: UInt16[np.ndarray, "height width"] | None = None
    ignored: Bool[np.ndarray, "height width"] | None = None
    for label, mask in masks:
        if label == IGNORED:
            ignored = mask if ignored is None else ignored | mask
            continue
        class_id = vocabulary.by_name(label).class_id
        labels = np.zeros(mask.shape, np.uint16) if labels is None else labels
        others = labels[mask & (labels != class_id + 1) & (labels != BACKGROUND_LABEL)]
        if others.size:
            other = vocabulary[int(others[0]) - 1].name
            message = (
                f"sample {key} has {others.size} pixels that are {other!r} and {label!r} both, "
                "expected one class for a pixel: erase one of the two there"
            )
            raise InputError(message)
        labels[mask] = class_id + 1
        objects.append(CorrectedObject(class_id=class_id, class_name=label, rle=encode_rle(mask)))
    if not objects or labels is None:
        message = f"sample {key} has no mask of a class left: {_EXCLUDE}"
        raise InputError(message)
    rest = None if ignored is None else ignored & (labels == BACKGROUND_LABEL)
    return tuple(objects), "" if rest is None or not rest.any() else encode_rle(rest)
