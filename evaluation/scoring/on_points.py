"""Point scores: what a student or a baseline reaches on single points, with the protocol beside it.

`score_points` asks any `ClassScorer` for the maps of the classes of each image, reads them at the
points, and writes `scores-open_images-<split>-<subject>.json`. One pass serves every way to average
and every threshold.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32

from evaluation.benchmarks.open_images import OpenImages, PointSample
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.on_labels import Progress, Student, view_words
from evaluation.scoring.phrases import class_phrases, text_rows, text_words
from evaluation.scoring.points import (
    Aggregate,
    Binarise,
    Candidates,
    PointMean,
    PointRules,
    PointTally,
    point_ious,
    stretch,
)
from evaluation.scoring.predictors import (
    Background,
    ClassScorer,
    DetectedSegments,
    InferenceConfig,
    StudentPredictor,
)
from evaluation.scoring.presets import load_preset, preset_changes
from evaluation.scoring.results import (
    PublishedResult,
    Subject,
    published_results,
    slug,
    write_record,
)
from models.protocols import Detector, Segmenter
from models.student.text_embeddings import TextEncoder
from storage.errors import DataError
from storage.records import Record


class PointProtocol(Record, frozen=True):
    """Everything that a number depends on besides the weights."""

    benchmark: str
    """Class set of the benchmark."""
    split: str
    """Part of the benchmark."""
    num_images: int
    """Images with a yes or a no; those without a candidate are not shown."""
    num_classes: int
    """Classes with a yes or a no in the split."""
    candidates: Candidates
    """Which classes are asked for in an image."""
    binarise: Binarise
    """What is compared with the threshold."""
    threshold: float
    """The threshold."""
    strict: bool
    """Whether a value equal to the threshold is not predicted."""
    aggregate: Aggregate
    """What the headline's mean is taken over."""
    with_background: bool
    """Whether the headline averages foreground and background IoU."""
    scores: str
    """What a class's map holds."""
    text: str
    """How a class name becomes text."""
    view: str
    """At which size and in which windows an image is shown."""
    preset: str
    """The published protocol that was followed; empty if none was named."""
    preset_changes: tuple[str, ...]
    """Settings that differ from it."""
    preset_omits: tuple[str, ...]
    """What of the original is not done, or done otherwise."""


class PointAverage(Record, frozen=True):
    """One way to average."""

    aggregate: Aggregate
    """What the mean is taken over."""
    with_background: bool
    """Whether each IoU is the mean of foreground and background."""
    p_miou: float | None
    """The mean in [0, 1]; none if nothing has an IoU."""
    count: int
    """Classes or pairs that have an IoU."""


class PointCurvePoint(Record, frozen=True):
    """The headline at another threshold."""

    threshold: float
    """The threshold."""
    p_miou: float | None
    """The mean in [0, 1]; none if nothing has an IoU."""


class PointClass(Record, frozen=True):
    """One class, summed over the images in which it was a candidate."""

    label: str
    """What Open Images knows it by."""
    name: str
    """Its display name."""
    iou: float | None
    """Foreground IoU in [0, 1]; none if no point counts."""
    hits: int
    """Yes-points predicted."""
    alarms: int
    """No-points predicted."""
    misses: int
    """Yes-points not predicted."""
    rejections: int
    """No-points not predicted."""


class Answered(Record, frozen=True):
    """The answers in the images."""

    yes: int
    """Points on their class."""
    no: int
    """Points not on their class."""
    unsure: int
    """Left out: people were unsure."""
    unnamed: int
    """Left out: the question was no class but free text."""


class PointScores(Record, frozen=True):
    """What a subject reaches on single points."""

    measure: Literal["points"] = "points"
    """Tells these scores from those on label maps."""
    subject: Subject
    """What was scored."""
    protocol: PointProtocol
    """How."""
    p_miou: float
    """The headline, in [0, 1]."""
    averages: tuple[PointAverage, ...]
    """Every way to average, at the same threshold."""
    classes: tuple[PointClass, ...]
    """The classes that were candidates somewhere, by label."""
    answers: Answered
    """What the points are; of the candidates' points alone the counts of the classes tell."""
    curve: tuple[PointCurvePoint, ...]
    """The headline at other thresholds, from the same pass."""
    published: tuple[PublishedResult, ...]
    """Published numbers on the same split."""
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


def score_student_points(
    student: Student,
    encoder: TextEncoder,
    benchmark: OpenImages,
    *,
    subject: Subject,
    config: ScoringConfig,
    out: Path,
) -> PointScores:
    """Score a student; the text encoder must be on the student's device.

    Args:
        student: The network, trained or not.
        encoder: Text tower of the CLIP under the student.
        benchmark: Images and points.
        subject: What the student is.
        config: How it is scored; of the inference settings the view and the kind of scores count,
            a background there is not.
        out: Folder for the results.

    Returns:
        The scores, which are written too.
    """
    student.eval()
    rows = text_rows(encoder, class_phrases(benchmark.classes, config.names), (), config)
    protocol = _protocol(
        benchmark,
        config.points,
        strict=False,
        scores=_score_words(config.inference),
        text=text_words(config, words=False),
        view=view_words(config.inference),
        preset=config.preset or "",
        preset_changes=preset_changes(config, benchmark.classes.name),
        preset_omits=load_preset(config.preset).omits if config.preset else (),
    )
    scorer = StudentPredictor(student, rows, config.inference)
    return score_points(
        scorer, benchmark, subject=subject, protocol=protocol, config=config, out=out
    )


def score_baseline_points(
    detector: Detector,
    segmenter: Segmenter,
    benchmark: OpenImages,
    *,
    subject: Subject,
    config: ScoringConfig,
    out: Path,
) -> PointScores:
    """Score a detector with a segmenter (MagicSeg, arXiv 2603.19575, table III: Grounded-SAM).

    A class is predicted at a point that one of its masks covers: the detector's own thresholds
    decide, whatever the configured ones are.
    """
    protocol = _protocol(
        benchmark,
        config.points.model_copy(update={"binarise": Binarise.SCORE, "threshold": 0.0}),
        strict=True,
        scores="the detector's score of the best box whose mask covers the point, 0 outside",
        text="names as the detector's phrases",
        view="as the detector and the segmenter resize the whole image",
        preset="",
        preset_changes=(),
        preset_omits=(),
    )
    scorer = DetectedSegments(detector, segmenter, benchmark.classes.names)
    return score_points(
        scorer, benchmark, subject=subject, protocol=protocol, config=config, out=out
    )


def score_points(
    scorer: ClassScorer,
    benchmark: OpenImages,
    *,
    subject: Subject,
    protocol: PointProtocol,
    config: ScoringConfig,
    out: Path,
) -> PointScores:
    """Score anything that scores classes, in one pass over the points of a split.

    Args:
        scorer: Gives the map of each class.
        benchmark: Images and points; files are checked before the first image is shown.
        subject: What is scored.
        protocol: How.
        config: Thresholds of the curve.
        out: Folder for the scores file; made if missing.

    Returns:
        The scores, which are written too.

    Raises:
        InputError: If images are missing.
        DataError: If files are broken, or no point counts.
    """
    benchmark.check()
    started = time.perf_counter()
    thresholds = (protocol.threshold, *config.thresholds)
    tally = PointTally(protocol.num_classes, thresholds, strict=protocol.strict)
    answered: Counter[str] = Counter()
    progress = Progress(f"{subject.name} on {protocol.benchmark}", len(benchmark))
    for index, sample in enumerate(benchmark):
        for class_id, values, is_yes in _read(scorer, sample, protocol):
            tally.update(class_id, values, is_yes)
        answered.update(_answered(sample))
        progress.step(index + 1)
    headlines = [_headline(tally.means(index), protocol) for index in range(len(thresholds))]
    if headlines[0] is None:
        message = (
            f"{benchmark.classes.name} {benchmark.split} holds no point that counts with the "
            f"candidates {protocol.candidates.value}: choose others, or more images"
        )
        raise DataError(message)
    result = PointScores(
        subject=subject,
        protocol=protocol,
        p_miou=headlines[0],
        averages=tuple(_average(mean) for mean in tally.means(0)),
        classes=_classes(tally, benchmark),
        answers=Answered.model_validate(answered),
        curve=tuple(
            PointCurvePoint(threshold=threshold, p_miou=value)
            for threshold, value in zip(config.thresholds, headlines[1:], strict=True)
        ),
        published=published_results(benchmark.published_as, metric="p-mIoU"),
        seconds=round(time.perf_counter() - started, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        engine_version=version("magicseg-engine"),
    )
    write_record(result, out / result.file_name)
    return result


def _read(
    scorer: ClassScorer, sample: PointSample, protocol: PointProtocol
) -> Iterator[tuple[int, Float32[np.ndarray, " points"], Bool[np.ndarray, " points"]]]:
    """The values at the points of each candidate that has points."""
    asked = sample.class_ids
    if protocol.candidates is Candidates.PRESENT:
        asked = asked[sample.is_yes]
    wanted = set(asked.tolist())
    if not wanted:
        return
    everything = protocol.candidates is Candidates.VOCABULARY
    candidates = None if everything else sorted(wanted)
    for chunk in scorer.class_scores(sample.image, candidates):
        for class_id, scores in zip(chunk.class_ids, chunk.scores, strict=True):
            if class_id in wanted:
                own = sample.class_ids == class_id
                values = _values(scores, sample.rows[own], sample.columns[own], protocol.binarise)
                yield class_id, values, sample.is_yes[own]


def _values(
    scores: Float[torch.Tensor, "height width"],
    rows: np.ndarray,
    columns: np.ndarray,
    binarise: Binarise,
) -> Float32[np.ndarray, " points"]:
    found = scores[torch.from_numpy(rows), torch.from_numpy(columns)].float().cpu().numpy()
    if binarise is Binarise.SCORE:
        return found
    low, high = torch.aminmax(scores)
    return stretch(found, float(low), float(high))


def _answered(sample: PointSample) -> dict[str, int]:
    num_yes = int(sample.is_yes.sum())
    return {
        "yes": num_yes,
        "no": len(sample.is_yes) - num_yes,
        "unsure": sample.num_unsure,
        "unnamed": sample.num_unnamed,
    }


def _headline(means: list[PointMean], protocol: PointProtocol) -> float | None:
    wanted = (protocol.aggregate, protocol.with_background)
    [value] = [mean.value for mean in means if (mean.aggregate, mean.with_background) == wanted]
    return None if math.isnan(value) else value


def _average(mean: PointMean) -> PointAverage:
    return PointAverage(
        aggregate=mean.aggregate,
        with_background=mean.with_background,
        p_miou=None if math.isnan(mean.value) else mean.value,
        count=mean.count,
    )


def _classes(tally: PointTally, benchmark: OpenImages) -> tuple[PointClass, ...]:
    counts = tally.counts[0]
    ious = point_ious(counts)[:, 0].tolist()
    rows = zip(benchmark.labels, benchmark.classes.names, ious, counts.tolist(), strict=True)
    return tuple(
        PointClass(
            label=label,
            name=name,
            iou=None if math.isnan(iou) else iou,
            hits=hits,
            alarms=alarms,
            misses=misses,
            rejections=rejections,
        )
        for label, name, iou, (hits, alarms, misses, rejections) in rows
        if hits + alarms + misses + rejections
    )


def _protocol(benchmark: OpenImages, rules: PointRules, **how: Any) -> PointProtocol:
    return PointProtocol(
        benchmark=benchmark.classes.name,
        split=benchmark.split,
        num_images=len(benchmark),
        num_classes=len(benchmark.classes.names),
        **rules.model_dump(),
        **how,
    )


def _score_words(config: InferenceConfig) -> str:
    if config.background in {Background.RAW, Background.CONSTANT, Background.NONE}:
        return "sigmoid of the logit"
    return f"probability among the candidates, as the rule {config.background.value} has it"
