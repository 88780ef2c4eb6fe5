"""Point boards: point scores that stand beside each other on a page, split by split."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from evaluation.reports.boards import KINDS, ClassIou, mean_and_deviation, ranked, series_name
from evaluation.reports.charts import Axes, Line, line_chart
from evaluation.scoring.point_results import PointProtocol, PointScores
from evaluation.scoring.points import Aggregate, Binarise, Candidates, way_words
from evaluation.scoring.results import PublishedResult

_WAYS = tuple((aggregate, both) for aggregate in Aggregate for both in (False, True))


@dataclass(frozen=True)
class _PointRow:
    name: str
    kind: str
    p_miou: str
    averages: list[str]
    protocol: str
    details: str


@dataclass(frozen=True)
class PointBoard:
    """All scores on the points of one split, in words.

    Attributes:
        title: Benchmark and split.
        note: What all rows have in common.
        ways: What each average is taken over, in the order of the rows' averages.
        rows: Trained students, untrained ones, baselines; several of a kind with their mean.
        published: Numbers of others.
        series: A name for each kind that is there.
        classes: Foreground IoUs in the order of the series.
        classes_note: Which classes are shown.
        curve: p-mIoU by threshold, as SVG.
    """

    title: str
    note: str
    ways: list[str]
    rows: list[_PointRow]
    published: tuple[PublishedResult, ...]
    series: list[str]
    classes: list[ClassIou]
    classes_note: str
    curve: Markup


def make_point_boards(scores: Sequence[PointScores]) -> list[PointBoard]:
    """Put the scores on the same images together that ask for the same classes.

    Those whose curves have other thresholds make a board of their own.
    """
    groups: defaultdict[Hashable, list[PointScores]] = defaultdict(list)
    for each in scores:
        own = each.protocol
        thresholds = tuple(point.threshold for point in each.curve)
        key = (own.benchmark, own.split, own.num_images, own.candidates, thresholds)
        groups[key].append(each)
    return [_board(group) for group in groups.values()]


def _board(group: Sequence[PointScores]) -> PointBoard:
    protocol, answers = group[0].protocol, group[0].answers
    by_kind = [[s for s in group if s.subject.kind == kind] for kind in KINDS]
    shown = [scores for scores in by_kind if scores]
    series = [series_name([each.subject for each in scores]) for scores in shown]
    classes, note = _class_ious(shown)
    return PointBoard(
        title=f"{protocol.benchmark}, {protocol.split}, points",
        note=(
            f"{protocol.num_images:,} images, {answers.yes:,} yes and {answers.no:,} no about "
            f"{protocol.num_classes:,} classes; {answers.unsure:,} unsure and {answers.unnamed:,} "
            f"about no class are left out. Asked for in an image: {_candidates(protocol)}. A class "
            f"is predicted at a point by its own map alone. Numbers in percent."
        ),
        ways=[way_words(aggregate, both=both) for aggregate, both in _WAYS],
        rows=[row for scores in shown for row in _rows(scores)],
        published=group[0].published,
        series=series,
        classes=classes,
        classes_note=f"Foreground IoU, points summed over the images. {note}",
        curve=_curve(shown, series),
    )


def _candidates(protocol: PointProtocol) -> str:
    return {
        Candidates.PRESENT: "classes with a yes in it",
        Candidates.ASKED: "classes with a yes or a no in it",
        Candidates.VOCABULARY: "all classes, counted where they have a yes or a no",
    }[protocol.candidates]


def _rows(scores: Sequence[PointScores]) -> Iterator[_PointRow]:
    for each in scores:
        yield _PointRow(
            name=each.subject.name,
            kind=each.subject.kind,
            p_miou=f"{100 * each.p_miou:.1f}",
            averages=[_percent(_average(each, *way)) for way in _WAYS],
            protocol=_protocol_words(each),
            details=", ".join(f"{name} {value}" for name, value in each.subject.details.items()),
        )
    if len(scores) > 1:
        values = [[v for s in scores if (v := _average(s, *way)) is not None] for way in _WAYS]
        yield _PointRow(
            name=f"mean and deviation of {len(scores)}",
            kind=scores[0].subject.kind,
            p_miou=mean_and_deviation([s.p_miou for s in scores]),
            averages=[mean_and_deviation(own) if len(own) > 1 else "-" for own in values],
            protocol="sample standard deviation",
            details="",
        )


def _average(scores: PointScores, aggregate: Aggregate, both: bool) -> float | None:
    [found] = [
        each.p_miou
        for each in scores.averages
        if (each.aggregate, each.with_background) == (aggregate, both)
    ]
    return found


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _protocol_words(scores: PointScores) -> str:
    protocol = scores.protocol
    value = {
        Binarise.SCORE: "the score",
        Binarise.MIN_MAX: "the score, stretched to [0, 1] over the image,",
    }[protocol.binarise]
    rule = f"predicted where {value} is {'>' if protocol.strict else '>='} {protocol.threshold:g}"
    mean = f"mean over {way_words(protocol.aggregate, both=protocol.with_background)} IoU"
    weights = scores.subject.fingerprint
    weights = weights if len(weights) < 60 else f"{weights[:12]}..."
    parts = [mean, rule, f"score: {protocol.scores}", protocol.text, protocol.view]
    if protocol.preset:
        changes = ", ".join(protocol.preset_changes) or "nothing"
        parts.append(f"preset {protocol.preset}, changed: {changes}")
        parts.append(f"without: {', '.join(protocol.preset_omits) or 'nothing'}")
    return "; ".join([*parts, f"weights {weights}", f"{scores.seconds:.1f} s"])


def _class_ious(groups: Sequence[Sequence[PointScores]]) -> tuple[list[ClassIou], str]:
    """Foreground IoU of each class that was asked for, the mean over a kind's scores."""
    found = [[{c.label: c for c in s.classes} for s in scores] for scores in groups]
    labels = sorted({label for own in found for each in own for label in each})
    rows = []
    for label in labels:
        known = [[each[label] for each in own if label in each] for own in found]
        name = next(own[0].name for own in known if own)
        ious = [[c.iou for c in own if c.iou is not None] for own in known]
        rows.append(ClassIou(name, [fmean(own) if own else None for own in ious]))
    return ranked(rows)


def _curve(groups: Sequence[Sequence[PointScores]], series: Sequence[str]) -> Markup:
    lines = []
    for style, (name, scores) in enumerate(zip(series, groups, strict=True)):
        points = [
            (
                each[0].threshold,
                100 * fmean(math.nan if p.p_miou is None else p.p_miou for p in each),
            )
            for each in zip(*(s.curve for s in scores), strict=True)
        ]
        lines.append(Line(name, tuple(points), style=style))
    threshold = groups[0][0].protocol.threshold
    return line_chart(
        lines, Axes(x="threshold", y="p-mIoU", marks=((threshold, f"in use: {threshold:g}"),))
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
