"""Point scores: how well a student or a baseline does on single points, with its protocol.

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
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32

from evaluation.benchmarks.open_images import OpenImages, PointSample
from evaluation.scoring.baseline import DetectedSegments
from evaluation.scoring.config import Background, InferenceConfig, ScoringConfig
from evaluation.scoring.examination import require_sound
from evaluation.scoring.phrases import class_phrases, text_rows, text_words
from evaluation.scoring.point_results import (
    AnswerCounts,
    PointAverage,
    PointClass,
    PointCurvePoint,
    PointProtocol,
    PointScores,
)
from evaluation.scoring.points import (
    Binarise,
    Candidates,
    PointCounts,
    PointMean,
    PointRules,
    point_ious,
    rescale,
)
from evaluation.scoring.predictors import ClassScorer, StudentPredictor
from evaluation.scoring.presets import load_preset, preset_changes
from evaluation.scoring.progress import ScoringProgress
from evaluation.scoring.protocols import ScoredStudent, unseen_names, view_words
from evaluation.scoring.results import (
    Subject,
    published_results,
    write_record,
)
from models.protocols import Labeller
from models.student.text_embeddings import TextEmbedder
from storage.errors import DataError


def score_student_points(
    student: ScoredStudent,
    encoder: TextEmbedder,
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
    scorer = StudentPredictor(student, rows, config.inference)
    protocol = student_point_protocol(benchmark, config)
    return score_points(
        scorer, benchmark, subject=subject, protocol=protocol, config=config, out=out
    )


def student_point_protocol(benchmark: OpenImages, config: ScoringConfig) -> PointProtocol:
    """What the scores of a student depend on besides its weights.

    Raises:
        InputError: If the config names a zero-shot split, which points have none of.
    """
    unseen_names(benchmark.classes, config)
    return _protocol(
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


def score_baseline_points(
    labeller: Labeller,
    benchmark: OpenImages,
    *,
    subject: Subject,
    config: ScoringConfig,
    out: Path,
) -> PointScores:
    """Score a labeller (MagicSeg, arXiv 2603.19575, table III: Grounded-SAM).

    A class is predicted at a point that one of its masks covers: the labeller's own thresholds
    decide, whatever the configured ones are.
    """
    scorer = DetectedSegments(labeller, benchmark.classes.names)
    protocol = baseline_point_protocol(benchmark, config)
    return score_points(
        scorer, benchmark, subject=subject, protocol=protocol, config=config, out=out
    )


def baseline_point_protocol(benchmark: OpenImages, config: ScoringConfig) -> PointProtocol:
    """What the scores of a labeller depend on besides itself."""
    return _protocol(
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
        benchmark: Images and points; all files are opened before the first image is shown.
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
    require_sound(benchmark)
    started = time.perf_counter()
    thresholds = (protocol.threshold, *config.thresholds)
    point_counts = PointCounts(protocol.num_classes, thresholds, strict=protocol.strict)
    answered: Counter[str] = Counter()
    progress = ScoringProgress(f"{subject.name} on {protocol.benchmark}", len(benchmark))
    for index, sample in enumerate(benchmark):
        for class_id, values, is_yes in _read(scorer, sample, protocol):
            point_counts.update(class_id, values, is_yes)
        answered.update(_answered(sample))
        progress.step(index + 1)
    headlines = [_headline(point_counts.means(index), protocol) for index in range(len(thresholds))]
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
        averages=tuple(_average(mean) for mean in point_counts.means(0)),
        classes=_classes(point_counts, benchmark),
        answers=AnswerCounts.model_validate(answered),
        curve=tuple(
            PointCurvePoint(threshold=threshold, p_miou=value)
            for threshold, value in zip(config.thresholds, headlines[1:], strict=True)
        ),
        published=published_results(benchmark.published_as, metric="p-mIoU"),
        benchmark_digest=benchmark.contents(),
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
    return rescale(found, float(low), float(high))


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


def _classes(found: PointCounts, benchmark: OpenImages) -> tuple[PointClass, ...]:
    counts = found.counts[0]
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
        coverage=benchmark.coverage,
        num_classes=len(benchmark.classes.names),
        **rules.model_dump(),
        **how,
    )


def _score_words(config: InferenceConfig) -> str:
    if config.background in {Background.RAW, Background.CONSTANT, Background.NONE}:
        return "sigmoid of the logit"
    return f"probability among the candidates, as the rule {config.background.value} has it"
