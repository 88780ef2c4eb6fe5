"""Export of shards as folders with files of each sample and one document: YOLO, FiftyOne.

    <the files of the form>        see `storage.exports.yolo` and `storage.exports.fiftyone`
    DATASET_CARD.md                what the dataset is and on which terms
    export.json                    what the folder holds; removed first and written last
    .export/                       what was asked for, a record of each shard that is done, a lock

An export can be repeated at any time: it goes on where it was interrupted, adds new shards, and
replaces what came of shards that have changed or are gone. As long as anything differs from what
`export.json` says, that file and the form's document are missing. One sample is in memory at a
time; its line of the document waits in a file of its shard.
"""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from storage.codecs import decode_image
from storage.corrections import iterate_corrected
from storage.errors import DataError, InputError
from storage.exports.samples import DatasetWords, SampleForm, exported_objects
from storage.exports.source_shards import SourceShard
from storage.files import TEMP_SUFFIX, remove, sync_all, whole_file, write_whole
from storage.identity import digest, refuse_drift
from storage.locks import LOCK_FILE, hold_folder, refuse_other_files
from storage.picture_headers import image_format
from storage.records import Record, read_object, read_record
from storage.sample_keys import UniqueKeys
from storage.shards import Sample
from storage.vocabulary import Vocabulary

__all__ = ["ExportedSamples", "export_samples", "read_exported_samples"]

_EXPORT_FILE = "export.json"
_CARD_FILE = "DATASET_CARD.md"
_OWN_FOLDER = ".export"
_REQUEST_FILE = f"{_OWN_FOLDER}/request.json"
_SHARD_FOLDER = f"{_OWN_FOLDER}/shards"
_AGAIN = "remove it and export again"

_log = logging.getLogger(__name__)


class ExportedSamples(Record, frozen=True):
    """What an export holds: the contents of ``export.json``."""

    form: str
    """yolo or fiftyone."""
    document: str
    """The file that the tool is given."""
    dataset: str
    """Stands for all that the samples depend on, 64 hex digits; empty for a folder of tars."""
    vocabulary: str
    """What class indices mean."""
    num_samples: int
    """Exported samples."""
    num_objects: int
    """Exported masks."""
    samples_by_class: dict[str, int]
    """Samples that show each class; one of two classes counts for both."""
    digest: str
    """Stands for the shards that it was made from."""


class _ShardRecord(Record, frozen=True):
    """What one shard gave."""

    identity: str
    keys: tuple[str, ...]
    suffix: str
    num_objects: int
    samples_by_class: dict[str, int]


@dataclass(frozen=True)
class _Task:
    form: SampleForm
    vocabulary: Vocabulary
    words: DatasetWords
    out: Path


def export_samples(
    tars: Collection[SourceShard],
    form: SampleForm,
    vocabulary: Vocabulary,
    words: DatasetWords,
    out: Path,
) -> ExportedSamples:
    """Export all samples with all of their masks.

    Args:
        tars: What is exported.
        form: How.
        vocabulary: What class indices mean.
        words: What the export says of the dataset.
        out: The folder; made if missing.

    Returns:
        What the folder holds now: these tars, and nothing of others.

    Raises:
        DataError: A tar is damaged, a sample is in two of them, or has files of two formats.
        InputError: The folder holds other files or another export, the tars were made with another
            vocabulary, or there is no sample.
        LeaseHeldError: Another export into the folder is at work.
    """
    named = {tar.name: tar for tar in sorted(tars, key=lambda each: each.path)}
    if len(named) < len(tars):
        message = "two of the shards have the same file name, expected those of one dataset"
        raise InputError(message)
    refuse_other_files(out, "an export", marks=(_OWN_FOLDER,))
    with hold_folder(out):
        task = _Task(form, vocabulary, words, out)
        _remove_temporary(out)
        _check_request(task)
        done = _finished(task, named)
        if done.keys() != named.keys() or _recorded(out) - done.keys():
            _open_again(task)
        for name in sorted(_recorded(out) - done.keys()):
            remove(_record_path(out, name))
        keys = UniqueKeys()
        for name, record in done.items():
            keys.add(record.keys, named[name].path)
        for number, (name, tar) in enumerate(named.items(), start=1):
            if name not in done:
                done[name] = _export_tar(tar, task, keys)
                sync_all()  # before there is a record that vouches for the files
                write_whole(_record_path(out, name), done[name].model_dump_json().encode())
            _log.info("%d of %d shards exported to %s", number, len(named), out)
        return _finish(task, {name: done[name] for name in named})


def read_exported_samples(folder: Path) -> ExportedSamples:
    """Read what a finished export holds.

    Raises:
        InputError: The folder holds no export, or an unfinished one.
        DataError: Its description is damaged.
    """
    place = folder / _EXPORT_FILE
    if not place.is_file():
        message = f"{folder} holds no finished export (no {_EXPORT_FILE}): run `magicseg export`"
        raise InputError(message)
    return read_record(ExportedSamples, place.read_bytes(), str(place), way_out="export again")


def _remove_temporary(out: Path) -> None:
    """Remove what exports left that were killed; whoever waits for the lock may make a file."""
    for path in out.rglob(f".*{TEMP_SUFFIX}"):
        if not path.name.startswith(f".{LOCK_FILE}."):
            remove(path)


def _check_request(task: _Task) -> None:
    """Write down what the folder is for, or refuse something else."""
    path = task.out / _REQUEST_FILE
    asked = {"format": task.form.name, "vocabulary": task.vocabulary.digest}
    if not path.is_file():
        write_whole(path, json.dumps(asked).encode())
        return
    old = read_object(path.read_bytes(), str(path), way_out="export into another folder")
    what = f"{task.out} holds another export"
    refuse_drift(what, old, asked, way_out="Choose another folder")


def _finished(task: _Task, named: Mapping[str, SourceShard]) -> dict[str, _ShardRecord]:
    """The tars whose files are all there and still the same, by name."""
    present = [_names_in(task.out / folder) for folder in task.form.folders]
    done: dict[str, _ShardRecord] = {}
    for name, tar in named.items():
        place = _record_path(task.out, name)
        if not (place.is_file() and _lines_path(task.out, name).is_file()):
            continue
        record = read_record(_ShardRecord, place.read_bytes(), str(place), way_out=_AGAIN)
        wanted = _wanted(task.form, record)
        whole = all(there >= names for there, names in zip(present, wanted, strict=True))
        if record.identity == tar.content and whole:
            done[name] = record
    return done


def _wanted(form: SampleForm, record: _ShardRecord) -> list[set[str]]:
    """Names of a tar's files, folder by folder."""
    files = [form.file_names(key, record.suffix) for key in record.keys]
    return [{each[at] for each in files} for at in range(len(form.folders))]


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("[!.]*")}


def _recorded(out: Path) -> set[str]:
    """Names of the tars of which there is a record."""
    return {path.name.removesuffix(".json") for path in (out / _SHARD_FOLDER).glob("[!.]*.json")}


def _open_again(task: _Task) -> None:
    """Take away what says that the folder is whole."""
    remove(task.out / _EXPORT_FILE)
    remove(task.out / task.form.document)


def _export_tar(tar: SourceShard, task: _Task, known: UniqueKeys) -> _ShardRecord:
    keys: list[str] = []
    suffixes: set[str] = set()
    shown: Counter[str] = Counter()
    num_objects = 0
    with ExitStack() as stack:
        place = stack.enter_context(whole_file(_lines_path(task.out, tar.name), durable=False))
        lines = stack.enter_context(place.open("w", encoding="utf-8", newline="\n"))
        for sample in iterate_corrected(tar.path, tar.identity, tar.corrected):
            known.add([sample.key], tar.path)  # before it would overwrite another one
            task.vocabulary.check_names(sample.class_ids, sample.class_names, tar.path)
            if sample.key in tar.excluded:
                continue
            suffix = f".{image_format(sample.image_bytes)}"
            suffixes.add(suffix)
            if len(suffixes) > 1:
                message = f"{tar.path} has both JPEG and PNG images, expected one format"
                raise DataError(message)
            count, line = _write_sample(sample, suffix, task)
            lines.write(f"{line}\n" if line else "")
            keys.append(sample.key)
            shown.update(sample.class_names)
            num_objects += count
    return _ShardRecord(
        identity=tar.content,
        keys=tuple(keys),
        suffix=suffixes.pop() if suffixes else "",
        num_objects=num_objects,
        samples_by_class=dict(sorted(shown.items())),
    )


def _write_sample(sample: Sample, suffix: str, task: _Task) -> tuple[int, str]:
    """Write the files of a sample; returns the number of its objects, and its line.

    Pictures are copied as they are, but decoded first: others would meet the damage much later.
    """
    decode_image(sample.image_bytes, name=sample.member("image"))
    decode_image(sample.counterfactual_bytes, name=sample.member("counterfactual"))
    objects = exported_objects(sample)
    contents, line = task.form.write(sample, objects, suffix)
    names = task.form.file_names(sample.key, suffix)
    for folder, name, data in zip(task.form.folders, names, contents, strict=True):
        write_whole(task.out / folder / name, data, durable=False)
    return len(objects), line


def _finish(task: _Task, records: Mapping[str, _ShardRecord]) -> ExportedSamples:
    """Make the folder whole: no file but those of the records, the document, what it holds."""
    exported = _summary(task, records)
    strays = _strays(task, records)
    if not strays and _says(task, exported):
        return exported
    _open_again(task)
    for path in strays:
        remove(path)
    for name, text in {_CARD_FILE: task.words.card, **task.form.other_files(task.words)}.items():
        write_whole(task.out / name, text.encode())
    with (
        whole_file(task.out / task.form.document) as path,
        path.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(task.form.document_lines(task.words, _lines(task.out, records)))
    write_whole(task.out / _EXPORT_FILE, exported.model_dump_json(indent=1).encode())
    return exported


def _says(task: _Task, exported: ExportedSamples) -> bool:
    """Whether a finished folder says the same already, in its card too."""
    files = [task.form.document, _EXPORT_FILE, _CARD_FILE, *task.form.other_files(task.words)]
    return (
        all((task.out / name).is_file() for name in files)
        and read_exported_samples(task.out) == exported
        and (task.out / _CARD_FILE).read_bytes() == task.words.card.encode()
    )


def _strays(task: _Task, records: Mapping[str, _ShardRecord]) -> list[Path]:
    """Files that came of tars, or of samples, that are no longer exported."""
    found: list[Path] = []
    wanted = [_wanted(task.form, record) for record in records.values()]
    for at, folder in enumerate(task.form.folders):
        names = {name for each in wanted for name in each[at]}
        there = _names_in(task.out / folder)
        found += [task.out / folder / name for name in sorted(there - names)]
    kept = {_lines_path(task.out, name) for name in records}
    lines = sorted((task.out / _SHARD_FOLDER).glob("*.lines"))
    return [*found, *(path for path in lines if path not in kept)]


def _lines(out: Path, names: Collection[str]) -> Iterator[str]:
    for name in names:
        with _lines_path(out, name).open(encoding="utf-8", newline="\n") as file:
            yield from (line.removesuffix("\n") for line in file)


def _summary(task: _Task, records: Mapping[str, _ShardRecord]) -> ExportedSamples:
    shown: Counter[str] = Counter()
    for record in records.values():
        shown.update(record.samples_by_class)
    num_samples = sum(len(record.keys) for record in records.values())
    if not num_samples:
        message = f"none of the {len(records)} shards has a sample to export: generate some first"
        raise InputError(message)
    return ExportedSamples(
        form=task.form.name,
        document=task.form.document,
        dataset=task.words.dataset,
        vocabulary=task.vocabulary.name,
        num_samples=num_samples,
        num_objects=sum(record.num_objects for record in records.values()),
        samples_by_class={k.name: shown[k.name] for k in task.vocabulary if shown[k.name]},
        digest=digest([record.identity for record in records.values()]),
    )


def _record_path(out: Path, name: str) -> Path:
    return out / _SHARD_FOLDER / f"{name}.json"


def _lines_path(out: Path, name: str) -> Path:
    return out / _SHARD_FOLDER / f"{name}.lines"
