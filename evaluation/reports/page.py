"""The report: one self-contained HTML page about a dataset and the runs made from it.

The page fetches nothing: pictures are data URIs, charts are inline SVG, and every text from outside
is escaped. A section without data says what is missing and which command makes it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evaluation.reports.boards import Board, Prediction, Scored, make_boards, make_predictions
from evaluation.reports.charts import Axes, Line, line_chart, number, smoothed
from evaluation.reports.gallery import QuadrupletCard, Thing, quadruplet_card
from evaluation.reports.point_boards import PointBoard, make_point_boards
from evaluation.reports.sheets import pick_samples
from evaluation.reports.yields import ClassYield, StageYield, Yields, count_yields
from evaluation.scoring.measured import read_measured
from evaluation.scoring.point_results import PointScores
from storage.errors import DataError, InputError
from storage.shards import Sample
from storage.store import Store
from storage.summaries import CommittedShard

MAX_PAGE_BYTES = 3_000_000
"""Largest page; its pictures are made smaller until it fits."""

METRICS_FILE = "metrics.jsonl"

_SIDES = (224, 160, 112, 72)
_NUM_QUADRUPLETS = 18
_MAX_CLASSES = 40
_MAX_SHARDS_LISTED = 400
_COMMANDS = {
    "generate": "magicseg generate",
    "train": "magicseg train",
    "evaluate": "magicseg evaluate",
    "verify": "magicseg verify",
}
_NOT_CURVES = frozenset({"step", "epoch", "seconds", "time"})
_NOUNS = {"lr": "learning rate", "gradient": "gradient norm"}


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
    quadruplets: list[QuadrupletCard]
    benchmarks: list[Board]
    points: list[PointBoard]
    predictions: list[Prediction]
    prediction_classes: list[Thing]
    trainings: list[_Training]


@dataclass
class _Sources:
    """Everything that was read before anything is drawn."""

    title: str
    store: Store | None
    samples: list[Sample]
    yields: Yields | None
    scored: list[Scored] = field(default_factory=list)
    points: list[PointScores] = field(default_factory=list)
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
            scores = read_measured(path)
            if isinstance(scores, PointScores):
                sources.points.append(scores)
            else:
                sources.scored.append(Scored(scores, path.parent))
        for path in sorted(run.rglob(METRICS_FILE)):
            label = str(path.parent.relative_to(run.parent))
            sources.metrics.append((label, read_metrics(path)))
    return sources


def _render(sources: _Sources, side: int) -> str:
    environment = Environment(
        loader=PackageLoader("evaluation.reports", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.jinja")
    return template.render(page=_page(sources, side))


def _page(sources: _Sources, side: int) -> _Page:
    dataset = _dataset(sources)
    predictions, classes = make_predictions(sources.scored, side)
    made = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")
    return _Page(
        title=sources.title,
        subtitle=dataset.root if dataset else "No dataset, runs only.",
        made=f"Made {made} by MagicSeg Engine {version('magicseg-engine')}.",
        tiles=_tiles(dataset, sources.scored),
        commands=_COMMANDS,
        dataset=dataset,
        quadruplets=[quadruplet_card(sample, side) for sample in sources.samples],
        benchmarks=make_boards(sources.scored),
        points=make_point_boards(sources.points),
        predictions=predictions,
        prediction_classes=classes,
        trainings=[_training(name, rows) for name, rows in sources.metrics if rows],
    )


def _tiles(dataset: _Dataset | None, scored: Sequence[Scored]) -> list[_Tile]:
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


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.3g} TB"


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
