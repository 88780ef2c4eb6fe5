"""Point boards: point scores that stand beside each other on a page, split by split."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from evaluation.reports.boards import ClassIou, ranked, used, weights_words
from evaluation.reports.charts import Axes, Line, line_chart
from evaluation.reports.protocol_words import point_protocol_words
from evaluation.reports.series import Series, make_series, mean_and_deviation
from evaluation.scoring.point_results import PointCurvePoint, PointProtocol, PointScores
from evaluation.scoring.points import Aggregate, Candidates, way_words
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
    """All scores on the points of one split, as text.

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
        images = (own.benchmark, own.split, own.num_images)
        key = (*images, own.num_classes, own.candidates, thresholds)
        groups[key].append(each)
    return [_board(group) for group in groups.values()]


def _board(group: Sequence[PointScores]) -> PointBoard:
    protocol, answers = group[0].protocol, group[0].answers
    shown = make_series(group)
    classes, note = ranked(_class_ious(shown))
    return PointBoard(
        title=f"{protocol.benchmark}, {protocol.split}, points",
        note=(
            f"{protocol.num_images:,} images, {answers.yes:,} yes and {answers.no:,} no about "
            f"{protocol.num_classes:,} classes; {answers.unsure:,} unsure and {answers.unnamed:,} "
            f"about no class are left out. Asked for in an image: {_candidates(protocol)}. A class "
            f"is predicted at a point by its own map alone. Numbers in percent."
        ),
        ways=[way_words(aggregate, both=both) for aggregate, both in _WAYS],
        rows=[row for each in shown for row in _rows(each.scores)],
        published=group[0].published,
        series=[each.name for each in shown],
        classes=classes,
        classes_note=f"Foreground IoU, points summed over the images. {note}",
        curve=_curve(shown),
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
            protocol=_row_protocol(each),
            details=", ".join(f"{name} {value}" for name, value in each.subject.details.items()),
        )
    if len(scores) > 1:
        yield _PointRow(
            name=f"mean and deviation of {len(scores)}",
            kind=scores[0].subject.kind,
            p_miou=mean_and_deviation(s.p_miou for s in scores),
            averages=[mean_and_deviation(_average(s, *way) for s in scores) for way in _WAYS],
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


def _row_protocol(scores: PointScores) -> str:
    words, weights = point_protocol_words(scores.protocol), weights_words(scores.subject)
    return f"{words}; {weights}; {scores.seconds:.1f} s"


def _class_ious(shown: Sequence[Series[PointScores]]) -> list[ClassIou]:
    """Foreground IoU of each class that was asked for, the mean over a series, by label."""
    asked = [row for each in shown for scores in each.scores for row in scores.classes]
    names = {row.label: row.name for row in asked}
    columns = [_mean_ious(each.scores) for each in shown]
    return [
        ClassIou(names[label], [ious.get(label) for ious in columns]) for label in sorted(names)
    ]


def _mean_ious(scores: Sequence[PointScores]) -> dict[str, float]:
    """Mean foreground IoU by label, of the classes that have one."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for each in scores:
        for row in each.classes:
            if row.iou is not None:
                found[row.label].append(row.iou)
    return {label: fmean(ious) for label, ious in found.items()}


def _curve(shown: Sequence[Series[PointScores]]) -> Markup:
    lines = []
    for style, series in enumerate(shown):
        points = zip(*(scores.curve for scores in series.scores), strict=True)
        means = [(each[0].threshold, _mean_percent(each)) for each in points]
        lines.append(Line(series.name, tuple(means), style=style))
    thresholds = [each.scores[0].protocol.threshold for each in shown]
    return line_chart(lines, Axes(x="threshold", y="p-mIoU", marks=used(thresholds)))


def _mean_percent(points: Sequence[PointCurvePoint]) -> float:
    """Mean of a series at one threshold; NaN, which no chart draws, where one has no value."""
    return 100 * fmean(math.nan if each.p_miou is None else each.p_miou for each in points)
