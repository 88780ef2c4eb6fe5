"""Training curves: what a run logged, as charts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evaluation.reports.charts import Axes, Line, line_chart, number, smoothed
from storage.metrics import MetricsRow

_NOT_CURVES = frozenset({"step", "epoch", "seconds", "time"})
_NOUNS = {"lr": "learning rate", "gradient": "gradient norm"}


@dataclass(frozen=True)
class Chart:
    """One curve.

    Attributes:
        title: What is drawn.
        svg: The drawing.
        note: First and last value.
    """

    title: str
    svg: Markup
    note: str


@dataclass(frozen=True)
class TrainingCurves:
    """The curves of a run.

    Attributes:
        name: Folder of the run.
        note: How many updates, and how long they took.
        charts: One for each number that was logged.
    """

    name: str
    note: str
    charts: list[Chart]


def draw_training(name: str, rows: Sequence[MetricsRow]) -> TrainingCurves:
    """Draw every number of a training log over the steps.

    Args:
        name: What the page calls the run.
        rows: As `storage.metrics` reads them.
    """
    seconds = sum(row["seconds"] for row in rows if isinstance(row.get("seconds"), int | float))
    took = f" in {seconds:,.0f} s" if seconds else ""
    charts = [_chart(title, points) for title, points in curve_points(rows).items()]
    return TrainingCurves(
        name=name,
        note=f"{len(rows):,} updates{took}. Thin: every update; thick: moving mean.",
        charts=charts,
    )


def curve_points(rows: Sequence[MetricsRow]) -> dict[str, list[tuple[float, float]]]:
    """Every number of a training log over the steps, by what it is; no finite one, no curve."""
    keys = dict.fromkeys(key for row in rows for key in row if key not in _NOT_CURVES)
    found = {_NOUNS.get(key, key.replace("_", " ")): _points(key, rows) for key in keys}
    return {title: points for title, points in found.items() if points}


def _points(key: str, rows: Sequence[MetricsRow]) -> list[tuple[float, float]]:
    return [
        (float(row["step"]), float(row[key]))
        for row in rows
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]


def _chart(title: str, points: Sequence[tuple[float, float]]) -> Chart:
    lines = [Line(title, tuple(points), faint=True), Line(title, tuple(smoothed(points)))]
    svg = line_chart(lines, Axes(x="step", y=title))
    first, last = points[0][1], points[-1][1]
    return Chart(title, svg, f"{number(first)} at the start, {number(last)} at the end")
