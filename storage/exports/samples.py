"""Samples on their way out: the masks of one, and what is said of all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from storage.card import render_card
from storage.codecs import decode_label_map, decode_rle
from storage.layout import SPEC_PATH
from storage.objects import open_objects
from storage.picture_headers import image_size
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL
from storage.shards import Sample
from storage.store import Store

__all__ = ["DatasetWords", "ExportedObject", "SampleForm", "describe_source", "exported_objects"]

_UNKNOWN = (
    "Text, image, counterfactual image and masks made by the MagicSeg engine, from a folder of "
    "tars.\nThey are outputs of models, whose terms apply; the card of their dataset names them.\n"
)


@dataclass(frozen=True)
class DatasetWords:
    """What an export says of its dataset.

    Attributes:
        dataset: Stands for all that its samples depend on, 64 hex digits; empty for a folder of
            tars.
        card: What it is and on which terms, Markdown.
    """

    dataset: str
    card: str


@dataclass(frozen=True)
class ExportedObject:
    """An object of a sample.

    Attributes:
        class_id: Vocabulary index.
        mask: Its pixels, of the size of the image.
        score: The detector's score in [0, 1]; None where there was no detector.
        predicted_iou: The segmenter's own estimate; None where there was none.
    """

    class_id: int
    mask: Bool[np.ndarray, "height width"]
    score: float | None = None
    predicted_iou: float | None = None


@runtime_checkable  # so that annotations can be executed
class SampleForm(Protocol):
    """How a tool wants samples."""

    @property
    def name(self) -> str:
        """What `--format` calls it."""
        ...

    @property
    def document(self) -> str:
        """The file without which the tool takes nothing of the folder."""
        ...

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders that hold a file of each sample."""
        ...

    def file_names(self, key: str, suffix: str) -> tuple[str, ...]:
        """The files of a sample, one in each of `folders`.

        Args:
            key: Sample key.
            suffix: Of its pictures, ``.jpg`` or ``.png``.
        """
        ...

    def write(
        self, sample: Sample, objects: Sequence[ExportedObject], suffix: str
    ) -> tuple[tuple[bytes, ...], str]:
        """What a sample becomes.

        Returns:
            The contents of its files, in the order of `file_names`, and its line of the document;
            empty where it has none.
        """
        ...

    def document_lines(self, words: DatasetWords, lines: Iterator[str]) -> Iterator[str]:
        """The document, from the lines of its samples."""
        ...

    def other_files(self, words: DatasetWords) -> dict[str, str]:
        """Further files that the tool reads, by name."""
        ...


def exported_objects(sample: Sample) -> list[ExportedObject]:
    """The objects of a sample as they are stored, before overlaps are resolved.

    A sample without stored objects has one for each class that its label map shows.

    Raises:
        DataError: The label map or a mask is damaged.
    """
    if sample.instances:
        width, height = image_size(sample.image_bytes)
        return [
            ExportedObject(
                class_id=each.class_id,
                mask=decode_rle(each.rle, height, width, name=sample.member("json")),
                score=each.score,
                predicted_iou=each.predicted_iou,
            )
            for each in sample.instances
        ]
    labels = decode_label_map(sample.mask_bytes, name=sample.member("mask"))
    shown = set(np.unique(labels).tolist()) - {BACKGROUND_LABEL, IGNORE_LABEL}
    return [ExportedObject(label - 1, labels == label) for label in sorted(shown)]


def describe_source(root: str) -> DatasetWords:
    """What an export says of a dataset, or of a folder of tars.

    Raises:
        DataError: Its specification cannot be read.
    """
    if open_objects(root).size(SPEC_PATH) is None:
        return DatasetWords(dataset="", card=_UNKNOWN)
    store = Store.open(root)
    return DatasetWords(
        dataset=store.specification.dataset_id, card=render_card(store, with_cost=False)
    )
