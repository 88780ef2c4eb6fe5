"""Score boards: what stands beside each other on a page, benchmark by benchmark."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from markupsafe import Markup

from evaluation.reports.charts import Axes, Line, line_chart
from evaluation.reports.gallery import Picture, Thing, css_colour, picture
from evaluation.reports.sheets import overlay
from evaluation.scoring.config import Background
from evaluation.scoring.results import Example, PublishedResult, ScoreProtocol, Scores, Subject
from storage.codecs import decode_image, decode_label_map
from storage.errors import DataError
from storage.records import IGNORE_LABEL

KINDS = ("student", "untrained", "baseline", "closed-set")
"""Kinds of subjects, in the order in which boards show them."""
_MAX_CLASSES = 40


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
    """All scores on one benchmark, in words.

    Attributes:
        title: Benchmark and split.
        note: What all rows have in common.
        rows: Trained students, untrained ones, baselines; several of a kind with their mean.
        published: Numbers of others.
        series: A name for each kind that is there.
        classes: IoUs in the order of the series.
        classes_note: Which classes are shown.
        all_classes: Every class in the order of the labels, if not all of them are shown.
        groups: Means over groups of classes, in the order of the series.
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
    presets: list[str]
    curve: Markup
    curve_note: str


@dataclass(frozen=True)
class Prediction:
    """One image with its truth and every kind's prediction.

    Attributes:
        pictures: In this order.
        caption: The image's name.
    """

    pictures: list[Picture]
    caption: str


def make_boards(scored: Sequence[Scored]) -> list[Board]:
    """Put the scores on the same images of the same benchmark together, in the order given."""
    groups: defaultdict[tuple[str | int, ...], list[Scores]] = defaultdict(list)
    for each in scored:
        own = each.scores.protocol
        key = (own.benchmark, own.split, own.num_images, own.truth, own.average)
        groups[key].append(each.scores)
    return [_board(group) for group in groups.values()]


def _board(group: Sequence[Scores]) -> Board:
    protocol = group[0].protocol
    shown = _by_subject(group)
    series = _series(shown)
    rows = _class_ious(shown)
    classes, note = ranked(rows)
    background = "with" if protocol.background else "without"
    names = len(protocol.class_names)
    return Board(
        title=f"{protocol.benchmark}, {protocol.split}",
        note=(
            f"{protocol.num_images:,} images, {names:,} classes {background} background; truth: "
            f"{protocol.truth}; mean over the {protocol.average}. Numbers in percent."
        ),
        rows=[row for scores in shown for row in _score_rows(scores)],
        published=group[0].published,
        series=series,
        classes=classes,
        classes_note=note,
        all_classes=rows if len(rows) > _MAX_CLASSES else [],
        groups=_group_rows(shown),
        presets=_preset_notes(group),
        curve=_threshold_curve(shown, series),
        curve_note=_curve_note(group[0]),
    )


def _by_subject(group: Sequence[Scores]) -> list[list[Scores]]:
    """Scores that differ by the seed at most together, the kinds in their order."""
    alike: defaultdict[tuple[int, str, ScoreProtocol, tuple[float, ...]], list[Scores]]
    alike = defaultdict(list)
    for each in group:
        thresholds = tuple(point.threshold for point in each.curve)
        alike[(*_order(each.subject), each.protocol, thresholds)].append(each)
    return sorted(alike.values(), key=lambda scores: _order(scores[0].subject))


def _order(subject: Subject) -> tuple[int, str]:
    """Students of one kind differ by their seed; others are what their name says."""
    is_student = subject.kind in {"student", "untrained"}
    return KINDS.index(subject.kind), "" if is_student else subject.name


def _series(shown: Sequence[Sequence[Scores]]) -> list[str]:
    """A name for each, with the protocol where only that tells two apart."""
    subjects = [_order(scores[0].subject) for scores in shown]
    names = []
    for scores, subject in zip(shown, subjects, strict=True):
        name = series_name([each.subject for each in scores])
        own = scores[0].protocol
        rule = own.preset or f"{own.background_rule.value} {own.threshold:g}"
        names.append(f"{name}, {rule}" if subjects.count(subject) > 1 else name)
    return names


def series_name(subjects: Sequence[Subject]) -> str:
    """What a board calls subjects of one kind."""
    name = {"student": "trained student", "untrained": "untrained student"}.get(subjects[0].kind)
    name = name or subjects[0].name
    return name if len(subjects) == 1 else f"{name}, mean of {len(subjects)}"


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
            miou=mean_and_deviation([s.miou for s in scores]),
            foreground=mean_and_deviation([s.foreground_miou or 0.0 for s in scores]),
            accuracy=mean_and_deviation([s.pixel_accuracy for s in scores]),
            protocol="sample standard deviation",
            details="",
        )


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and sample standard deviation of shares, in percent."""
    return f"{100 * fmean(values):.1f} \u00b1 {100 * stdev(values):.1f}"


def _row_protocol(scores: Scores) -> str:
    weights = scores.subject.fingerprint
    weights = weights if len(weights) < 60 else f"{weights[:12]}..."
    return f"{protocol_words(scores.protocol)}; weights {weights}; {scores.seconds:.1f} s"


def protocol_words(protocol: ScoreProtocol) -> str:
    """Say how a number came about: background, text, view and preset."""
    rule = _rule_words(protocol.background_rule, protocol.threshold)
    parts = [rule, protocol.text, protocol.view]
    if protocol.preset:
        changes = ", ".join(protocol.preset_changes) or "nothing"
        parts.append(f"preset {protocol.preset} (changed: {changes})")
    return "; ".join(parts)


def _rule_words(rule: Background, threshold: float) -> str:
    """Say when a pixel is background."""
    limit = f"{threshold:g}"
    return {
        Background.RAW: f"background where the best sigmoid score < {limit}",
        Background.SOFTMAX: f"background where the best probability < {limit}",
        Background.CONSTANT: f"background where the best score <= {limit}",
        Background.WORDS: f"background where its words win or the best probability < {limit}",
        Background.GROUPVIT: (
            f"background where the best of the five nearest classes, probability among all times "
            f"probability among the five, < {limit} and < the image's best"
        ),
        Background.NONE: "no background rule",
    }[rule]


def _preset_notes(group: Sequence[Scores]) -> list[str]:
    omits = {each.protocol.preset: each.protocol.preset_omits for each in group}
    return [
        f"Preset {preset} differs from the original: {'; '.join(own)}."
        for preset, own in omits.items()
        if preset
    ]


def _group_rows(shown: Sequence[Sequence[Scores]]) -> list[_GroupRow]:
    """Means over groups of classes, each with the number of classes that it is taken over."""
    names = [group.name for group in shown[0][0].groups]
    rows = []
    for index, name in enumerate(names):
        cells = []
        for scores in shown:
            found = [each.groups[index] for each in scores]
            values = [group.miou for group in found if group.miou is not None]
            counts = sorted({group.num_classes for group in found})
            over = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
            cells.append(f"{100 * fmean(values):.1f} ({over})" if values else "-")
        rows.append(_GroupRow(name, cells))
    return rows


def _class_ious(groups: Sequence[Sequence[Scores]]) -> list[ClassIou]:
    names = [row.name for row in groups[0][0].classes]
    columns = [[_mean_iou(scores, index) for scores in groups] for index in range(len(names))]
    return [ClassIou(name, ious) for name, ious in zip(names, columns, strict=True)]


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


def _threshold_curve(groups: Sequence[Sequence[Scores]], series: Sequence[str]) -> Markup:
    lines = []
    for style, (name, scores) in enumerate(zip(series, groups, strict=True)):
        curves = [s.curve for s in scores if s.curve]
        points = [
            (each[0].threshold, 100 * fmean(point.miou for point in each))
            for each in zip(*curves, strict=True)
        ]
        if points:
            lines.append(Line(name, tuple(points), style=style))
    protocol = groups[0][0].protocol
    marks = ((protocol.threshold, f"in use: {protocol.threshold:g}"),)
    axes = Axes(x="background threshold", y="mIoU", marks=marks if protocol.background else ())
    return line_chart(lines, axes)


def _curve_note(scores: Scores) -> str:
    if not scores.curve:
        return ""
    best = max(scores.curve, key=lambda point: point.miou)
    return (
        f"All points come from one pass. {scores.subject.name} would reach {100 * best.miou:.1f} "
        f"at {best.threshold:g}; that threshold is chosen with the truth at hand and is no result."
    )


def make_predictions(scored: Sequence[Scored], side: int) -> tuple[list[Prediction], list[Thing]]:
    """Show the kept images of the first benchmark, with every kind's first prediction.

    Args:
        scored: All scores of the page.
        side: Most pixels of a picture's side.

    Returns:
        One row for each image, and the classes that the rows show.

    Raises:
        DataError: If a file that the scores name is missing or broken.
    """
    if not scored:
        return [], []
    first = scored[0].scores.protocol
    where = (first.benchmark, first.split)
    same = [
        each
        for each in scored
        if (each.scores.protocol.benchmark, each.scores.protocol.split) == where
    ]
    firsts = {_order(each.scores.subject): each for each in reversed(same)}
    chosen = [firsts[key] for key in sorted(firsts)]
    names = first.class_names if first.background else ("", *first.class_names)
    seen: set[int] = set()
    rows = []
    for example in chosen[0].scores.examples:
        pictures, labels = _example_pictures(chosen, example, side)
        rows.append(Prediction(pictures, example.key))
        seen |= labels
    shown = sorted(seen - {0, IGNORE_LABEL})
    return rows, [Thing(names[label], css_colour(label)) for label in shown]


def _example_pictures(
    chosen: Sequence[Scored], example: Example, side: int
) -> tuple[list[Picture], set[int]]:
    folder = chosen[0].folder
    background = chosen[0].scores.protocol.background
    image = decode_image(_file(folder / example.image))
    truth = _labels(folder / example.truth, background=background)
    pictures = [
        picture(image, side, f"{example.key}", "image"),
        picture(overlay(image, truth), side, f"truth of {example.key}", "truth"),
    ]
    seen = set(np.unique(truth).tolist())
    for each in chosen:
        match = next((e for e in each.scores.examples if e.key == example.key), None)
        if match is not None:
            found = _labels(each.folder / match.prediction, background=background)
            caption = each.scores.subject.kind
            alt = f"prediction of {each.scores.subject.name} for {example.key}"
            pictures.append(picture(overlay(image, found), side, alt, caption))
            seen |= set(np.unique(found).tolist())
    return pictures, seen


def _labels(path: Path, *, background: bool) -> np.ndarray:
    """Labels with 0 as background, whether the class set has one or not."""
    labels = decode_label_map(_file(path))
    return labels if background else np.where(labels == IGNORE_LABEL, labels, labels + 1)


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        message = f"{path} is missing, though the scores name it: evaluate again"
        raise DataError(message) from error
