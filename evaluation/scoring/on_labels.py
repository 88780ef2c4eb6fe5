"""Scores: how well a student or a baseline does on a benchmark, with its whole protocol.

`score_predictor` runs any `Predictor` over a benchmark in one pass and writes two things into a
folder: `scores-<benchmark>-<split>-<subject>.json`, and beside it what the report shows of single
images: label maps of a few, counts of all, and the best and the worst of each class in small.
The trained student, the untrained one and the detector-segmenter baseline go through the same code.
"""

import logging
import math
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from evaluation.benchmarks.contract import Benchmark, BenchmarkSample
from evaluation.benchmarks.split_files import spread
from evaluation.scoring.background import apply_background, confidence
from evaluation.scoring.baseline import DetectedSegments
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.scoring.examination import require_sound
from evaluation.scoring.groups import group_scores
from evaluation.scoring.image_counts import CountedImages
from evaluation.scoring.kept_pictures import PictureKeeper, write_pictures
from evaluation.scoring.metrics import (
    Average,
    Confusion,
    LabelPairs,
    Summary,
    ThresholdSweep,
    mean_iou,
)
from evaluation.scoring.phrases import background_words, class_phrases, text_rows, text_words
from evaluation.scoring.predictors import Predictor, StudentPredictor
from evaluation.scoring.presets import load_preset, preset_changes
from evaluation.scoring.progress import ScoringProgress
from evaluation.scoring.protocols import ScoredStudent, describe_protocol, view_words
from evaluation.scoring.results import (
    ClassScore,
    CurvePoint,
    Example,
    ImageFiles,
    ScoreProtocol,
    Scores,
    Subject,
    published_results,
    published_splits,
    slug,
    write_scores,
)
from models.protocols import Labeller
from models.student.text_embeddings import TextEmbedder
from storage.class_sets import BenchmarkClasses
from storage.codecs import encode_image, encode_label_map
from storage.errors import DataError
from storage.files import write_whole

__all__ = ["score_baseline", "score_predictor", "score_student"]

_log = logging.getLogger(__name__)


def score_student(
    student: ScoredStudent,
    encoder: TextEmbedder,
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
    words = background_words(config.background_words) if _has_words(classes, config) else ()
    rows = text_rows(encoder, class_phrases(classes, config.names), words, config)
    protocol = student_protocol(benchmark, config)
    seen = [k for k, name in enumerate(classes.names) if name not in set(protocol.unseen)]
    predictor = StudentPredictor(student, rows, config.inference, seen if protocol.unseen else ())
    return score_predictor(
        predictor, benchmark, subject=subject, protocol=protocol, config=config, out=out
    )


def student_protocol(benchmark: Benchmark, config: ScoringConfig) -> ScoreProtocol:
    """What the scores of a student depend on besides its weights."""
    classes = benchmark.classes
    return describe_protocol(
        benchmark,
        config,
        background_rule=config.inference.background if classes.background else Background.NONE,
        threshold=config.inference.threshold if classes.background else 0.0,
        text=text_words(config, words=_has_words(classes, config)),
        view=view_words(config.inference),
        seen_offset=config.inference.seen_offset if config.zero_shot else 0.0,
        preset=config.preset or "",
        preset_changes=preset_changes(config, classes.name),
        preset_omits=load_preset(config.preset).omits if config.preset else (),
    )


def score_baseline(
    labeller: Labeller,
    benchmark: Benchmark,
    *,
    subject: Subject,
    config: ScoringConfig,
    out: Path,
) -> Scores:
    """Score a labeller (MagicSeg, arXiv 2603.19575, table I: Grounded-SAM).

    The labeller's own thresholds decide what is found; every pixel outside a mask is background.
    Of ``config`` only the average, the curve and the number of examples count.
    """
    phrases = [own[0] for own in benchmark.classes.phrases]
    predictor = DetectedSegments(labeller, phrases)
    protocol = baseline_protocol(benchmark, config)
    return score_predictor(
        predictor, benchmark, subject=subject, protocol=protocol, config=config, out=out
    )


def baseline_protocol(benchmark: Benchmark, config: ScoringConfig) -> ScoreProtocol:
    """What the scores of a labeller depend on besides itself."""
    background = benchmark.classes.background
    return describe_protocol(
        benchmark,
        config,
        background_rule=Background.CONSTANT if background else Background.NONE,
        threshold=0.0,
        text="preferred names as the detector's phrases",
        view="as the detector and the segmenter resize the whole image",
    )


def score_predictor(
    predictor: Predictor,
    benchmark: Benchmark,
    *,
    subject: Subject,
    protocol: ScoreProtocol,
    config: ScoringConfig,
    out: Path,
) -> Scores:
    """Measure anything that predicts, see `measure`, and write the scores."""
    result = measure(
        predictor, benchmark, subject=subject, protocol=protocol, config=config, out=out
    )
    write_scores(result, out)
    return result


def measure(
    predictor: Predictor,
    benchmark: Benchmark,
    *,
    subject: Subject,
    protocol: ScoreProtocol,
    config: ScoringConfig,
    out: Path,
) -> Scores:
    """Measure anything that predicts, in one pass over a benchmark.

    Args:
        predictor: Gives the best class of each pixel.
        benchmark: Images and truth; all files are opened before the first image is shown.
        subject: What is scored.
        protocol: How; its background rule and threshold are applied.
        config: Which classes are averaged, thresholds of the curve, and number of examples.
        out: Folder for the examples; made if missing.

    Returns:
        The scores.

    Raises:
        InputError: If files of the benchmark are missing.
        DataError: If the benchmark's files are broken, or its truth shows no class or has no pixel
            to count.
    """
    examined = require_sound(benchmark)
    started = time.perf_counter()
    strict = protocol.background_rule is Background.CONSTANT
    confusion = Confusion(len(protocol.class_names))
    sweep = ThresholdSweep(len(protocol.class_names), config.thresholds, strict=strict)
    keeper = _Examples(out, f"{protocol.benchmark}-{protocol.split}-{subject.name}")
    single = _SingleImages(out, keeper.name, protocol, pictures=config.num_examples > 0)
    kept = frozenset(spread(range(len(benchmark)), config.num_examples))
    progress = ScoringProgress(f"{subject.name} on {protocol.benchmark}", len(benchmark))
    for index, sample in enumerate(benchmark):
        scores = predictor.predict(sample.image, sample.candidates)
        labels = apply_background(
            scores, protocol.background_rule, protocol.threshold, background=protocol.background
        )
        pairs = confusion.update_with_pairs(sample.labels, labels)
        single.add(sample, labels, pairs)
        if protocol.background:
            sure = confidence(scores, protocol.background_rule)
            sweep.update(sample.labels, sure, scores.index + 1)
        if index in kept:
            keeper.keep(sample, labels)
        progress.step(index + 1)
    summary = confusion.summary(config.average)
    if math.isnan(summary.pixel_accuracy):
        message = f"{benchmark.classes.name} {benchmark.split} holds no pixel to count: all ignored"
        raise DataError(message)
    return Scores(
        subject=subject,
        protocol=protocol,
        miou=summary.miou,
        foreground_miou=_foreground(summary, config.average, background=protocol.background),
        pixel_accuracy=summary.pixel_accuracy,
        classes=_class_scores(summary, protocol.class_names),
        groups=group_scores(summary, benchmark.classes, protocol.unseen, config.average),
        curve=_curve(sweep, config.average) if protocol.background else (),
        published=published_results(benchmark.published_as),
        published_groups=published_splits(benchmark.published_as) if protocol.unseen else (),
        examples=tuple(keeper.kept),
        images=single.write(confusion),
        warnings=examined.warnings,
        benchmark_digest=benchmark.contents(),
        seconds=round(time.perf_counter() - started, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        engine_version=version("magicseg-engine"),
    )


def _has_words(classes: BenchmarkClasses, config: ScoringConfig) -> bool:
    return classes.background and config.inference.background is Background.WORDS


class _Examples:
    """Keeps the label maps of a few images beside the scores."""

    def __init__(self, out: Path, name: str) -> None:
        self._out = out
        self.name = slug(name)
        self._folder = f"examples-{self.name}"
        self.kept: list[Example] = []

    def keep(self, sample: BenchmarkSample, labels: np.ndarray) -> None:
        stem = f"{self._folder}/{slug(sample.key)}"
        example = Example(
            key=sample.key,
            image=f"{stem}.png",
            truth=f"{stem}.truth.png",
            prediction=f"{stem}.prediction.png",
        )
        write_whole(self._out / example.image, encode_image(sample.image, "png"))
        write_whole(self._out / example.truth, encode_label_map(sample.labels))
        prediction = encode_label_map(labels.astype(np.uint16))
        write_whole(self._out / example.prediction, prediction)
        self.kept.append(example)


class _SingleImages:
    """Writes what is known of single images beside the scores."""

    def __init__(self, out: Path, name: str, protocol: ScoreProtocol, *, pictures: bool) -> None:
        self._out = out
        self._counts = CountedImages()
        self._keeper = None
        if pictures:
            classes = len(protocol.class_names)
            self._keeper = PictureKeeper(classes, background=protocol.background)
        self._names = (f"counts-{name}.parquet", f"pictures-{name}.parquet")

    def add(self, sample: BenchmarkSample, labels: np.ndarray, pairs: LabelPairs) -> None:
        self._counts.add(sample.key, pairs)
        if self._keeper is not None:
            self._keeper.offer(sample.key, sample.image, (sample.labels, labels), pairs)

    def write(self, confusion: Confusion) -> ImageFiles:
        counts, pictures = self._names
        self._counts.write(self._out / counts)
        if self._keeper is None:
            return ImageFiles(counts=counts)
        write_pictures(self._keeper.kept(confusion.matrix), self._out / pictures)
        return ImageFiles(counts=counts, pictures=pictures)


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


def _foreground(summary: Summary, average: Average, *, background: bool) -> float | None:
    first = 1 if background else 0
    return _or_none(mean_iou(summary.ious[first:], summary.true_pixels[first:], average))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
