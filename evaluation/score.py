"""Scores: what a student or a baseline reaches on a benchmark, with the whole protocol beside it.

`score` runs any `Predictor` over a benchmark in one pass and writes two things into a folder:
`scores-<benchmark>-<split>-<subject>.json`, and label maps of a few images for the report. The
trained student, the untrained one and the detector-segmenter baseline go through the same code.
"""

import logging
import math
import os
import re
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field

from evaluation.benchmarks import Benchmark, BenchmarkSample, scored_names
from evaluation.config import ScoringConfig
from evaluation.inference import (
    Background,
    DetectedSegments,
    InferenceConfig,
    Overlap,
    Predictor,
    StudentPredictor,
    TextSegmenter,
    apply_background,
    sureness,
)
from evaluation.metrics import Average, Confusion, Summary, ThresholdSweep, mean_iou
from evaluation.phrases import background_words, class_phrases, text_rows, text_words
from evaluation.presets import load_preset, preset_changes
from models.protocols import Detector, Segmenter
from models.text_embeddings import TextEncoder
from storage.codecs import encode_image, encode_label_map
from storage.errors import DataError
from storage.records import Record
from storage.tables import read_table
from storage.vocabulary import BenchmarkClasses, load_vocabulary

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0
_AVERAGES = {
    Average.OCCURRING: "classes that occur in the truth or the prediction",
    Average.TRUE: "classes that occur in the truth",
    Average.ALL: "classes of the set, those that occur nowhere as 0",
}
_FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}


class Subject(Record, frozen=True):
    """What was scored."""

    kind: Literal["student", "untrained", "baseline", "closed-set"]
    """A trained student, the same student before training, a detector with a segmenter, or a
    segmenter that was trained on the benchmark's classes alone."""
    name: str
    """What people call it."""
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
    """How the true label maps come about, as the benchmark says it."""
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
    average: str = _AVERAGES[Average.OCCURRING]
    """Which classes the mean is taken over."""
    preset: str = ""
    """The published protocol that was followed; empty if none was named."""
    preset_changes: tuple[str, ...] = ()
    """Settings that differ from it."""
    preset_omits: tuple[str, ...] = ()
    """What of the original is not done, or done otherwise."""


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
    """Mean IoU in [0, 1]; none if no class of the group occurs."""


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


class Scores(Record, frozen=True):
    """What a subject reaches on a benchmark."""

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
    """Classes by their frequency in LVIS; only of class sets in which every class has one."""
    curve: tuple[CurvePoint, ...]
    """Scores by background threshold, from the same pass; empty without background."""
    published: tuple[PublishedResult, ...]
    """Published numbers on the same benchmark; empty for a benchmark of our own."""
    examples: tuple[Example, ...]
    """Kept label maps."""
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


class Student(TextSegmenter, Protocol):
    """A student that can be put into evaluation mode."""

    def eval(self) -> object:
        """Switch dropout off."""
        ...


def score_student(
    student: Student,
    encoder: TextEncoder,
    benchmark: Benchmark,
    *,
    subject: Subject,
    config: ScoringConfig,
    out: Path,
) -> Scores:
    """Score a student; the text encoder must be on the student's device.

    Args:
        student: The network, trained or not.
        encoder: Text tower of the CLIP under the student.
        benchmark: Images and truth.
        subject: What the student is.
        config: How it is scored.
        out: Folder for the results.

    Returns:
        The scores, which are written too.
    """
    student.eval()
    classes = benchmark.classes
    has_words = classes.background and config.inference.background is Background.WORDS
    words = background_words(config.background_words) if has_words else ()
    rows = text_rows(encoder, class_phrases(classes, config.names), words, config)
    protocol = describe_protocol(
        benchmark,
        config,
        background_rule=config.inference.background if classes.background else Background.NONE,
        threshold=config.inference.threshold if classes.background else 0.0,
        text=text_words(config, words=has_words),
        view=view_words(config.inference),
        preset=config.preset or "",
        preset_changes=preset_changes(config, classes.name),
        preset_omits=load_preset(config.preset).omits if config.preset else (),
    )
    predictor = StudentPredictor(student, rows, config.inference)
    return score(predictor, benchmark, subject=subject, protocol=protocol, config=config, out=out)


def score_baseline(
    detector: Detector,
    segmenter: Segmenter,
    benchmark: Benchmark,
    *,
    subject: Subject,
    config: ScoringConfig,
    out: Path,
) -> Scores:
    """Score a detector with a segmenter (MagicSeg, arXiv 2603.19575, table I: Grounded-SAM).

    The detector's own thresholds decide what is found; every pixel outside a mask is background.
    Of ``config`` only the average, the curve and the number of examples count.
    """
    phrases = [own[0] for own in benchmark.classes.phrases]
    background = benchmark.classes.background
    protocol = describe_protocol(
        benchmark,
        config,
        background_rule=Background.CONSTANT if background else Background.NONE,
        threshold=0.0,
        text="preferred names as the detector's phrases",
        view="as the detector and the segmenter resize the whole image",
    )
    predictor = DetectedSegments(detector, segmenter, phrases)
    return score(predictor, benchmark, subject=subject, protocol=protocol, config=config, out=out)


def score(
    predictor: Predictor,
    benchmark: Benchmark,
    *,
    subject: Subject,
    protocol: ScoreProtocol,
    config: ScoringConfig,
    out: Path,
) -> Scores:
    """Score anything that predicts, in one pass over a benchmark.

    Args:
        predictor: Gives the best class of each pixel.
        benchmark: Images and truth; files are checked before the first image is shown.
        subject: What is scored.
        protocol: How; its background rule and threshold are applied.
        config: Which classes are averaged, thresholds of the curve, and number of examples.
        out: Folder for the scores file and the examples; made if missing.

    Returns:
        The scores, which are written too.

    Raises:
        InputError: If files of the benchmark are missing.
        DataError: If the benchmark's files are broken or hold no pixel to count.
    """
    benchmark.check()
    started = time.perf_counter()
    strict = protocol.background_rule is Background.CONSTANT
    confusion = Confusion(len(protocol.class_names))
    sweep = ThresholdSweep(len(protocol.class_names), config.thresholds, strict=strict)
    keeper = _Examples(out, f"{protocol.benchmark}-{protocol.split}-{subject.name}")
    kept = _spread(len(benchmark), config.num_examples)
    progress = Progress(f"{subject.name} on {protocol.benchmark}", len(benchmark))
    for index, sample in enumerate(benchmark):
        scores = predictor.predict(sample.image, sample.candidates)
        labels = apply_background(
            scores, protocol.background_rule, protocol.threshold, background=protocol.background
        )
        confusion.update(sample.labels, labels)
        if protocol.background:
            sure = sureness(scores, protocol.background_rule)
            sweep.update(sample.labels, sure, scores.index + 1)
        if index in kept:
            keeper.keep(sample, labels)
        progress.step(index + 1)
    summary = confusion.summary(config.average)
    if math.isnan(summary.pixel_accuracy):
        message = f"{benchmark.classes.name} {benchmark.split} holds no pixel to count: all ignored"
        raise DataError(message)
    result = Scores(
        subject=subject,
        protocol=protocol,
        miou=summary.miou,
        foreground_miou=_foreground(summary, config.average, background=protocol.background),
        pixel_accuracy=summary.pixel_accuracy,
        classes=_class_scores(summary, protocol.class_names),
        groups=_group_scores(summary, benchmark.classes, config.average),
        curve=_curve(sweep, config.average) if protocol.background else (),
        published=published_results(benchmark.published_as),
        examples=tuple(keeper.kept),
        seconds=round(time.perf_counter() - started, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        engine_version=version("magicseg-engine"),
    )
    write_scores(result, out)
    return result


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


def write_scores(scores: Scores, out: Path) -> Path:
    """Write scores as JSON."""
    path = out / scores.file_name
    write_record(scores, path)
    return path


def write_record(record: Record, path: Path) -> None:
    """Write a record as JSON; the file appears whole or not at all, in a folder made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


class _Examples:
    """Keeps the label maps of a few images beside the scores."""

    def __init__(self, out: Path, name: str) -> None:
        self._out = out
        self._folder = f"examples-{slug(name)}"
        self.kept: list[Example] = []

    def keep(self, sample: BenchmarkSample, labels: np.ndarray) -> None:
        (self._out / self._folder).mkdir(parents=True, exist_ok=True)
        stem = f"{self._folder}/{slug(sample.key)}"
        example = Example(
            key=sample.key,
            image=f"{stem}.png",
            truth=f"{stem}.truth.png",
            prediction=f"{stem}.prediction.png",
        )
        (self._out / example.image).write_bytes(encode_image(sample.image, "png"))
        (self._out / example.truth).write_bytes(encode_label_map(sample.labels))
        prediction = encode_label_map(labels.astype(np.uint16))
        (self._out / example.prediction).write_bytes(prediction)
        self.kept.append(example)


class Progress:
    """One log line every few seconds, with the time left.

    Args:
        what: What is going on.
        total: Steps until it is over.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._started = self._last = time.monotonic()

    def step(self, done: int) -> None:
        """Say that so many steps are done."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and done < self._total:
            return
        self._last = now
        left = (now - self._started) / done * (self._total - done)
        _log.info("%s: %d of %d images, %.0f s left", self._what, done, self._total, left)


def describe_protocol(benchmark: Benchmark, config: ScoringConfig, **how: Any) -> ScoreProtocol:
    """Say what a number depends on: what benchmark and config say, and the fields given."""
    classes = benchmark.classes
    return ScoreProtocol(
        benchmark=classes.name,
        split=benchmark.split,
        num_images=len(benchmark),
        class_names=scored_names(classes),
        background=classes.background,
        average=_AVERAGES[config.average],
        truth=benchmark.truth,
        **how,
    )


def view_words(config: InferenceConfig) -> str:
    """Say at which size and in which windows an image is shown."""
    parts = [f"short side {config.short_side}, long side at most {config.long_side}"]
    if config.window is None:
        parts.append("whole image")
    else:
        averaged = "averaged" if config.overlap is Overlap.SCORES else "logits averaged"
        parts.append(f"windows of {config.window} at a stride of {config.stride}, {averaged}")
    if config.background in {Background.SOFTMAX, Background.WORDS, Background.GROUPVIT}:
        parts.append(f"logits times {config.softmax_scale:g} before the softmax")
    return ", ".join(parts)


def _curve(sweep: ThresholdSweep, average: Average) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(
            threshold=round(float(threshold), 6),
            miou=summary.miou,
            pixel_accuracy=summary.pixel_accuracy,
        )
        for threshold, summary in zip(sweep.thresholds, sweep.summaries(average), strict=True)
    )


def _class_scores(summary: Summary, names: tuple[str, ...]) -> tuple[ClassScore, ...]:
    return tuple(
        ClassScore(name=name, iou=None if math.isnan(iou) else iou, true_pixels=pixels)
        for name, iou, pixels in zip(
            names, summary.ious.tolist(), summary.true_pixels.tolist(), strict=True
        )
    )


def _group_scores(
    summary: Summary, classes: BenchmarkClasses, average: Average
) -> tuple[GroupScore, ...]:
    vocabulary = load_vocabulary(classes.vocabulary)
    frequencies = [
        vocabulary[class_id].frequency if class_id is not None else ""
        for class_id in classes.class_ids
    ]
    if not all(frequencies):
        return ()
    first = 1 if classes.background else 0
    groups = []
    for frequency, name in _FREQUENCIES.items():
        own = [first + place for place, each in enumerate(frequencies) if each == frequency]
        ious, pixels = summary.ious[own], summary.true_pixels[own]
        asked = {Average.ALL: len(own), Average.TRUE: int((pixels > 0).sum())}
        count = asked.get(average, int((~np.isnan(ious)).sum()))
        groups.append(
            GroupScore(name=name, num_classes=count, miou=_or_none(mean_iou(ious, pixels, average)))
        )
    return tuple(groups)


def _foreground(summary: Summary, average: Average, *, background: bool) -> float | None:
    first = 1 if background else 0
    return _or_none(mean_iou(summary.ious[first:], summary.true_pixels[first:], average))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _spread(total: int, count: int) -> frozenset[int]:
    return frozenset(index * total // count for index in range(count)) if count else frozenset()


def slug(text: str) -> str:
    """Turn any text into a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.") or "unnamed"
