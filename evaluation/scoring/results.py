"""Results: the scores of a subject on a benchmark, as records and as files of JSON."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from evaluation.scoring.config import Background
from evaluation.scoring.metrics import Average
from storage.files import write_whole
from storage.records import Record
from storage.tables import read_table

__all__ = ["ScoreProtocol", "Scores", "Subject"]

AVERAGES = {
    Average.OCCURRING: "classes that occur in the truth or the prediction",
    Average.TRUE: "classes that occur in the truth",
    Average.ALL: "classes of the set, those that occur nowhere as 0",
}
"""What the mean is taken over, as text."""


class Subject(Record, frozen=True):
    """What was scored."""

    kind: Literal["student", "untrained", "baseline", "closed-set"]
    """A trained student, the same student before training, a detector with a segmenter, or a
    segmenter that was trained on the benchmark's classes alone."""
    name: str
    """Its name in reports."""
    fingerprint: str
    """Identity of the weights: the checkpoint's digest, or model ids with revisions."""
    details: dict[str, str] = Field(default_factory=dict)
    """What else a reader wants to know: steps, seed, dataset, thresholds of the detector."""


class ScoreProtocol(Record, frozen=True):
    """Everything that a number depends on besides the weights."""

    benchmark: str
    """Class set of the benchmark, such as ``voc21``."""
    split: str
    """Part of the benchmark."""
    num_images: int
    """Images scored."""
    truth: str
    """How the true label maps are made, as the benchmark says it."""
    class_names: tuple[str, ...]
    """What is averaged over, in the order of the labels."""
    background: bool
    """Whether background is one of the classes."""
    background_rule: Background
    """When a pixel is background."""
    threshold: float
    """The rule's threshold."""
    text: str
    """How a class name becomes text."""
    view: str
    """At which size and in which windows an image is shown."""
    average: str = AVERAGES[Average.OCCURRING]
    """Which classes the mean is taken over."""
    unseen: tuple[str, ...] = ()
    """Classes that are averaged apart because the student was not trained on them; empty without
    such a split."""
    seen_offset: float = 0.0
    """What was subtracted from the scores of all other classes."""
    preset: str = ""
    """The published protocol that was followed; empty if none was named."""
    preset_changes: tuple[str, ...] = ()
    """Settings that differ from it."""
    preset_omits: tuple[str, ...] = ()
    """What is left out of the original, or done differently."""


class ClassScore(Record, frozen=True):
    """One class."""

    name: str
    """Official name."""
    iou: float | None
    """Intersection over union in [0, 1]; none if the class occurs nowhere."""
    true_pixels: int
    """Pixels of the class in the truth."""


class GroupScore(Record, frozen=True):
    """Classes that are averaged by themselves too."""

    name: str
    """What they have in common, such as ``rare``."""
    num_classes: int
    """Classes of the group that the mean is taken over."""
    miou: float | None
    """Mean IoU in [0, 1]; none if no class of the group occurs. Of the ``harmonic mean`` that of
    the seen and the unseen classes."""


class CurvePoint(Record, frozen=True):
    """The scores at one background threshold."""

    threshold: float
    """The threshold."""
    miou: float
    """Mean IoU in [0, 1]."""
    pixel_accuracy: float
    """Share of right pixels in [0, 1]."""


class PublishedResult(Record, frozen=True):
    """A number that somebody published; not measured here, protocols may differ."""

    table: str
    """Table of the MagicSeg paper (arXiv 2603.19575), or EXT for another source."""
    method: str
    """The method."""
    value: float
    """Mean IoU, or what the metric is, in percent."""
    notes: str
    """What the source says about it."""


class PublishedSplit(Record, frozen=True):
    """Numbers on seen and unseen classes that somebody published; not measured here."""

    table: str
    """As `PublishedResult.table`."""
    method: str
    """The method."""
    values: dict[str, float]
    """Percent by the name of the group: ``seen``, ``unseen``, ``harmonic mean``."""
    notes: str
    """What the source says about it."""


class Example(Record, frozen=True):
    """Files of one image, relative to the scores file."""

    key: str
    """Name of the image."""
    image: str
    """RGB image."""
    truth: str
    """True labels in scoring order, 16-bit PNG."""
    prediction: str
    """Predicted labels in scoring order, 16-bit PNG."""


class ImageFiles(Record, frozen=True):
    """What is known of single images: files beside the scores."""

    counts: str
    """How often labels met in each image, see `image_counts`."""
    pictures: str = ""
    """The best and the worst images of each class in small, see `kept_pictures`; empty if no
    pictures were to be kept."""


class Scores(Record, frozen=True):
    """The scores of a subject on a benchmark."""

    measure: Literal["labels"] = "labels"
    """Tells these scores, on label maps, from those on single points."""
    subject: Subject
    """What was scored."""
    protocol: ScoreProtocol
    """How."""
    miou: float
    """Mean IoU in [0, 1]."""
    foreground_miou: float | None
    """Mean IoU without background; none if no other class occurs."""
    pixel_accuracy: float
    """Share of right pixels in [0, 1]."""
    classes: tuple[ClassScore, ...]
    """Each class, in the order of the labels."""
    groups: tuple[GroupScore, ...] = ()
    """Categories of the benchmark; classes by their frequency in LVIS, if every class has one; seen
    and unseen classes with their harmonic mean, if there is such a split."""
    curve: tuple[CurvePoint, ...]
    """Scores by background threshold, from the same pass; empty without background."""
    published: tuple[PublishedResult, ...]
    """Published numbers on the same benchmark; empty for a benchmark of our own."""
    published_groups: tuple[PublishedSplit, ...] = ()
    """Published numbers on the same seen and unseen classes; empty without such a split."""
    examples: tuple[Example, ...]
    """Kept label maps."""
    images: ImageFiles | None = None
    """What is known of single images; none in older files."""
    warnings: tuple[str, ...] = ()
    """What a reader of the number should know about the truth."""
    benchmark_digest: str = ""
    """Digest of the benchmark's files, see `Benchmark.contents`; empty in older files."""
    seconds: float
    """Wall time of the pass."""
    created: str
    """UTC time, ISO 8601."""
    engine_version: str
    """Version of the code."""

    @property
    def file_name(self) -> str:
        """Name of the file that holds these scores."""
        parts = (self.protocol.benchmark, self.protocol.split, self.subject.name)
        return "-".join(("scores", *map(slug, parts))) + ".json"

    def find_images(self, folder: Path) -> ImageFiles | None:
        """What is known of single images, if its files are there.

        Args:
            folder: Where the scores' file lies.
        """
        files = self.images
        if files is None or not (folder / files.counts).is_file():
            return None
        return files if not files.pictures or (folder / files.pictures).is_file() else None


def published_results(dataset: str, metric: str = "mIoU") -> tuple[PublishedResult, ...]:
    """Published numbers on a benchmark, best first; none if it has no published name."""
    rows = [
        row
        for row in read_table("published_results.csv")
        if dataset and row["dataset"] == dataset and row["metric"] == metric and row["value"]
    ]
    found = [
        PublishedResult(
            table=row["table"], method=row["method"], value=float(row["value"]), notes=row["notes"]
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda result: -result.value))


_SPLIT_METRICS = {"mIoU seen": "seen", "mIoU unseen": "unseen", "hIoU": "harmonic mean"}
"""What published tables call the means of a zero-shot split."""


def published_splits(dataset: str) -> tuple[PublishedSplit, ...]:
    """Published numbers on the seen and unseen classes of a benchmark, best harmonic mean first."""
    rows = [row for row in read_table("published_results.csv") if row["dataset"] == dataset]
    rows = [row for row in rows if row["metric"] in _SPLIT_METRICS and row["value"]]
    found: dict[tuple[str, str], PublishedSplit] = {}
    for row in rows:
        key = row["table"], row["method"]
        own = found[key].values if key in found else {}
        found[key] = PublishedSplit(
            table=row["table"],
            method=row["method"],
            values={**own, _SPLIT_METRICS[row["metric"]]: float(row["value"])},
            notes=row["notes"],
        )
    return tuple(sorted(found.values(), key=lambda each: -each.values["harmonic mean"]))


def write_scores(scores: Scores, out: Path) -> Path:
    """Write scores as JSON."""
    path = out / scores.file_name
    write_record(scores, path)
    return path


def write_record(record: Record, path: Path) -> None:
    """Write a record as JSON; the file appears whole or not at all, in a folder made if missing."""
    write_whole(path, (record.model_dump_json(indent=2) + "\n").encode())


def slug(text: str) -> str:
    """Turn any text into a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or "unnamed"
