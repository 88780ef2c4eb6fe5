"""Exports that start from a terminal, and what they are made of: the good shards of a dataset."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from storage.errors import InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.coco import CocoExport, export_coco
from storage.exports.selection import ExportFacts, ExportShard, committed_shards
from storage.layout import SPEC_PATH
from storage.objects import open_objects
from storage.store import Store
from storage.vocabulary import load_vocabulary


def shards_to_export(dataset: str) -> list[ExportShard]:
    """The committed shards of a dataset that are not degraded, or the tars of a folder.

    Raises:
        InputError: There is none.
    """
    if _is_dataset(dataset):
        return committed_shards(Store.open(dataset))
    from training.data import find_shards  # a second of imports that datasets do without

    found = find_shards(dataset)
    return [ExportShard(each.path, each.identity, each.excluded, each.num_bytes) for each in found]


def vocabulary_of(dataset: str) -> str:
    """Name of the vocabulary that a dataset was made with.

    Raises:
        InputError: It is a folder of tars, which names none.
    """
    if not _is_dataset(dataset):
        message = f"{dataset} is a folder of tars and names no vocabulary: give --vocabulary"
        raise InputError(message)
    return Store.open(dataset).vocabulary


def _is_dataset(place: str) -> bool:
    return open_objects(place).size(SPEC_PATH) is not None


def export_facts(dataset: str, vocabulary: str | None) -> ExportFacts:
    """What is said of a dataset in every export.

    Raises:
        InputError: It is a folder of tars, and no vocabulary is given.
    """
    name = vocabulary or vocabulary_of(dataset)
    if not _is_dataset(dataset):
        return ExportFacts(vocabulary=name)
    return ExportFacts.of(Store.open(dataset)).model_copy(update={"vocabulary": name})


def export_coco_locally(
    dataset: str,
    out: Path,
    console: Console,
    classes: str | None = None,
    vocabulary: str | None = None,
    *,
    images: bool = True,
) -> CocoExport:
    """Export a dataset as COCO instances in this process, and say what came out.

    Raises:
        DataError: A shard is damaged.
        InputError: There is nothing to export, the vocabulary of a folder of tars is not given, or
            the folder holds something else.
        LeaseHeldError: Somebody else exports there.
    """
    shards = shards_to_export(dataset)  # what is no dataset is told before anything else
    facts = export_facts(dataset, vocabulary)
    chosen = None
    if classes is not None:
        closed_set = resolve_closed_set(load_vocabulary(facts.vocabulary), classes)
        chosen = [class_id for class_id in closed_set.class_ids if class_id is not None]
    exported = export_coco(shards, facts, out, classes=chosen, images=images)
    title = f"{exported.num_annotations} objects in {exported.num_images} images in {out}"
    table = Table("class", "objects", title=title)
    for name, count in exported.annotations_by_class.items():
        table.add_row(name, str(count))
    console.print(table)
    if exported.num_skipped:
        console.print(f"{exported.num_skipped} samples show no class of {classes}")
    return exported
