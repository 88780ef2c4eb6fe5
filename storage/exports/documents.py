"""Export of shards into a folder, in the form of a tool: one document, and files beside it.

    <folder of the form>/<key>.*   files of each sample, such as its picture as it is in the shard
    <document>                     there only while the folder is whole
    DATASET_CARD.md                what the dataset is and on which terms
    export.json                    what the folder holds; removed first and written last
    .export/                       what was asked for; entries and a record of each shard

An export can be repeated at any time: it goes on where it was interrupted, adds new shards, and
replaces what came of shards that have changed or are gone. A sample is in memory at a time; the
entries of a shard wait in files of their own until all are there, and are then joined.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storage.codecs import decode_image
from storage.errors import DataError, InputError
from storage.exports.forms import DocumentForm, ExportFacts, card_text, stable_id
from storage.exports.source_shards import SourceShard
from storage.files import TEMP_SUFFIX, remove, sync_all, whole_file, write_whole
from storage.identity import digest, refuse_drift
from storage.locks import LOCK_FILE, hold_folder, refuse_other_files
from storage.picture_headers import image_format
from storage.records import Record, read_object, read_record
from storage.sample_keys import UniqueKeys
from storage.shards import Sample
from storage.vocabulary import Vocabulary

__all__ = ["ExportedDocument", "export_document", "read_exported_document"]

EXPORT_FILE = "export.json"
CARD_FILE = "DATASET_CARD.md"
_OWN_FOLDER = ".export"
_REQUEST_FILE = f"{_OWN_FOLDER}/request.json"
_SHARD_FOLDER = f"{_OWN_FOLDER}/shards"
_AGAIN = "remove it and export again"

_log = logging.getLogger(__name__)


class ExportedDocument(Record, frozen=True):
    """What an export holds: the contents of ``export.json``."""

    form: str
    """What `--format` calls it."""
    document: str
    """Name of the document."""
    facts: ExportFacts
    """What it was made from."""
    images: bool
    """Whether the files of single samples are there too."""
    num_samples: int
    """Exported samples."""
    num_regions: int
    """Exported masks."""
    samples_by_class: dict[str, int]
    """Samples that show each class; one of two classes counts for both."""
    digest: str
    """Stands for the shards that it was made from."""


class _ShardRecord(Record, frozen=True):
    """What one shard gave."""

    identity: str
    suffix: str
    regions: dict[str, int]
    samples_by_class: dict[str, int]


@dataclass(frozen=True)
class _Task:
    form: DocumentForm
    vocabulary: Vocabulary
    out: Path
    images: bool


def export_document(
    shards: Sequence[SourceShard],
    form: DocumentForm,
    vocabulary: Vocabulary,
    facts: ExportFacts,
    out: Path,
    *,
    images: bool = True,
) -> ExportedDocument:
    """Export samples as one document, and files of each.

    Args:
        shards: The tars.
        form: How samples are written.
        vocabulary: What their class indices mean.
        facts: What the export says of its dataset.
        out: The folder; made if missing.
        images: Whether the files of single samples are written too.

    Returns:
        What the folder holds now: these shards, and nothing of others.

    Raises:
        DataError: A shard is damaged, or a sample is in two shards.
        InputError: The folder holds other files or another export, the shards were made with
            another vocabulary, or there is nothing to export.
        LeaseHeldError: Another export into the folder is at work.
    """
    named = {shard.name: shard for shard in sorted(shards, key=lambda each: each.path)}
    if len(named) < len(shards):
        message = "two of the shards have the same file name, expected those of one dataset"
        raise InputError(message)
    refuse_other_files(out, "an export", marks=(_OWN_FOLDER,))
    with hold_folder(out):
        task = _Task(form, vocabulary, out, images)
        _remove_temporary(out)
        _check_request(task)
        done = _finished(task, named)
        if done.keys() != named.keys() or _strange(out, named):
            _open_again(task)
        for name in _strange(out, set(done)):
            remove(_place(out, name))
        keys = UniqueKeys()
        for number, (name, shard) in enumerate(named.items(), start=1):
            if name in done:
                keys.add(done[name].regions, shard.path)
                continue
            done[name] = _export_shard(shard, task, keys)
            sync_all()  # before there is a record that vouches for the files
            write_whole(_place(out, name), done[name].model_dump_json().encode())
            _log.info("%d of %d shards exported to %s", number, len(named), out)
        return _finish(task, facts, {name: done[name] for name in named})


def read_exported_document(folder: Path) -> ExportedDocument:
    """Read what a finished export holds.

    Raises:
        InputError: The folder holds no export, or an unfinished one.
        DataError: Its description is damaged.
    """
    place = folder / EXPORT_FILE
    if not place.is_file():
        message = f"{folder} holds no finished export (no {EXPORT_FILE}): run `magicseg export`"
        raise InputError(message)
    return read_record(ExportedDocument, place.read_bytes(), str(place), way_out="export again")


def _remove_temporary(out: Path) -> None:
    for path in out.rglob(f".*{TEMP_SUFFIX}"):
        if not path.name.startswith(f".{LOCK_FILE}."):
            remove(path)


def _check_request(task: _Task) -> None:
    """Write down what the folder is for, or refuse something else."""
    path = task.out / _REQUEST_FILE
    asked = {
        "format": task.form.name,
        "vocabulary": task.vocabulary.digest,
        "images": task.images,
    }
    if path.is_file():
        old = read_object(path.read_bytes(), str(path), way_out="export into another folder")
        refuse_drift(
            f"{task.out} holds another export", old, asked, way_out="Choose another folder"
        )
    else:
        write_whole(path, json.dumps(asked).encode())


def _finished(task: _Task, named: dict[str, SourceShard]) -> dict[str, _ShardRecord]:
    """The shards whose entries and files are all there and still the same, by name."""
    folders = _folders(task)
    present = [{each.name for each in (task.out / own).glob("[!.]*")} for own in folders]
    done: dict[str, _ShardRecord] = {}
    for name, shard in named.items():
        place = _place(task.out, name)
        if not place.is_file():
            continue
        record = read_record(_ShardRecord, place.read_bytes(), str(place), way_out=_AGAIN)
        wanted = _wanted(task, record)
        whole = all(there >= names for there, names in zip(present, wanted, strict=True))
        parts = all(_entries(task.out, name, part).is_file() for part in task.form.parts)
        if record.identity == shard.content and whole and parts:
            done[name] = record
    return done


def _wanted(task: _Task, record: _ShardRecord) -> list[set[str]]:
    """Names of the files of a shard's samples, folder by folder."""
    files = [task.form.file_names(key, record.suffix) for key in record.regions]
    return [{each[at] for each in files} for at in range(len(_folders(task)))]


def _strange(out: Path, known: Any) -> list[str]:
    """Names of the records that are about other shards than these."""
    found = (path.name.removesuffix(".json") for path in (out / _SHARD_FOLDER).glob("[!.]*.json"))
    return sorted(name for name in found if name not in known)


def _open_again(task: _Task) -> None:
    """Take away what says that the folder is whole."""
    remove(task.out / EXPORT_FILE)
    remove(task.out / task.form.document)


def _export_shard(shard: SourceShard, task: _Task, known: UniqueKeys) -> _ShardRecord:
    regions: dict[str, int] = {}
    shown: Counter[str] = Counter()
    suffixes: set[str] = set()
    with ExitStack() as stack:
        files = {
            part: stack.enter_context(
                stack.enter_context(
                    whole_file(_entries(task.out, shard.name, part), durable=False)
                ).open("w", encoding="utf-8", newline="\n")
            )
            for part in task.form.parts
        }
        for sample in shard.samples(task.vocabulary):
            known.add([sample.key], shard.path)
            suffix = f".{image_format(sample.image_bytes)}"
            suffixes.add(suffix)
            if len(suffixes) > 1:
                message = f"{shard.path} has both JPEG and PNG images, expected one format"
                raise DataError(message)
            entries = task.form.entries(sample, suffix)
            for part, lines in entries.lines.items():
                files[part].writelines(f"{line}\n" for line in lines)
            if task.images:
                _write_files(task, sample, suffix, entries.files)
            regions[sample.key] = entries.regions
            shown.update(sample.class_names)
    return _ShardRecord(
        identity=shard.content,
        suffix=suffixes.pop() if suffixes else "",
        regions=regions,
        samples_by_class=dict(sorted(shown.items())),
    )


def _write_files(task: _Task, sample: Sample, suffix: str, files: Sequence[bytes]) -> None:
    """Copy pictures as they are, but decode them first: others would meet the damage later."""
    decode_image(sample.image_bytes, name=sample.member("image"))
    decode_image(sample.counterfactual_bytes, name=sample.member("counterfactual"))
    names = task.form.file_names(sample.key, suffix)
    for folder, name, data in zip(task.form.folders, names, files, strict=True):
        write_whole(task.out / folder / name, data, durable=False)


def _finish(task: _Task, facts: ExportFacts, records: dict[str, _ShardRecord]) -> ExportedDocument:
    """Make the folder whole: no file but those of the records, the document, what it holds."""
    exported = _summary(task, facts, records)
    strays = _strays(task, records)
    if not strays and _says(task, exported):
        return exported
    _open_again(task)
    for path in strays:
        remove(path)
    for name, text in {**task.form.other_files(facts), CARD_FILE: card_text(facts)}.items():
        write_whole(task.out / name, text.encode())
    lists = {part: _lines(task.out, list(records), part) for part in task.form.parts}
    with (
        whole_file(task.out / task.form.document) as path,
        path.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(task.form.document_lines(facts, lists))
    write_whole(task.out / EXPORT_FILE, exported.model_dump_json(indent=1).encode())
    return exported


def _says(task: _Task, exported: ExportedDocument) -> bool:
    """Whether a finished folder says the same already, in its card too."""
    others = task.form.other_files(exported.facts)
    files = [task.form.document, EXPORT_FILE, CARD_FILE, *others]
    return (
        all((task.out / name).is_file() for name in files)
        and read_exported_document(task.out) == exported
        and (task.out / CARD_FILE).read_bytes() == card_text(exported.facts).encode()
    )


def _strays(task: _Task, records: dict[str, _ShardRecord]) -> list[Path]:
    """Files that came of shards, or of samples, that are no longer exported."""
    found: list[Path] = []
    wanted = [_wanted(task, record) for record in records.values()]
    for at, folder in enumerate(_folders(task)):
        names = {name for each in wanted for name in each[at]}
        there = sorted((task.out / folder).glob("*"))
        found += [path for path in there if path.name not in names]
    kept = {_entries(task.out, name, part) for name in records for part in task.form.parts}
    lines = sorted((task.out / _SHARD_FOLDER).glob("*.lines"))
    return [*found, *(path for path in lines if path not in kept)]


def _lines(out: Path, names: Sequence[str], part: str) -> Iterator[str]:
    """The entries of a list, of all shards."""
    for name in names:
        with _entries(out, name, part).open(encoding="utf-8", newline="\n") as file:
            yield from (line.removesuffix("\n") for line in file)


def _summary(task: _Task, facts: ExportFacts, records: dict[str, _ShardRecord]) -> ExportedDocument:
    shown: Counter[str] = Counter()
    for each in records.values():
        shown.update(each.samples_by_class)
    samples = sum(len(each.regions) for each in records.values())
    if not samples:
        message = f"none of the {len(records)} shards has a sample to export: generate some first"
        raise InputError(message)
    if task.form.is_numbered:
        _refuse_doubled_ids(records)
    return ExportedDocument(
        form=task.form.name,
        document=task.form.document,
        facts=facts,
        images=task.images,
        num_samples=samples,
        num_regions=sum(sum(each.regions.values()) for each in records.values()),
        samples_by_class={
            each.name: shown[each.name] for each in task.vocabulary if shown[each.name]
        },
        digest=digest([each.identity for each in records.values()]),
    )


def _refuse_doubled_ids(records: dict[str, _ShardRecord]) -> None:
    """Refuse two samples, or two masks, of one number: once in millions of millions of pairs."""
    counted = [pair for each in records.values() for pair in each.regions.items()]
    for numbers in (
        np.fromiter((stable_id(key) for key, _ in counted), np.int64),
        np.fromiter((stable_id(key, n) for key, count in counted for n in range(count)), np.int64),
    ):
        found, counts = np.unique(numbers, return_counts=True)
        if (counts > 1).any():
            twice = int(found[counts > 1][0])
            keys = [
                key
                for key, count in counted
                if twice in {stable_id(key), *(stable_id(key, n) for n in range(count))}
            ]
            message = (
                f"samples {' and '.join(keys)} would have the number {twice} both: leave one of "
                "them out with 'magicseg exclusions add'"
            )
            raise DataError(message)


def _folders(task: _Task) -> tuple[str, ...]:
    return task.form.folders if task.images else ()


def _place(out: Path, name: str) -> Path:
    return out / _SHARD_FOLDER / f"{name}.json"


def _entries(out: Path, name: str, part: str) -> Path:
    return out / _SHARD_FOLDER / f"{name}.{part}.lines"
