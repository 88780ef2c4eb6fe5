"""What is stored of one sample, read without the rest of its shard.

Of a sample in a tar its members are read, and held against the manifest's digests. Of one that was
dropped on the way, or whose shard is not packed yet, there is what the stages made of it, as long
as their pieces are there: 'magicseg gc' frees the pictures of packed shards.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool

from storage.archive_search import ArchiveSearch
from storage.codecs import decode_label_map, decode_rle, encode_label_map
from storage.commits import Commit
from storage.corrections import Correction, drawn_instances
from storage.errors import DataError
from storage.layout import cell_name
from storage.manifest import ManifestRow
from storage.picture_headers import image_size
from storage.records import (
    IGNORE_LABEL,
    Box,
    Detection,
    Instance,
    MaskSample,
    Mention,
    Prompt,
    Record,
    Stage,
    TwinCheck,
)
from storage.sample_columns import OPEN, WRITTEN
from storage.sample_members import SampleFields, check_sample, sample_parts
from storage.sample_parts import SamplePart
from storage.store import Store

_IMAGES, _TWINS = ("jpg", "png"), ("cf.jpg", "cf.png")
_MOST_SAMPLES, _MOST_ARCHIVES, _MOST_UNITS = 8, 128, 256
_FREED = (
    "its pictures are not there any more: 'magicseg gc' frees those of dropped samples when their "
    "shard is packed"
)

_KeyT = TypeVar("_KeyT")
_ValueT = TypeVar("_ValueT")


@dataclass(frozen=True)
class StoredObject:
    """An object that was found in the image.

    Attributes:
        class_id: Vocabulary index.
        score: Detector's score in [0, 1].
        xyxy: Left, top, right, bottom in pixels.
        iou: The segmenter's own estimate; None if it has no mask.
        rle: Its mask as COCO run lengths; empty if it has none.
    """

    class_id: int
    score: float
    xyxy: tuple[float, float, float, float]
    iou: float | None = None
    rle: str = ""


@dataclass(frozen=True)
class StoredSample:
    """A sample as far as it is stored.

    Attributes:
        key: Sample key.
        image: JPEG or PNG; empty if it is not there.
        counterfactual: The same of the counterfactual.
        label_map: PNG of a written sample; empty of others.
        mentions: Where its text names its classes.
        objects: What was found in the image.
        counterfactual_boxes: What was found in the counterfactual.
        record: The JSON of its tar, as text; empty if it is in none.
        notes: What is not there, and why.
    """

    key: str
    image: bytes = b""
    counterfactual: bytes = b""
    label_map: bytes = b""
    mentions: tuple[Mention, ...] = ()
    objects: tuple[StoredObject, ...] = ()
    counterfactual_boxes: tuple[Box, ...] = ()
    record: str = ""
    notes: tuple[str, ...] = ()

    @property
    def has_masks(self) -> bool:
        """Whether any object has a mask, or there is a label map."""
        return bool(self.label_map) or any(each.rle for each in self.objects)

    def mask(self, class_id: int | None) -> Bool[np.ndarray, "height width"] | None:
        """The pixels of a class, or those that are ignored (None); None if nothing is known.

        Raises:
            DataError: A mask or the label map is damaged.
        """
        if self.label_map:
            labels = decode_label_map(self.label_map, name=f"{self.key}.mask.png")
            return labels == (IGNORE_LABEL if class_id is None else class_id + 1)
        masks = [each.rle for each in self.objects if each.class_id == class_id and each.rle]
        if not masks or not self.image:
            return None
        width, height = image_size(self.image)
        decoded = [decode_rle(rle, height, width, name=f"mask of {self.key}") for rle in masks]
        return np.any(decoded, axis=0)

    def corrected(self, correction: Correction) -> "StoredSample":
        """The same sample with the masks that somebody drew.

        Raises:
            DataError: The run lengths are not those of the image.
        """
        return replace(
            self,
            label_map=encode_label_map(correction.label_map()),
            objects=tuple(_object(each) for each in drawn_instances(correction)),
        )


class SampleReader:
    """Reads samples of a dataset; may be asked from any thread.

    Args:
        store: The dataset.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._samples = _Latest[str, StoredSample](_MOST_SAMPLES)
        self._archives = _Latest[str, ArchiveSearch](_MOST_ARCHIVES)
        self._units = _Latest[tuple[Stage, str], list[Commit]](_MOST_UNITS)

    def forget(self) -> None:
        """Read everything anew from now on."""
        for each in (self._samples, self._archives, self._units):
            each.clear()

    def read(self, part: SamplePart, row: ManifestRow) -> StoredSample:
        """Read all that is stored of a sample.

        What cannot be read is told in its notes.

        Args:
            part: Its shard.
            row: What the manifest says of it.
        """
        name = f"{part.version}/{row.key}"
        read = self._read_written if row.status == WRITTEN else self._read_pieces
        return self._samples.get(name, lambda: read(part, row))

    def image(self, part: SamplePart, key: str, index: int) -> bytes:
        """Read the image of a sample alone; empty if there is none.

        Args:
            part: Its shard.
            key: Its key.
            index: Its position in the slice.

        Raises:
            DataError: The tar or the piece is damaged.
        """
        try:
            if key in part.written:
                found = self._tar(part).members(key, _IMAGES, most=1)
            else:
                found = self._pictures(Stage.PAIRS, part.shard, key, index)
        except FileNotFoundError:
            return b""
        return next((found[kind] for kind in _IMAGES if kind in found), b"")

    def _read_written(self, part: SamplePart, row: ManifestRow) -> StoredSample:
        try:
            members = self._tar(part).members(row.key)
            which = sample_parts(members)
            about = check_sample(members, row.key, self._path(part))
        except FileNotFoundError:
            message = f"{self._path(part)} is committed but gone; run 'magicseg verify --repair'"
            return StoredSample(row.key, notes=(message,))
        except (DataError, StopIteration, KeyError) as error:
            why = str(error) if isinstance(error, DataError) else "members are missing"
            return StoredSample(row.key, notes=(f"{self._path(part)}: {row.key}: {why}",))
        digests = {
            which.image: row.image_sha256,
            which.twin: row.counterfactual_sha256,
            which.mask: row.mask_sha256,
        }
        wrong = [
            kind
            for kind, sha256 in digests.items()
            if kind and hashlib.sha256(members[kind]).hexdigest() != sha256
        ]
        notes = [
            f"{self._path(part)}: {row.key}.{kind} is not what was committed (its digest is "
            "another), and is not shown; run 'magicseg verify --deep'"
            for kind in wrong
        ]
        shown = {kind: data for kind, data in members.items() if kind not in wrong}
        return _of_tar(about, replace(StoredSample(row.key), notes=tuple(notes)), shown)

    def _read_pieces(self, part: SamplePart, row: ManifestRow) -> StoredSample:
        found = StoredSample(row.key)
        notes: list[str] = []
        for stage in self._store.specification.stages[:-1]:
            try:
                if stage.holds_pictures:
                    found = _with_pictures(
                        found, self._pictures(stage, part.shard, row.key, row.index)
                    )
                else:
                    for record in self._records(stage, part.shard, row.key, row.index):
                        found = _with_record(found, record)
            except (DataError, FileNotFoundError) as error:
                notes.append(f"{stage}: {error}")
        stages = self._store.specification.stages
        painted = row.stage and stages.index(Stage(row.stage)) > stages.index(Stage.PAIRS)
        if not found.image and not notes:
            notes.append(_why_bare(row, painted=bool(painted)))
        return replace(found, notes=tuple(notes))

    def _tar(self, part: SamplePart) -> ArchiveSearch:
        ref = part.commit.object if part.commit else None
        if ref is None:
            message = f"shard {part.shard} has no tar, its manifest says otherwise; "
            raise DataError(message + "verify the dataset")
        return self._archives.get(
            part.version,
            lambda: ArchiveSearch(self._store.objects, ref.path, ref.size, [*part.written]),
        )

    def _path(self, part: SamplePart) -> str:
        ref = part.commit.object if part.commit else None
        return ref.path if ref else part.shard

    def _pictures(self, stage: Stage, shard: str, key: str, index: int) -> dict[str, bytes]:
        """The pictures that a stage made of a sample that is in no tar, by extension."""
        for commit in self._outputs(stage, shard, index):
            ref = commit.object
            if ref is None:
                continue
            if not commit.is_piece:  # version 0.1: it says of no sample what it holds
                pairs = (each for each in self._store.pairs(commit) if each.key == key)
                for pair in pairs:
                    return {"png": pair.image_bytes, "cf.png": pair.counterfactual_bytes}
            elif key in commit.verdicts and commit.verdicts[key].output:
                keys = [each for each, verdict in commit.verdicts.items() if verdict.output]
                search = self._archives.get(
                    ref.path,
                    lambda: ArchiveSearch(self._store.objects, ref.path, ref.size, keys),  # noqa: B023 - called at once
                )
                return search.members(key, (*_IMAGES, *_TWINS), most=2)
        return {}

    def _records(self, stage: Stage, shard: str, key: str, index: int) -> Iterator[Record]:
        """What a stage said of a sample that is in no tar."""
        for commit in self._outputs(stage, shard, index):
            if not commit.is_piece or key in commit.verdicts:
                rows = [row for row in self._store.rows(commit) if getattr(row, "key", "") == key]
                yield from rows
                if rows:
                    return

    def _outputs(self, stage: Stage, shard: str, index: int) -> list[Commit]:
        """What a stage made of the cell of a sample, or of its shard; the newest first."""
        cell = cell_name(shard.partition("-")[0], index // self._store.cell_samples)

        def look(unit: str) -> list[Commit]:
            found = self._store.log.good(stage, unit)
            return sorted(found, key=lambda each: (each.created, each.key), reverse=True)

        return [
            commit
            for unit in (cell, shard)
            for commit in self._units.get((stage, unit), lambda: look(unit))  # noqa: B023 - called at once
        ]


class _Latest(Generic[_KeyT, _ValueT]):
    """What was made latest, up to a number.

    Args:
        most: How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[_KeyT, _ValueT] = OrderedDict()

    def get(self, key: _KeyT, make: Callable[[], _ValueT]) -> _ValueT:
        """What is kept under a key, made if it is not there; others need not wait for that."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            kept = self._kept.setdefault(key, made)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return kept

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()


def _why_bare(row: ManifestRow, *, painted: bool) -> str:
    """Why there is no image of a sample that is in no tar."""
    if row.status == OPEN:
        return "it is not painted yet" if not painted else "its pictures are not there any more"
    return _FREED if painted else f"it was dropped at {row.stage}: no image was kept of it"


def _of_tar(about: SampleFields, found: StoredSample, members: dict[str, bytes]) -> StoredSample:
    """A sample as its tar has it."""
    pictures = _with_pictures(found, members)
    return replace(
        pictures,
        label_map=members.get("mask.png", b""),
        mentions=about.mentions,
        objects=tuple(map(_object, about.instances)),
        counterfactual_boxes=about.counterfactual_boxes,
        record=members["json"].decode("utf-8", "replace"),
    )


def _object(instance: Instance) -> StoredObject:
    own = instance
    return StoredObject(own.class_id, own.score, own.xyxy, own.predicted_iou, own.rle)


def _with_pictures(found: StoredSample, members: dict[str, bytes]) -> StoredSample:
    image = next((members[kind] for kind in _IMAGES if members.get(kind)), found.image)
    twin = next((members[kind] for kind in _TWINS if members.get(kind)), found.counterfactual)
    return replace(found, image=image, counterfactual=twin)


def _with_record(found: StoredSample, record: Record) -> StoredSample:
    """Add what a stage said of a sample."""
    match record:
        case Prompt():
            return replace(found, mentions=record.mentions)
        case Detection():
            masks = record.masks or (None,) * len(record.boxes)
            objects = tuple(
                StoredObject(box.class_id, box.score, box.xyxy)
                if mask is None
                else StoredObject(box.class_id, box.score, box.xyxy, mask.predicted_iou, mask.rle)
                for box, mask in zip(record.boxes, masks, strict=True)
            )
            return replace(found, objects=objects, counterfactual_boxes=record.counterfactual_boxes)
        case MaskSample():
            return replace(found, objects=tuple(map(_object, record.instances)))
        case TwinCheck():
            return replace(found, counterfactual_boxes=record.counterfactual_boxes)
        case _:
            return found
