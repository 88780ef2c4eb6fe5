"""What the command `export` does with `--format`, and what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from models.outlines import outline
from storage.errors import InputError
from storage.exports.coco import CocoForm
from storage.exports.cvat import CvatForm
from storage.exports.documents import ExportedDocument, export_document
from storage.exports.fiftyone import FiftyOneForm
from storage.exports.forms import DocumentForm, export_facts
from storage.exports.label_studio import LabelStudioForm
from storage.exports.source_shards import SourceShard
from storage.exports.yolo import YoloForm
from storage.imports import read_import
from storage.paths import local_path
from storage.vocabulary import load_vocabulary
from training.data import find_shards

DocumentFormat = Literal["coco", "yolo", "fiftyone", "label-studio", "cvat"]


def export_as(
    dataset: str, form: DocumentFormat, vocabulary: str, out: Path, *, images: bool = True
) -> ExportedDocument:
    """Export the samples of a dataset that are not left out, with their masks as corrected.

    Args:
        dataset: Its root, or a folder of tars.
        form: What is written.
        vocabulary: What its label maps index.
        out: The folder.
        images: Whether pictures are written too.

    Raises:
        DataError: A shard is damaged.
        InputError: There is nothing to export, or the folder holds something else.
        LeaseHeldError: Somebody else exports there.
    """
    found = find_shards(dataset)
    if "://" not in dataset and read_import(local_path(dataset)):
        message = (
            f"{dataset} holds real images, which have no objects and no counterfactuals: only "
            "--format folders exports them"
        )
        raise InputError(message)
    classes = load_vocabulary(vocabulary)
    forms: dict[DocumentFormat, Callable[[], DocumentForm]] = {
        "coco": lambda: CocoForm(classes),
        "yolo": lambda: YoloForm(classes, outline),
        "fiftyone": lambda: FiftyOneForm(classes),
        "label-studio": lambda: LabelStudioForm(classes, out.absolute().name),
        "cvat": lambda: CvatForm(classes),
    }
    shards = [SourceShard(s.path, s.identity, s.excluded, s.corrected) for s in found]
    facts = export_facts(dataset, classes)
    return export_document(shards, forms[form](), classes, facts, out, images=images)


def print_export(exported: ExportedDocument, out: Path, say: Callable[[str], None]) -> None:
    """Say what an export came to."""
    pictures = "with pictures" if exported.images else "without pictures"
    say(f"{exported.num_samples} samples with {exported.num_regions} masks, {pictures}")
    say(f"{out / exported.document}")
