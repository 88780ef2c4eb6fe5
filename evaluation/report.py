"""The report: one self-contained HTML page about a dataset and the runs made from it.

The page fetches nothing: pictures are data URIs, charts are inline SVG, and every text from outside
is escaped. A section without data says what is missing and which command makes it.
"""

import difflib
import io
import json
import math
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evaluation.charts import Axes, Line, line_chart, number, smoothed
from evaluation.inference import Background
from evaluation.score import Example, PublishedResult, Scores, read_scores
from evaluation.sheets import Quadruplet, class_colour, overlay, pick_samples, resized
from evaluation.yields import ClassYield, StageYield, Yields, count_yields
from storage.codecs import decode_image, decode_label_map
from storage.errors import DataError, InputError
from storage.records import IGNORE_LABEL, Mention
from storage.shards import Sample
from storage.store import CommittedShard, Store

MAX_PAGE_BYTES = 3_000_000
"""Largest page; its pictures are made smaller until it fits."""

METRICS_FILE = "metrics.jsonl"

_SIDES = (224, 160, 112, 72)
_NUM_QUADRUPLETS = 18
_MAX_CLASSES = 40
_MAX_SHARDS_LISTED = 400
_SHARP_BELOW = 96
_COMMANDS = {
    "generate": "magicseg generate",
    "train": "magicseg train",
    "evaluate": "magicseg evaluate",
    "verify": "magicseg verify",
}
_KINDS = ("student", "untrained", "baseline")
_NOT_CURVES = frozenset({"step", "epoch", "seconds", "time"})
_NOUNS = {"lr": "learning rate", "gradient": "gradient norm"}


@dataclass(frozen=True)
class _Picture:
    uri: str
    alt: str
    pixels: bool
    caption: str = ""


@dataclass(frozen=True)
class _Piece:
    """A stretch of text; with a colour it is marked."""

    text: str
    colour: str = ""


@dataclass(frozen=True)
class _Object:
    name: str
    colour: str
    score: float = 0.0


@dataclass(frozen=True)
class _QuadrupletCard:
    key: str
    image: _Picture
    counterfactual: _Picture
    overlay: _Picture
    text: list[_Piece]
    counterfactual_text: list[_Piece]
    objects: list[_Object]


@dataclass(frozen=True)
class _StageBar:
    name: str
    entered: int
    passed: int
    passed_width: float
    rejected_width: float
    failed_width: float
    why: str


@dataclass(frozen=True)
class _ClassBar:
    name: str
    requested: int
    written: int
    rejected: int
    failed: int
    why: str


@dataclass(frozen=True)
class _Group:
    title: str
    fields: list[tuple[str, str]]


@dataclass(frozen=True)
class _Dataset:
    root: str
    yields: Yields
    recorded_requested: int
    recorded_written: int
    stages: list[_StageBar]
    classes: list[_ClassBar]
    classes_note: str
    shards: list[CommittedShard]
    num_bytes: int
    recipe: list[_Group]

    @property
    def adds_up(self) -> bool:
        y = self.yields
        whole = y.requested == y.written + y.rejected + y.failed
        recorded = (self.recorded_requested, self.recorded_written)
        return whole and recorded == (y.requested, y.written)


@dataclass(frozen=True)
class _Tile:
    value: str
    label: str


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
class _ClassIou:
    name: str
    ious: list[float | None]


@dataclass(frozen=True)
class _Board:
    """All scores on one benchmark."""

    title: str
    note: str
    rows: list[_ScoreRow]
    published: tuple[PublishedResult, ...]
    series: list[str]
    classes: list[_ClassIou]
    classes_note: str
    curve: Markup
    curve_note: str


@dataclass(frozen=True)
class _Prediction:
    pictures: list[_Picture]
    caption: str


@dataclass(frozen=True)
class _Chart:
    title: str
    svg: Markup
    note: str


@dataclass(frozen=True)
class _Training:
    name: str
    note: str
    charts: list[_Chart]


@dataclass(frozen=True)
class _Page:
    title: str
    subtitle: str
    made: str
    tiles: list[_Tile]
    commands: Mapping[str, str]
    dataset: _Dataset | None
    quadruplets: list[_QuadrupletCard]
    benchmarks: list[_Board]
    predictions: list[_Prediction]
    prediction_classes: list[_Object]
    trainings: list[_Training]


@dataclass(frozen=True)
class _Scored:
    """Scores and the folder that their examples are in."""

    scores: Scores
    folder: Path


@dataclass
class _Sources:
    """Everything that was read before anything is drawn."""

    title: str
    store: Store | None
    samples: list[Sample]
    yields: Yields | None
    scored: list[_Scored] = field(default_factory=list)
    metrics: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)


def write_report(
    dataset_root: str | Path | None,
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = "",
) -> Path:
    """Write the report of a dataset and of the runs made from it.

    Args:
        dataset_root: Path or URL of a dataset; None for a report about runs alone.
        runs: Folders with `metrics.jsonl` and `scores-*.json`, in any depth.
        out: The HTML file to write; it is smaller than `MAX_PAGE_BYTES`.
        title: Heading of the page; the dataset's name when empty.

    Returns:
        The file.

    Raises:
        InputError: If there is no dataset at the root, or a run folder does not exist.
        DataError: If a shard, a scores file or a metrics file cannot be read.
    """
    sources = _read_sources(dataset_root, runs, title)
    page = _render(sources, _SIDES[0])
    for side in _SIDES[1:]:
        if len(page.encode()) <= MAX_PAGE_BYTES:
            break
        page = _render(sources, side)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a training log, one JSON object a line, by ascending step.

    A step that was repeated after a resume counts once, as it was computed last. A last line that
    was cut off by a crash is left out.

    Raises:
        DataError: If another line is no JSON object with a step.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    by_step: dict[int, dict[str, Any]] = {}
    for index, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            by_step[int(row["step"])] = row
        except (ValueError, KeyError, TypeError) as error:
            if index == len(lines):
                break
            message = f"{path} line {index} is no JSON object with a step: remove the line"
            raise DataError(message) from error
    return [by_step[step] for step in sorted(by_step)]


def _read_sources(root: str | Path | None, runs: Sequence[Path], title: str) -> _Sources:
    store = None if root is None else Store.open(root)
    name = title or (str(root).rstrip("/").rsplit("/", 1)[-1] if root else "Runs")
    sources = _Sources(title=name, store=store, samples=[], yields=None)
    if store is not None:
        shards = store.shards()
        manifests = (store.manifest(shard.commit) for shard in shards)
        sources.yields = count_yields(chain.from_iterable(manifests))
        sources.samples = pick_samples(store, _NUM_QUADRUPLETS)
    for run in runs:
        if not run.is_dir():
            message = f"{run} is no folder, expected a run with {METRICS_FILE} or scores"
            raise InputError(message)
        for path in sorted(run.rglob("scores-*.json")):
            sources.scored.append(_Scored(read_scores(path), path.parent))
        for path in sorted(run.rglob(METRICS_FILE)):
            label = str(path.parent.relative_to(run.parent))
            sources.metrics.append((label, read_metrics(path)))
    return sources


def _render(sources: _Sources, side: int) -> str:
    environment = Environment(
        loader=PackageLoader("evaluation", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.jinja")
    return template.render(page=_page(sources, side))


def _page(sources: _Sources, side: int) -> _Page:
    dataset = _dataset(sources)
    predictions, classes = _predictions(sources.scored, side)
    made = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")
    return _Page(
        title=sources.title,
        subtitle=dataset.root if dataset else "No dataset, runs only.",
        made=f"Made {made} by MagicSeg Engine {version('magicseg-engine')}.",
        tiles=_tiles(dataset, sources.scored),
        commands=_COMMANDS,
        dataset=dataset,
        quadruplets=[_card(sample, side) for sample in sources.samples],
        benchmarks=_boards(sources.scored),
        predictions=predictions,
        prediction_classes=classes,
        trainings=[_training(name, rows) for name, rows in sources.metrics if rows],
    )


def _tiles(dataset: _Dataset | None, scored: Sequence[_Scored]) -> list[_Tile]:
    tiles = []
    if dataset is not None:
        y = dataset.yields
        tiles += [
            _Tile(f"{y.written:,}", "quadruplets"),
            _Tile(f"{100 * y.share:.1f} %", f"yield of {y.requested:,} planned"),
            _Tile(f"{sum(c.written > 0 for c in y.classes):,}", f"classes of {len(y.classes):,}"),
            _Tile(f"{len(dataset.shards):,}", f"shards, {_bytes(dataset.num_bytes)}"),
        ]
    first = scored[0].scores.protocol.benchmark if scored else ""
    for kind, label in (("student", "trained"), ("untrained", "untrained")):
        values = [
            100 * s.scores.miou
            for s in scored
            if s.scores.subject.kind == kind and s.scores.protocol.benchmark == first
        ]
        if values:
            seeds = "" if len(values) == 1 else f", mean of {len(values)}"
            tiles.append(_Tile(f"{fmean(values):.1f}", f"mIoU on {first}, {label}{seeds}"))
    return tiles


def _dataset(sources: _Sources) -> _Dataset | None:
    store, yields = sources.store, sources.yields
    if store is None or yields is None:
        return None
    shards = store.shards()
    worst = sorted(yields.classes, key=lambda row: (row.share, row.name))
    note = "Lowest yield first. A sample of two classes counts for both."
    if len(worst) > _MAX_CLASSES:
        note = f"The {_MAX_CLASSES} of {len(worst):,} classes with the lowest yield. " + note
    return _Dataset(
        root=store.root,
        yields=yields,
        recorded_requested=sum(shard.commit.counts.requested for shard in shards),
        recorded_written=sum(shard.commit.counts.written for shard in shards),
        stages=[_stage_bar(stage, yields.requested) for stage in yields.stages],
        classes=[_class_bar(row) for row in worst[:_MAX_CLASSES]],
        classes_note=note,
        shards=shards[:_MAX_SHARDS_LISTED],
        num_bytes=sum(s.commit.object.size for s in shards if s.commit.object is not None),
        recipe=_recipe(store.spec),
    )


def _stage_bar(stage: StageYield, requested: int) -> _StageBar:
    failed = sum(count for why, count in stage.dropped.items() if why.is_failure)
    rejected = stage.entered - stage.passed - failed
    scale = 100 / max(requested, 1)
    return _StageBar(
        name=str(stage.stage),
        entered=stage.entered,
        passed=stage.passed,
        passed_width=round(stage.passed * scale, 2),
        rejected_width=round(rejected * scale, 2),
        failed_width=round(failed * scale, 2),
        why=_counted(stage.dropped),
    )


def _class_bar(row: ClassYield) -> _ClassBar:
    return _ClassBar(
        row.name, row.requested, row.written, row.rejected, row.failed, _counted(row.reasons)
    )


def _counted(reasons: Mapping[Any, int]) -> str:
    return ", ".join(f"{why} {count:,}" for why, count in reasons.items())


def _recipe(spec: Mapping[str, Any]) -> list[_Group]:
    """The spec in groups: one for the plain settings, one for each nested part."""
    plain = [(str(name), _plain(value)) for name, value in spec.items() if not _nested(value)]
    groups = [_Group("dataset", plain)] if plain else []
    for name, value in spec.items():
        if _nested(value):
            groups.append(_Group(str(name), list(_flattened(value))))
    return groups


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _flattened(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        path = f"{prefix}{name}"
        if _nested(item):
            yield from _flattened(item, f"{path}.")
        else:
            yield path, _plain(item)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "not set"
    return json.dumps(value, ensure_ascii=False)


def _card(sample: Sample, side: int) -> _QuadrupletCard:
    quadruplet = Quadruplet.decode(sample)
    names = dict(zip(sample.class_ids, sample.class_names, strict=True))
    return _QuadrupletCard(
        key=sample.key,
        image=_picture(quadruplet.image, side, f"image: {sample.text}"),
        counterfactual=_picture(
            quadruplet.counterfactual, side, f"counterfactual: {sample.counterfactual_text}"
        ),
        overlay=_picture(quadruplet.overlay, side, f"masks of {', '.join(sample.class_names)}"),
        text=marked_text(sample.text, sample.mentions),
        counterfactual_text=changed_text(sample.text, sample.counterfactual_text),
        objects=[
            _Object(names[item.class_id], _css(item.class_id + 1), item.score)
            for item in sample.instances
            if item.class_id in names
        ],
    )


def marked_text(text: str, mentions: Iterable[Mention]) -> list[_Piece]:
    """Cut a text at its class mentions; each mention has its class's colour."""
    pieces, end = [], 0
    for mention in sorted(mentions, key=lambda each: each.start):
        if mention.start < end:
            continue
        pieces += [
            _Piece(text[end : mention.start]),
            _Piece(text[mention.start : mention.end], _css(mention.class_id + 1)),
        ]
        end = mention.end
    return [piece for piece in (*pieces, _Piece(text[end:])) if piece.text]


def changed_text(before: str, after: str) -> list[_Piece]:
    """Cut the counterfactual text at the words that the text does not have."""
    old, new = before.split(" "), after.split(" ")
    pieces = []
    for kind, _, _, start, end in difflib.SequenceMatcher(a=old, b=new).get_opcodes():
        words = " ".join(new[start:end])
        if words:
            pieces += [_Piece(words, "" if kind == "equal" else "changed"), _Piece(" ")]
    return pieces[:-1]


def _boards(scored: Sequence[_Scored]) -> list[_Board]:
    groups: defaultdict[tuple[str, str, int], list[Scores]] = defaultdict(list)
    for each in scored:
        protocol = each.scores.protocol
        key = (protocol.benchmark, protocol.split, protocol.num_images)
        groups[key].append(each.scores)
    return [_board(group) for group in groups.values()]


def _board(group: Sequence[Scores]) -> _Board:
    protocol = group[0].protocol
    by_kind = {kind: [s for s in group if s.subject.kind == kind] for kind in _KINDS}
    shown = {kind: scores for kind, scores in by_kind.items() if scores}
    series = [_series_name(kind, scores) for kind, scores in shown.items()]
    classes, note = _class_ious(list(shown.values()))
    background = "with" if protocol.background else "without"
    names = len(protocol.class_names)
    return _Board(
        title=f"{protocol.benchmark}, {protocol.split}",
        note=(
            f"{protocol.num_images:,} images, {names:,} classes {background} background; mean over "
            f"the {protocol.average}. Numbers in percent."
        ),
        rows=[row for scores in shown.values() for row in _score_rows(scores)],
        published=group[0].published,
        series=series,
        classes=classes,
        classes_note=note,
        curve=_threshold_curve(list(shown.values()), series),
        curve_note=_curve_note(group[0]),
    )


def _series_name(kind: str, scores: Sequence[Scores]) -> str:
    name = {"student": "trained student", "untrained": "untrained student"}.get(kind)
    name = name or scores[0].subject.name
    return name if len(scores) == 1 else f"{name}, mean of {len(scores)}"


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
            protocol=_protocol_words(each),
            details=details,
        )
    if len(scores) > 1:
        yield _ScoreRow(
            name=f"mean and deviation of {len(scores)}",
            kind=scores[0].subject.kind,
            miou=_mean_and_deviation([s.miou for s in scores]),
            foreground=_mean_and_deviation([s.foreground_miou or 0.0 for s in scores]),
            accuracy=_mean_and_deviation([s.pixel_accuracy for s in scores]),
            protocol="sample standard deviation",
            details="",
        )


def _mean_and_deviation(values: Sequence[float]) -> str:
    return f"{100 * fmean(values):.1f} \u00b1 {100 * stdev(values):.1f}"


def _protocol_words(scores: Scores) -> str:
    protocol = scores.protocol
    rule = {
        Background.RAW: f"background where the best sigmoid score < {protocol.threshold:g}",
        Background.SOFTMAX: f"background where the best probability < {protocol.threshold:g}",
        Background.CONSTANT: f"background where the best score <= {protocol.threshold:g}",
        Background.NONE: "no background",
    }[protocol.background_rule]
    weights = scores.subject.fingerprint
    weights = weights if len(weights) < 60 else f"{weights[:12]}..."
    return f"{rule}; {protocol.text}; {protocol.view}; weights {weights}; {scores.seconds:.1f} s"


def _class_ious(groups: Sequence[Sequence[Scores]]) -> tuple[list[_ClassIou], str]:
    names = [row.name for row in groups[0][0].classes]
    columns = [[_mean_iou(scores, index) for scores in groups] for index in range(len(names))]
    rows = [_ClassIou(name, ious) for name, ious in zip(names, columns, strict=True)]
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


def _predictions(scored: Sequence[_Scored], side: int) -> tuple[list[_Prediction], list[_Object]]:
    """The kept images of the first benchmark, with every kind's first prediction."""
    if not scored:
        return [], []
    first = scored[0].scores.protocol
    where = (first.benchmark, first.split)
    same = [
        each
        for each in scored
        if (each.scores.protocol.benchmark, each.scores.protocol.split) == where
    ]
    chosen = [each for kind in _KINDS for each in _first_of_kind(same, kind)]
    names = first.class_names if first.background else ("", *first.class_names)
    seen: set[int] = set()
    rows = []
    for example in chosen[0].scores.examples:
        pictures, labels = _example_pictures(chosen, example, side)
        rows.append(_Prediction(pictures, example.key))
        seen |= labels
    shown = sorted(seen - {0, IGNORE_LABEL})
    return rows, [_Object(names[label], _css(label)) for label in shown]


def _first_of_kind(scored: Sequence[_Scored], kind: str) -> list[_Scored]:
    return [each for each in scored if each.scores.subject.kind == kind][:1]


def _example_pictures(
    chosen: Sequence[_Scored], example: Example, side: int
) -> tuple[list[_Picture], set[int]]:
    folder = chosen[0].folder
    background = chosen[0].scores.protocol.background
    image = decode_image(_file(folder / example.image))
    truth = _labels(folder / example.truth, background=background)
    pictures = [
        _picture(image, side, f"{example.key}", "image"),
        _picture(overlay(image, truth), side, f"truth of {example.key}", "truth"),
    ]
    seen = set(np.unique(truth).tolist())
    for each in chosen:
        match = next((e for e in each.scores.examples if e.key == example.key), None)
        if match is not None:
            found = _labels(each.folder / match.prediction, background=background)
            caption = each.scores.subject.kind
            alt = f"prediction of {each.scores.subject.name} for {example.key}"
            pictures.append(_picture(overlay(image, found), side, alt, caption))
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
        message = f"{path} is missing, though the scores name it: run {_COMMANDS['evaluate']} again"
        raise DataError(message) from error


def _training(name: str, rows: Sequence[Mapping[str, Any]]) -> _Training:
    seconds = sum(row["seconds"] for row in rows if isinstance(row.get("seconds"), int | float))
    took = f" in {seconds:,.0f} s" if seconds else ""
    keys = dict.fromkeys(key for row in rows for key in row if key not in _NOT_CURVES)
    charts = [_chart(key, rows) for key in keys]
    return _Training(
        name=name,
        note=f"{len(rows):,} updates{took}. Thin: every update; thick: moving mean.",
        charts=[chart for chart in charts if chart is not None],
    )


def _chart(key: str, rows: Sequence[Mapping[str, Any]]) -> _Chart | None:
    points = [
        (float(row["step"]), float(row[key]))
        for row in rows
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]
    if not points:
        return None
    title = _NOUNS.get(key, key.replace("_", " "))
    lines = [Line(title, tuple(points), faint=True), Line(title, tuple(smoothed(points)))]
    svg = line_chart(lines, Axes(x="step", y=title))
    first, last = points[0][1], points[-1][1]
    return _Chart(title, svg, f"{number(first)} at the start, {number(last)} at the end")


def _picture(
    image: UInt8[np.ndarray, "height width 3"], side: int, alt: str, caption: str = ""
) -> _Picture:
    """A JPEG data URI; large pictures are made smaller, small ones are enlarged by the browser."""
    longest = max(image.shape[:2])
    picture = resized(image, min(side, longest))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88, subsampling=0)
    uri = "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()
    return _Picture(uri, alt, pixels=longest <= _SHARP_BELOW, caption=caption)


def _css(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*class_colour(label))


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.3g} TB"
