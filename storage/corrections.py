"""Corrections: masks of finished samples that people have drawn anew, and who did.

A tar never changes, so a corrected mask is kept beside it, by acts (`storage.acts`) in
`.engine/corrections`, as `storage.exclusions` keeps what is left out. Undoing is an act too, and
the last line about a sample counts. A correction names the digests of the image and the mask that
it was made for, and counts for these alone.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from jaxtyping import Bool, UInt16
from pydantic import AwareDatetime, Field, model_validator

from storage.acts import ActFolder
from storage.codecs import decode_rle, encode_label_map
from storage.commits import Commit
from storage.errors import DataError, InputError
from storage.identity import digest
from storage.labelled_images import LabelledImage, iterate_labelled
from storage.layout import CORRECTION_FOLDER
from storage.manifest import ManifestRow, class_areas
from storage.objects import ObjectStore
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL, Instance, Record
from storage.shards import Sample, iterate
from storage.store import Store

__all__ = ["CorrectedObject", "Correction", "read_corrections"]

PictureT = TypeVar("PictureT", Sample, LabelledImage)


class CorrectedObject(Record, frozen=True):
    """A mask that somebody drew."""

    class_id: int = Field(ge=0, lt=IGNORE_LABEL - 1)
    """Vocabulary index."""
    class_name: str
    """Its display name."""
    rle: str
    """COCO run-length counts (compressed, ASCII) at the size of the image."""


class Correction(Record, frozen=True):
    """What was said of a sample's masks at one time."""

    key: str = Field(min_length=1)
    """Sample key."""
    act: Literal["correct", "undo"]
    """Whether its masks are these from then on, or those of the tar again."""
    who: str
    """User and machine."""
    at: AwareDatetime
    """When."""
    tool: str
    """What the masks were drawn with; empty for undoing."""
    why: str = Field(min_length=1)
    """The reason, in words."""
    image_sha256: str = ""
    """Digest of the image that they were drawn on."""
    mask_sha256: str = ""
    """Digest of the label map in the tar that they stand for."""
    width: int = 0
    """Pixels."""
    height: int = 0
    """Pixels."""
    objects: tuple[CorrectedObject, ...] = ()
    """All masks of the sample; those of two classes have no pixel in common."""
    ignored: str = ""
    """Pixels that are to be ignored, as COCO run-length counts; empty if there are none."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.act == "correct" and not (self.objects and self.image_sha256 and self.mask_sha256):
            message = "a correction needs objects and the digests of image and mask"
            raise ValueError(message)
        return self

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Classes in the corrected mask, in order of their ids."""
        return tuple(sorted({each.class_id for each in self.objects}))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Their display names, in the same order."""
        names = {each.class_id: each.class_name for each in self.objects}
        return tuple(names[class_id] for class_id in self.class_ids)

    def require_pictures(self, image: bytes, mask: bytes) -> None:
        """Raise DataError unless these are the pictures that it was made for."""
        if (_sha256(image), _sha256(mask)) != (self.image_sha256, self.mask_sha256):
            message = f"{stale_words(self)}; undo it by 'magicseg corrections undo'"
            raise DataError(message)

    def fits(self, row: ManifestRow) -> bool:
        """Whether a sample has the pictures that it was made for, by its manifest."""
        return (self.image_sha256, self.mask_sha256) == (row.image_sha256, row.mask_sha256)

    @cached_property
    def areas(self) -> dict[int, int]:
        """Pixels of each class, by class id in ascending order.

        Raises:
            DataError: As `masks`.
        """
        return class_areas(self.label_map())

    def masks(self) -> Iterator[Bool[np.ndarray, "height width"]]:
        """The mask of each object.

        Raises:
            DataError: Its run lengths are not those of the image.
        """
        for each in self.objects:
            yield decode_rle(each.rle, self.height, self.width, name=f"correction of {self.key}")

    def label_map(self) -> UInt16[np.ndarray, "height width"]:
        """``class_id + 1``; 0 background, 65535 ignored where no object lies."""
        labels = np.full((self.height, self.width), BACKGROUND_LABEL, np.uint16)
        if self.ignored:
            labels[decode_rle(self.ignored, self.height, self.width, name=self.key)] = IGNORE_LABEL
        for each, mask in zip(self.objects, self.masks(), strict=True):
            labels[mask] = each.class_id + 1
        return labels


CORRECTIONS = ActFolder(CORRECTION_FOLDER, Correction)
"""Where they lie."""


def read_corrections(objects: ObjectStore) -> list[Correction]:
    """Read all that was ever said of masks, in the order in which it was.

    Raises:
        DataError: A file is damaged; names it.
    """
    return CORRECTIONS.read(objects)


def current_corrections(objects: ObjectStore) -> dict[str, Correction]:
    """The corrections that hold, by sample key.

    Raises:
        DataError: A file is damaged; names it.
    """
    return holding(read_corrections(objects))


def holding(history: Iterable[Correction]) -> dict[str, Correction]:
    """The corrections that hold after all that was said, by sample key."""
    words = {line.key: line for line in history}
    return {key: line for key, line in sorted(words.items()) if line.act == "correct"}


def undo_corrections(store: Store, keys: Sequence[str], *, who: str, why: str) -> int:
    """Let the masks of the tar count again.

    Args:
        store: The dataset.
        keys: Of samples that are corrected.
        who: User and machine.
        why: The reason, in words.

    Returns:
        How many.

    Raises:
        InputError: One is not corrected, or no reason is given.
    """
    known = current_corrections(store.objects)
    if unknown := sorted(set(keys).difference(known)):
        message = (
            f"{unknown[0]!r} is not corrected, expected one of the {len(known)} samples that are: "
            f"'magicseg corrections list {store.root}' names them"
        )
        raise InputError(message)
    require_reason(why)
    at = datetime.now(UTC)
    wanted = list(dict.fromkeys(keys))
    lines = [Correction(key=k, act="undo", who=who, at=at, tool="", why=why) for k in wanted]
    CORRECTIONS.append(store.objects, lines)
    return len(lines)


def require_reason(why: str) -> None:
    """Refuse an act of which nobody would know later why it was done."""
    if not why.strip():
        message = "no reason is given: say why in a few words, for whoever meets it later"
        raise InputError(message)


def corrections_of(
    store: Store, commit: Commit, corrections: Mapping[str, Correction]
) -> tuple[Correction, ...]:
    """The corrections of samples in a finished shard's tar.

    Args:
        store: The dataset.
        commit: The record of the shard.
        corrections: Those that hold, by key.

    Raises:
        DataError: Its manifest is damaged, or a correction was made for other pictures.
    """
    found: list[Correction] = []
    for row, line in _of_shard(store, commit, corrections):
        if not line.fits(row):
            message = f"{stale_words(line)}; {undo_hint(store.root, line.key)}"
            raise DataError(message)
        found.append(line)
    return tuple(found)


def count_corrected(store: Store) -> dict[str, int]:
    """How many samples of finished shards have corrected masks, by slice id.

    Raises:
        DataError: A file or a manifest is damaged.
    """
    words, found = current_corrections(store.objects), dict[str, int]()
    for shard in store.shards() if words else ():
        count = sum(1 for _ in _of_shard(store, shard.commit, words))
        if count:
            found[shard.commit.slice_id] = found.get(shard.commit.slice_id, 0) + count
    return found


def stale_corrections(store: Store) -> Iterator[tuple[str, str]]:
    """Keys of samples whose corrections were made for other pictures, with what is wrong."""
    words = current_corrections(store.objects)
    for shard in store.shards() if words else ():
        for row, line in _of_shard(store, shard.commit, words):
            if not line.fits(row):
                yield line.key, stale_words(line)


def content_digest(
    identity: str, excluded: Iterable[str], corrections: Iterable[Correction]
) -> str:
    """What the samples of a tar are known by that are trained on or exported.

    Args:
        identity: What the tar is known by; the answer, unless there is one of the others.
        excluded: Keys of samples that are left out.
        corrections: Of its samples.
    """
    left_out = sorted(excluded)
    lines = sorted((each for each in corrections), key=lambda each: each.key)
    masks = [[each.key, each.objects, each.ignored] for each in lines]
    if not left_out and not masks:
        return identity
    return digest([identity, left_out, *([masks] if masks else [])])


def iterate_corrected(
    path: str | Path, identity: str, corrections: Iterable[Correction]
) -> Iterator[Sample]:
    """Stream the samples of a shard, with corrected masks where there are some.

    Args:
        path: Path or URL of the tar.
        identity: SHA-256 that its record gives.
        corrections: Of its samples.

    Raises:
        DataError: As `storage.shards.iterate` and `correct`.
    """
    return _corrected(iterate(path, identity), corrections)


def iterate_corrected_images(
    path: str | Path, identity: str, corrections: Iterable[Correction]
) -> Iterator[LabelledImage]:
    """Stream the images of a tar, generated and real ones, with corrected masks as above.

    Args:
        path: Path or URL of the tar.
        identity: SHA-256 that its record gives.
        corrections: Of its samples.

    Raises:
        DataError: As `storage.labelled_images.iterate_labelled` and `correct`.
    """
    return _corrected(iterate_labelled(path, identity), corrections)


def _corrected(
    samples: Iterable[PictureT], corrections: Iterable[Correction]
) -> Iterator[PictureT]:
    by_key = {each.key: each for each in corrections}
    for sample in samples:
        yield correct(sample, by_key[sample.key]) if sample.key in by_key else sample


def correct(sample: PictureT, correction: Correction) -> PictureT:
    """A sample with the masks of a correction: label map, classes and objects.

    Raises:
        DataError: The correction was made for another image or another mask, or its run lengths
            are not those of the image.
    """
    correction.require_pictures(sample.image_bytes, sample.mask_bytes)
    changes: dict[str, Any] = {
        "class_ids": correction.class_ids,
        "class_names": correction.class_names,
        "mask_bytes": encode_label_map(correction.label_map()),
    }
    if isinstance(sample, Sample):
        changes["instances"] = tuple(drawn_instances(correction))
    return dataclasses.replace(sample, **changes)


def correct_row(row: ManifestRow, correction: Correction) -> ManifestRow:
    """What a manifest would say of a sample with corrected masks.

    Its digests stay those of the tar, which is as it was.

    Raises:
        DataError: The run lengths are not those of the image.
    """
    areas = correction.areas
    said = tuple(1.0 for _ in correction.objects)  # a person's word
    return row.model_copy(
        update={
            "class_ids": correction.class_ids,
            "class_names": correction.class_names,
            "mask_class_ids": tuple(areas),
            "mask_areas": tuple(areas.values()),
            "instance_class_ids": tuple(each.class_id for each in correction.objects),
            "instance_scores": said,
            "instance_ious": said,
        }
    )


def current_classes(
    store: Store, commit: Commit, corrected: Iterable[Correction]
) -> dict[str, tuple[int, ...]]:
    """Classes of the samples in a shard's tar by key, those of corrected masks among them.

    Args:
        store: The dataset.
        commit: The record of the shard.
        corrected: What `corrections_of` gave of it.

    Raises:
        DataError: The manifest is damaged.
    """
    return store.written_classes(commit) | {each.key: each.class_ids for each in corrected}


def undo_hint(root: str, key: str) -> str:
    """What to do about a correction that holds no more."""
    return f"undo it by 'magicseg corrections undo {root} {key} --why TEXT'"


def drawn_instances(correction: Correction) -> Iterator[Instance]:
    """The objects of a correction, as those of a sample.

    Raises:
        DataError: The run lengths are not those of the image.
    """
    for each, mask in zip(correction.objects, correction.masks(), strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        yield Instance(
            class_id=each.class_id,
            score=1.0,  # a person's word
            predicted_iou=1.0,
            xyxy=(
                float(columns[0]),
                float(rows[0]),
                float(columns[-1] + 1),
                float(rows[-1] + 1),
            ),
            area=int(mask.sum()),
            rle=each.rle,
        )


def _of_shard(
    store: Store, commit: Commit, corrections: Mapping[str, Correction]
) -> Iterator[tuple[ManifestRow, Correction]]:
    wanted = {key for key in corrections if key.startswith(commit.slice_id)}
    if not wanted or commit.object is None or commit.manifest is None:
        return
    for row in store.manifest(commit):
        if row.key in wanted and row.status == "written":
            yield row, corrections[row.key]


def stale_words(line: Correction) -> str:
    """Say that a correction was made for other pictures than those that there are."""
    return (
        f"the correction of sample {line.key} ({line.who}, {line.at.date()}) was made for other "
        "pictures than the tar has now"
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
