"""Two runs side by side: scores, classes, curves, parameters, and the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from evaluation.reports.boards import Scored
from evaluation.reports.charts import Axes, Line, line_chart, smoothed
from evaluation.reports.close_ups import mean_of_images
from evaluation.reports.gallery import Picture
from evaluation.reports.predictions import example_pictures
from evaluation.reports.protocol_words import difference_words
from evaluation.reports.run_records import differing, read_run_parameters
from evaluation.reports.shots import decode_shot, draw_shot
from evaluation.reports.training_curves import curve_points
from evaluation.scoring.image_counts import read_counts
from evaluation.scoring.kept_pictures import read_pictures
from evaluation.scoring.results import ImageFiles, Scores
from storage.metrics import MetricsRow

_MAX_CLASSES = 40
_MAX_IMAGES = 8
_DECIMALS = 1


@dataclass(frozen=True)
class RunParts:
    """What was read of a run.

    Attributes:
        name: What the page calls it.
        folder: Its folder.
        scored: Scores on label maps.
        metrics: Name and rows of each training log.
    """

    name: str
    folder: Path
    scored: Sequence[Scored]
    metrics: Sequence[tuple[str, Sequence[MetricsRow]]]


@dataclass(frozen=True)
class ClassDelta:
    """One class in both runs.

    Attributes:
        name: The class.
        first: IoU in percent, as text.
        second: The same in the other run.
        delta: Second less first, with its sign; empty where one of them has none.
        gain: Width of the bar to the right, in percent of the largest.
        loss: Width of the bar to the left.
    """

    name: str
    first: str
    second: str
    delta: str
    gain: float
    loss: float


@dataclass(frozen=True)
class SameImage:
    """One image with what both runs predicted.

    Attributes:
        caption: Its name, and how well it went.
        pictures: Image, truth, and both predictions.
    """

    caption: str
    pictures: list[Picture]


@dataclass(frozen=True)
class ComparedScores:
    """Both runs on one benchmark.

    Attributes:
        title: Benchmark, split and subject.
        rows: What, first, second, difference.
        differs: How the second's protocol differs from the first's, and both cannot be compared.
        classes: Largest change first.
        classes_note: Which classes are shown.
        all_classes: Every class, if not all are shown.
        curve: mIoU of both by background threshold, as SVG.
        images: The same images, those that changed most first.
    """

    title: str
    rows: list[tuple[str, str, str, str]]
    differs: list[str]
    classes: list[ClassDelta]
    classes_note: str
    all_classes: list[ClassDelta]
    curve: Markup
    images: list[SameImage]


@dataclass(frozen=True)
class SharedCurve:
    """A number that both runs logged.

    Attributes:
        title: What it is.
        svg: Both lines.
    """

    title: str
    svg: Markup


@dataclass(frozen=True)
class TwoRuns:
    """Two runs side by side.

    Attributes:
        names: What the page calls them.
        parameters: Name and both values of what differs.
        parameters_note: What is known of the others.
        boards: Benchmarks that both were scored on.
        alone: What only one of them was scored on.
        curves: Numbers that both logged.
    """

    names: tuple[str, str]
    parameters: list[tuple[str, str, str]]
    parameters_note: str
    boards: list[ComparedScores]
    alone: list[str]
    curves: list[SharedCurve]


def compare_two_runs(first: RunParts, second: RunParts, side: int) -> TwoRuns:
    """Put two runs side by side.

    Args:
        first: The run that the other is held against.
        second: The other.
        side: Most pixels of a picture's side.

    Raises:
        DataError: If a file of either is damaged.
    """
    names = (first.name, second.name)
    own, other = _by_subject(first.scored), _by_subject(second.scored)
    shared = [key for key in own if key in other]
    alone = [f"{' '.join(key[:2])}, {key[2]}: {names[0]} alone" for key in own if key not in other]
    alone += [f"{' '.join(key[:2])}, {key[2]}: {names[1]} alone" for key in other if key not in own]
    mine, others = read_run_parameters(first.folder), read_run_parameters(second.folder)
    return TwoRuns(
        names=names,
        parameters=differing(mine, others) if mine and others else [],
        parameters_note=_parameters_note(names, mine, others),
        boards=[_compare(own[key], other[key], names, side) for key in shared],
        alone=alone,
        curves=_shared_curves(first, second),
    )


def _by_subject(scored: Sequence[Scored]) -> dict[tuple[str, str, str], Scored]:
    """The newest scores of each kind of subject on each split, students first."""
    found: dict[tuple[str, str, str], Scored] = {}
    for each in scored:
        own = each.scores
        kind = own.subject.kind
        name = kind if kind in {"student", "untrained"} else own.subject.name
        key = (own.protocol.benchmark, own.protocol.split, name)
        if key not in found or own.created > found[key].scores.created:
            found[key] = each
    return dict(sorted(found.items(), key=lambda item: (item[0][2] != "student", item[0])))


def _parameters_note(
    names: tuple[str, str], mine: Mapping[str, str], others: Mapping[str, str]
) -> str:
    for name, parameters in zip(names, (mine, others), strict=True):
        if not parameters:
            return f"{name} has no checkpoint, so that its parameters are not known."
    differ = len(differing(mine, others))
    same = sum(mine.get(name) == others.get(name) for name in mine)
    what = f"{differ} parameters differ" if differ else "No parameter differs"
    return f"{what}, {same} are the same. The dataset is known by its digest."


def _compare(first: Scored, second: Scored, names: tuple[str, str], side: int) -> ComparedScores:
    own, other = first.scores, second.scores
    protocol = own.protocol
    rows = [
        _row("mIoU", own.miou, other.miou),
        _row("foreground mIoU", own.foreground_miou, other.foreground_miou),
        _row("pixel accuracy", own.pixel_accuracy, other.pixel_accuracy),
    ]
    classes = _class_deltas(own, other)
    note = "Largest change first; absent classes are left out."
    shown = classes
    if len(classes) > _MAX_CLASSES:
        shown = classes[:_MAX_CLASSES]
        note = f"The {_MAX_CLASSES} of {len(classes):,} classes that changed most. {note}"
    return ComparedScores(
        title=f"{protocol.benchmark}, {protocol.split}: {_subject(own)}",
        rows=rows,
        differs=difference_words(other.protocol, [protocol]),
        classes=shown,
        classes_note=note,
        all_classes=classes if len(classes) > _MAX_CLASSES else [],
        curve=_threshold_curves(own, other, names),
        images=_same_images(first, second, names, side),
    )


def _subject(scores: Scores) -> str:
    words = {"student": "trained student", "untrained": "untrained student"}
    return words.get(scores.subject.kind, scores.subject.name)


def _row(what: str, first: float | None, second: float | None) -> tuple[str, str, str, str]:
    return (what, _percent(first), _percent(second), _delta(first, second))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.{_DECIMALS}f}"


def _delta(first: float | None, second: float | None) -> str:
    if first is None or second is None:
        return ""
    change = round(100 * (second - first), _DECIMALS)
    return f"{change:+.{_DECIMALS}f}" if change else f"{0:.{_DECIMALS}f}"


def _class_deltas(first: Scores, second: Scores) -> list[ClassDelta]:
    others = {row.name: row.iou for row in second.classes}
    pairs = [
        (row.name, row.iou, others.get(row.name))
        for row in first.classes
        if row.iou is not None or others.get(row.name) is not None
    ]
    changes = {
        name: 0.0 if own is None or other is None else other - own for name, own, other in pairs
    }
    most = max((abs(change) for change in changes.values()), default=0.0) or 1.0
    pairs.sort(key=lambda pair: (-abs(changes[pair[0]]), pair[0]))
    return [
        ClassDelta(
            name=name,
            first=_percent(own),
            second=_percent(other),
            delta=_delta(own, other),
            gain=round(100 * max(0.0, changes[name]) / most, 1),
            loss=round(100 * max(0.0, -changes[name]) / most, 1),
        )
        for name, own, other in pairs
    ]


def _threshold_curves(first: Scores, second: Scores, names: tuple[str, str]) -> Markup:
    lines = [
        Line(
            name,
            tuple((point.threshold, 100 * point.miou) for point in scores.curve),
            style=(0, 2)[place],
        )
        for place, (name, scores) in enumerate(zip(names, (first, second), strict=True))
    ]
    return line_chart(lines, Axes(x="background threshold", y="mIoU"))


def _same_images(
    first: Scored, second: Scored, names: tuple[str, str], side: int
) -> list[SameImage]:
    """Images of which both runs kept a picture: those that changed most, else the examples."""
    own, other = first.scores, second.scores
    if own.protocol.class_names != other.protocol.class_names:
        return []
    mine, others = own.find_images(first.folder), other.find_images(second.folder)
    if mine and others and mine.pictures and others.pictures:
        return _most_changed(((first, mine), (second, others)), names, side)
    keys = {example.key for example in other.examples}
    rows = []
    for example in own.examples:
        if example.key in keys:
            pictures, _ = example_pictures([first, second], example, side)
            captions = ("image", "truth", *names)
            shown = [_named(each, name) for each, name in zip(pictures, captions, strict=True)]
            rows.append(SameImage(example.key, shown))
    return rows


def _most_changed(
    runs: Sequence[tuple[Scored, ImageFiles]], names: tuple[str, str], side: int
) -> list[SameImage]:
    protocol = runs[0][0].scores.protocol
    classes, background = len(protocol.class_names), protocol.background
    means = [
        mean_of_images(read_counts(each.folder / files.counts, classes), classes)
        for each, files in runs
    ]
    pictures = [read_pictures(each.folder / files.pictures) for each, files in runs]
    shared = [key for key in pictures[0] if key in pictures[1]]
    shared = [key for key in shared if key in means[0] and key in means[1]]
    shared.sort(key=lambda key: (-abs(means[1][key] - means[0][key]), key))
    rows = []
    for key in shared[:_MAX_IMAGES]:
        shots = [
            draw_shot(
                decode_shot(each[key], num_classes=classes, background=background), side, key
            ).pictures
            for each in pictures
        ]
        shown = [*shots[0][:2], _named(shots[0][2], names[0]), _named(shots[1][2], names[1])]
        change = f"{100 * means[0][key]:.1f} and {100 * means[1][key]:.1f}"
        rows.append(SameImage(f"{key}: mean IoU of its classes {change}", shown))
    return rows


def _named(picture: Picture, name: str) -> Picture:
    return replace(picture, alt=f"{name}: {picture.alt}", caption=name)


def _shared_curves(first: RunParts, second: RunParts) -> list[SharedCurve]:
    """What the first training of each run logged, one over the other."""
    if not first.metrics or not second.metrics:
        return []
    own, other = curve_points(first.metrics[0][1]), curve_points(second.metrics[0][1])
    curves = []
    for title in own:
        if title in other:
            lines = [
                Line(first.name, tuple(smoothed(own[title])), style=0),
                Line(second.name, tuple(smoothed(other[title])), style=2),
            ]
            curves.append(SharedCurve(title, line_chart(lines, Axes(x="step", y=title))))
    return curves
