"""Export of shards as COCO instances: one JSON file about all objects, and the images beside it.

    annotations/instances.json          there only while the export is whole
    images/<shard>/<key>.jpg|png        as they are in the shards
    counterfactuals/<shard>/<key>...    their twins
    .export/                            what was asked for, the parts of the JSON, a lock

Masks are the stored run lengths; nothing is decoded. An export can be repeated at any time: it goes
on where it was interrupted, adds new shards, and replaces what came of shards that have changed or
are gone. `instances.json` is removed first and written last, from one part a shard, so memory does
not grow with the dataset.

`storage.exports.coco_entries` says how ids are made.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import Field

from storage.codecs import decode_image
from storage.errors import InputError
from storage.exports.coco_entries import (
    EXPORT_AGAIN,
    IMAGES,
    TWINS,
    SliceNumbers,
    annotate,
    describe_image,
)
from storage.exports.selection import (
    ExportFacts,
    ExportShard,
    SeenSamples,
    named_shards,
    place_of,
)
from storage.files import TEMP_SUFFIX, remove, sync_all, whole_file, write_whole
from storage.identity import digest, refuse_drift
from storage.locks import LOCK_FILE, hold_folder, refuse_other_files
from storage.picture_headers import image_format
from storage.records import Record, read_object, read_record
from storage.shards import Sample
from storage.vocabulary import Vocabulary, load_vocabulary

__all__ = ["CocoExport", "export_coco", "read_coco_export"]

INSTANCES = "annotations/instances.json"
_OWN = ".export"
_REQUEST, _NUMBERS, _DONE = f"{_OWN}/request.json", f"{_OWN}/slices.json", f"{_OWN}/done.json"
_PARTS = f"{_OWN}/parts"
_KINDS = ("images", "annotations")

_log = logging.getLogger(__name__)


class CocoExport(Record, frozen=True):
    """What a finished export holds."""

    num_images: int
    """Entries of ``images``."""
    num_annotations: int
    """Entries of ``annotations``: objects."""
    annotations_by_class: dict[str, int]
    """Objects of each class that has any."""
    num_skipped: int
    """Samples that show none of the classes that were asked for."""
    digest: str
    """Stands for the shards that it was made from."""
    size: int = Field(default=0, ge=0)
    """Bytes of `instances.json`."""


class _Part(Record, frozen=True):
    """What one shard gave."""

    content: str
    keys: tuple[str, ...]
    annotations_by_class: dict[str, int]
    num_skipped: int


@dataclass(frozen=True)
class _Request:
    vocabulary: Vocabulary
    classes: frozenset[int] | None
    images: bool
    out: Path

    def describe(self) -> dict[str, Any]:
        classes = None if self.classes is None else sorted(self.classes)
        return {
            "format": "coco",
            "vocabulary": self.vocabulary.name,
            "classes": classes,
            "images": self.images,
        }


def export_coco(
    shards: Sequence[ExportShard],
    facts: ExportFacts,
    out: Path,
    *,
    classes: Sequence[int] | None = None,
    images: bool = True,
) -> CocoExport:
    """Export the objects of shards.

    Args:
        shards: The tars, and what of them is left out.
        facts: What is said of the dataset.
        out: The folder; made if missing.
        classes: Class ids; objects of others, and images without any of these, are left out.
        images: Whether images and counterfactuals are written too.

    Returns:
        What the folder holds now: these shards, and nothing of others.

    Raises:
        DataError: A shard is damaged, or a sample is in two shards.
        InputError: The folder holds other files or another export, the shards are of another
            vocabulary, or there is nothing to export.
        LeaseHeldError: Another export into the folder is at work.
    """
    vocabulary = load_vocabulary(facts.vocabulary)
    chosen = None if classes is None else frozenset(classes)
    request = _Request(vocabulary, chosen, images, out)
    by_name = named_shards(shards)
    refuse_other_files(out, "an export", marks=(_OWN,))
    with hold_folder(out):
        _remove_temporary(out)
        _check_request(request)
        wanted = digest([[s.content for s in by_name.values()], facts, request.describe()])
        found = _done(out)
        intact = all(_finished_part(request, shard) for shard in by_name.values())
        if found is not None and found.digest == wanted and intact:
            return found
        remove(out / INSTANCES)
        remove(out / _DONE)
        numbers = SliceNumbers(out / _NUMBERS)
        seen = SeenSamples()
        for shard in by_name.values():
            _export_shard(shard, request, numbers, seen)
        _drop_others(out, by_name)
        return _finish(by_name.values(), request, facts, wanted)


def read_coco_export(folder: Path) -> CocoExport:
    """Read what a finished export holds.

    Raises:
        InputError: The folder holds no export, or an unfinished one.
        DataError: Its record is damaged.
    """
    found = _done(folder)
    if found is None:
        message = (
            f"{folder} holds no finished export (no {INSTANCES}): run 'magicseg export' with "
            "--format coco"
        )
        raise InputError(message)
    return found


def _done(out: Path) -> CocoExport | None:
    place, made = out / _DONE, out / INSTANCES
    if not place.is_file() or not made.is_file():
        return None
    found = read_record(CocoExport, place.read_bytes(), str(place), way_out=EXPORT_AGAIN)
    return found if made.stat().st_size == found.size else None


def _remove_temporary(out: Path) -> None:
    """Remove what exports left that were killed; whoever waits for the lock may make a file."""
    for path in out.rglob(f".*{TEMP_SUFFIX}"):
        if not path.name.startswith(f".{LOCK_FILE}."):
            remove(path)


def _check_request(request: _Request) -> None:
    """Write down what the folder is for, or refuse something else."""
    path, asked = request.out / _REQUEST, request.describe()
    if path.is_file():
        old = read_object(path.read_bytes(), str(path), way_out="export into another folder")
        way_out = "Choose another folder"
        refuse_drift(f"{request.out} holds another export", old, asked, way_out=way_out)
    else:
        write_whole(path, json.dumps(asked).encode())


def _finished_part(request: _Request, shard: ExportShard) -> _Part | None:
    """What a shard gave, if all of that is there and the shard is still the same."""
    places = [_part_path(request.out, shard.name, kind) for kind in ("json", *_KINDS)]
    if not all(place.is_file() for place in places):
        return None
    part = read_record(_Part, places[0].read_bytes(), str(places[0]), way_out=EXPORT_AGAIN)
    if part.content != shard.content:
        return None
    for kind in (IMAGES, TWINS) if request.images else ():
        folder = request.out / kind / shard.name
        names = {path.stem for path in folder.glob("[!.]*")} if folder.is_dir() else set[str]()
        if names != set(part.keys):
            return None
    return part


def _export_shard(
    shard: ExportShard, request: _Request, numbers: SliceNumbers, seen: SeenSamples
) -> None:
    """Write the parts of a shard; those that are there stay."""
    out = request.out
    part = _finished_part(request, shard)
    if part is not None:
        for key in part.keys:
            seen.add(key, shard.path)
        return
    remove(_part_path(out, shard.name, "json"))
    for kind in (IMAGES, TWINS):
        _remove_folder(out / kind / shard.name)
    keys: list[str] = []
    counted: Counter[str] = Counter()
    skipped = 0
    with ExitStack() as stack:
        files = [stack.enter_context(_lines(_part_path(out, shard.name, kind))) for kind in _KINDS]
        for sample in shard.samples(request.vocabulary):
            number = numbers.of(place_of(sample.key)[0])
            entries = list(annotate(sample, number, request.classes))
            if request.classes is not None and not entries:
                skipped += 1
                continue
            seen.add(sample.key, shard.path)
            keys.append(sample.key)
            counted.update(request.vocabulary[e["category_id"] - 1].name for e in entries)
            _add(files[0], [describe_image(sample, number, shard.name)])
            _add(files[1], entries)
            if request.images:
                _write_pictures(sample, out, shard.name)
    part = _Part(
        content=shard.content,
        keys=tuple(keys),
        annotations_by_class=dict(sorted(counted.items())),
        num_skipped=skipped,
    )
    sync_all()  # before there is a record that vouches for the files
    write_whole(_part_path(out, shard.name, "json"), part.model_dump_json().encode())
    _log.info("%s exported to %s", shard.name, out)


def _write_pictures(sample: Sample, out: Path, shard: str) -> None:
    """Copy both images as they are, but decode them first: a trainer would meet damage later."""
    for kind, data in ((IMAGES, sample.image_bytes), (TWINS, sample.counterfactual_bytes)):
        decode_image(data, name=sample.member("image" if kind == IMAGES else "counterfactual"))
        path = out / kind / shard / f"{sample.key}.{image_format(data)}"
        write_whole(path, data, durable=False)


@contextmanager
def _lines(path: Path) -> Generator[BinaryIO]:
    with whole_file(path, durable=False) as temporary, temporary.open("wb") as file:
        yield file


def _add(file: BinaryIO, entries: Iterable[dict[str, Any]]) -> None:
    """Append entries of a JSON list; every one but the first of a file has a comma before it."""
    for entry in entries:
        if file.tell():
            file.write(b",\n")
        file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode())


def _drop_others(out: Path, wanted: Collection[str]) -> None:
    """Remove what came of shards that are gone."""
    for path in sorted((out / _PARTS).glob("[!.]*")):
        if path.name.rpartition(".")[0] not in wanted:
            remove(path)
    for kind in (IMAGES, TWINS):
        for folder in sorted((out / kind).glob("[!.]*")):
            if folder.name not in wanted:
                _remove_folder(folder)


def _finish(
    shards: Iterable[ExportShard], request: _Request, facts: ExportFacts, wanted: str
) -> CocoExport:
    """Put the parts together, and say what they hold."""
    out, names = request.out, [shard.name for shard in shards]
    counted: Counter[str] = Counter()
    images = skipped = 0
    for name in names:
        place = _part_path(out, name, "json")
        part = read_record(_Part, place.read_bytes(), str(place), way_out=EXPORT_AGAIN)
        images += len(part.keys)
        skipped += part.num_skipped
        counted.update(part.annotations_by_class)
    if not images:
        message = (
            f"none of the {skipped} samples of {len(names)} shards is to be exported: choose other "
            "classes, or generate them first"
        )
        raise InputError(message)
    with whole_file(out / INSTANCES) as temporary, temporary.open("wb") as file:
        head = json.dumps(_head(request, facts, wanted), ensure_ascii=False, indent=1)
        file.write(head.rpartition("\n}")[0].encode())
        for kind in _KINDS:
            file.write(f',\n "{kind}": [\n'.encode())
            _copy_parts([_part_path(out, name, kind) for name in names], file)
            file.write(b"\n]")
        file.write(b"\n}\n")
    exported = CocoExport(
        num_images=images,
        num_annotations=counted.total(),
        annotations_by_class=dict(sorted(counted.items())),
        num_skipped=skipped,
        digest=wanted,
        size=(out / INSTANCES).stat().st_size,
    )
    write_whole(out / _DONE, exported.model_dump_json(indent=1).encode())
    return exported


def _head(request: _Request, facts: ExportFacts, wanted: str) -> dict[str, Any]:
    """What stands in front of the lists of images and annotations."""
    chosen = request.classes
    return {
        "info": {
            "description": "Counterfactual segmentation quadruplets, all of them generated",
            "version": wanted[:16],
            "contributor": "MagicSeg Engine",
            "url": "",
            **facts.model_dump(mode="json"),
        },
        "licenses": [{"id": 1, "name": facts.terms, "url": ""}],
        "categories": [
            {"id": each.class_id + 1, "name": each.name, "supercategory": ""}
            for each in request.vocabulary
            if chosen is None or each.class_id in chosen
        ],
    }


def _copy_parts(parts: Sequence[Path], file: BinaryIO) -> None:
    first = True
    for path in parts:
        if path.stat().st_size:
            if not first:
                file.write(b",\n")
            with path.open("rb") as part:
                shutil.copyfileobj(part, file)
            first = False


def _remove_folder(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _part_path(out: Path, name: str, kind: str) -> Path:
    return out / _PARTS / f"{name}.{kind}"
