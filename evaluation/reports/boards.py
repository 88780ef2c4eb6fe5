"""Score boards: the scores that a page shows side by side, benchmark by benchmark."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from markupsafe import Markup

from evaluation.reports.charts import Axes, Line, line_chart
from evaluation.reports.protocol_words import protocol_words
from evaluation.reports.series import Series, make_series, mean_and_deviation
from evaluation.scoring.config import Background
from evaluation.scoring.results import (
    GroupScore,
    PublishedResult,
    PublishedSplit,
    Scores,
    Subject,
)

_MAX_CLASSES = 40
_DIGEST = 60


@dataclass(frozen=True)
class Scored:
    """Scores and the folder that their examples are in.

    Attributes:
        scores: The scores.
        folder: Where their file lay.
    """

    scores: Scores
    folder: Path


@dataclass(frozen=True)
class _ScoreRow:
    name: str
    kind: str
    miou: str
    foreground: str
    accuracy: str
    protocol: str
    details: str


@dataclass(frozen=True)
class ClassIou:
    """One class on a board.

    Attributes:
        name: Its name.
        ious: In [0, 1], in the order of the board's series; none where it does not occur.
    """

    name: str
    ious: list[float | None]


@dataclass(frozen=True)
class _GroupRow:
    name: str
    mious: list[str]


@dataclass(frozen=True)
class Board:
    """All scores on one benchmark, as text.

    Attributes:
        title: Benchmark and split.
        note: What all rows have in common.
        rows: Trained students, untrained ones, baselines; several of a kind with their mean.
        published: Numbers of others.
        series: A name for each kind that is there.
        classes: IoUs in the order of the series.
        classes_note: Which classes are shown.
        all_classes: Every class in the order of the labels, if not all of them are shown.
        groups: Means over groups of classes, in the order of `group_columns`.
        group_columns: The series, and the methods that published such means.
        group_notes: Where the published ones come from.
        presets: What the presets in use leave out, one sentence each.
        curve: mIoU by background threshold, as SVG; empty without background.
        curve_note: What the curve says.
    """

    title: str
    note: str
    rows: list[_ScoreRow]
    published: tuple[PublishedResult, ...]
    series: list[str]
    classes: list[ClassIou]
    classes_note: str
    all_classes: list[ClassIou]
    groups: list[_GroupRow]
    group_columns: list[str]
    group_notes: list[str]
    presets: list[str]
    curve: Markup
    curve_note: str


def make_boards(scored: Sequence[Scored]) -> list[Board]:
    """Put the scores on the same images of the same benchmark together, in the order given."""
    groups: defaultdict[Hashable, list[Scores]] = defaultdict(list)
    for each in scored:
        own = each.scores.protocol
        images = (own.benchmark, own.split, own.num_images, own.truth)
        groups[*images, own.average, own.class_names].append(each.scores)
    return [_board(group) for group in groups.values()]


def _board(group: Sequence[Scores]) -> Board:
    protocol = group[0].protocol
    shown = make_series(group)
    rows = _class_ious(shown)
    classes, note = ranked(rows)
    background = "with" if protocol.background else "without"
    names = len(protocol.class_names)
    others = list({own.method: own for s in group for own in s.published_groups}.values())
    warned = dict.fromkeys(each for scores in group for each in scores.warnings)
    warning = f" Beware: {'; '.join(warned)}." if warned else ""
    return Board(
        title=f"{protocol.benchmark}, {protocol.split}",
        note=(
            f"{protocol.num_images:,} images, {names:,} classes {background} background; truth: "
            f"{protocol.truth}; mean over the {protocol.average}. Numbers in percent."
            f"{warning}"
        ),
        rows=[row for each in shown for row in _score_rows(each.scores)],
        published=group[0].published,
        series=[each.name for each in shown],
        classes=classes,
        classes_note=note,
        all_classes=rows if len(rows) > _MAX_CLASSES else [],
        groups=_group_rows(shown, others),
        group_columns=[*(each.name for each in shown), *(own.method for own in others)],
        group_notes=[_split_note(own) for own in others],
        presets=_preset_notes(group),
        curve=_threshold_curve(shown),
        curve_note=_curve_note(group[0]),
    )


def _score_rows(scores: Sequence[Scores]) -> Iterator[_ScoreRow]:
    for each in scores:
        details = ", ".join(f"{name} {value}" for name, value in each.subject.details.items())
        foreground = each.foreground_miou
        yield _ScoreRow(
            name=each.subject.name,
            kind=each.subject.kind,
            miou=f"{100 * each.miou:.1f}",
            foreground="-" if foreground is None else f"{100 * foreground:.1f}",
            accuracy=f"{100 * each.pixel_accuracy:.1f}",
            protocol=_row_protocol(each),
            details=details,
        )
    if len(scores) > 1:
        yield _ScoreRow(
            name=f"mean and deviation of {len(scores)}",
            kind=scores[0].subject.kind,
            miou=mean_and_deviation(s.miou for s in scores),
            foreground=mean_and_deviation(s.foreground_miou for s in scores),
            accuracy=mean_and_deviation(s.pixel_accuracy for s in scores),
            protocol="sample standard deviation",
            details="",
        )


def _row_protocol(scores: Scores) -> str:
    weights = weights_words(scores.subject)
    return f"{protocol_words(scores.protocol)}; {weights}; {scores.seconds:.1f} s"


def weights_words(subject: Subject) -> str:
    """Which weights were scored; a digest is cut short."""
    name = subject.fingerprint
    return f"weights {name if len(name) < _DIGEST else f'{name[:12]}...'}"


def _preset_notes(group: Sequence[Scores]) -> list[str]:
    omits = {each.protocol.preset: each.protocol.preset_omits for each in group}
    return [
        f"Preset {preset} differs from the original: {'; '.join(own)}."
        for preset, own in omits.items()
        if preset
    ]


def _group_rows(
    shown: Sequence[Series[Scores]], published: Sequence[PublishedSplit]
) -> list[_GroupRow]:
    """Means over groups of classes, each with the number of classes that it is taken over.

    Scores with and without a zero-shot split may stand on one board; published numbers are in the
    last columns.
    """
    scores = [score for each in shown for score in each.scores]
    names = dict.fromkeys(group.name for score in scores for group in score.groups)
    return [
        _GroupRow(
            name,
            [
                *(_group_cell(_named(each.scores, name)) for each in shown),
                *(f"{own.values[name]:.1f}" if name in own.values else "-" for own in published),
            ],
        )
        for name in names
    ]


def _named(scores: Sequence[Scores], name: str) -> list[GroupScore]:
    return [group for each in scores for group in each.groups if group.name == name]


def _group_cell(groups: Sequence[GroupScore]) -> str:
    values = [group.miou for group in groups if group.miou is not None]
    counts = sorted({group.num_classes for group in groups})
    if not values:
        return "-"
    over = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"{100 * fmean(values):.1f} ({over})"


def _split_note(own: PublishedSplit) -> str:
    return f"{own.method}: published, not measured here; {own.notes}"


def _class_ious(shown: Sequence[Series[Scores]]) -> list[ClassIou]:
    names = [row.name for row in shown[0].scores[0].classes]
    return [
        ClassIou(name, [_mean_iou(each.scores, index) for each in shown])
        for index, name in enumerate(names)
    ]


def ranked(rows: Sequence[ClassIou]) -> tuple[list[ClassIou], str]:
    """The classes that occur, best first, with a note that says which are shown."""
    present = [row for row in rows if any(iou is not None for iou in row.ious)]
    ordered = sorted(present, key=lambda row: (-(row.ious[0] or 0.0), row.name))
    note = "Best first. The number is that of the first bar."
    if len(ordered) > _MAX_CLASSES:
        half = _MAX_CLASSES // 2
        note = f"The {half} best and the {half} worst of {len(ordered):,} classes. " + note
        ordered = ordered[:half] + ordered[-half:]
    return ordered, note


def _mean_iou(scores: Sequence[Scores], index: int) -> float | None:
    ious = [iou for s in scores if (iou := s.classes[index].iou) is not None]
    return fmean(ious) if ious else None


def _threshold_curve(shown: Sequence[Series[Scores]]) -> Markup:
    lines = []
    for style, series in enumerate(shown):
        curves = [s.curve for s in series.scores if s.curve]
        points = [
            (each[0].threshold, 100 * fmean(point.miou for point in each))
            for each in zip(*curves, strict=True)
        ]
        if points:
            lines.append(Line(series.name, tuple(points), style=style))
    ruled = [
        own.threshold
        for own in (each.scores[0].protocol for each in shown)
        if own.background_rule is not Background.NONE
    ]
    return line_chart(lines, Axes(x="background threshold", y="mIoU", marks=used(ruled)))


def used(thresholds: Iterable[float]) -> tuple[tuple[float, str], ...]:
    """Marks of the thresholds in use, each once."""
    return tuple((each, f"in use: {each:g}") for each in sorted(set(thresholds)))


def _curve_note(scores: Scores) -> str:
    if not scores.curve:
        return ""
    best = max(scores.curve, key=lambda point: point.miou)
    return (
        f"All points come from one pass. {scores.subject.name} would reach {100 * best.miou:.1f} "
        f"at {best.threshold:g}; that threshold was chosen with the truth at hand, so this is "
        "not a result."
    )
