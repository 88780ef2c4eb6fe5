"""Line charts as inline SVG: no script, no request, colours from the page's style sheet.

A chart is drawn on a small canvas, so that its labels stay readable when a phone shrinks it. Lines
have the CSS classes ``line s0``, ``line s1`` and so on; the page gives them their colours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from markupsafe import Markup

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 20, 36
_MAX_POINTS = 400
_MAX_DOTS = 40
_STYLES = 5


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: What the legend and the tooltips call it.
        points: (x, y) in ascending x; not finite values are left out.
        style: Number of its colour; the page has five, which then come again.
        faint: Whether it is drawn thin behind the others, without a legend.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    style: int = 0
    faint: bool = False


@dataclass(frozen=True)
class Axes:
    """The axes and marks around the lines.

    Attributes:
        x: Label of the horizontal axis.
        y: What is drawn; it is the chart's name for screen readers.
        y_range: Least and greatest value shown; from the data when None.
        marks: Vertical lines: (x, label).
    """

    x: str
    y: str
    y_range: tuple[float, float] | None = None
    marks: tuple[tuple[float, str], ...] = ()


def line_chart(lines: Sequence[Line], axes: Axes) -> Markup:
    """Draw lines over common axes.

    Returns:
        An ``<svg>`` element; empty markup if no line has a finite point.
    """
    shown = [line for line in map(_drawable, lines) if line.points]
    if not shown:
        return Markup("")
    frame = _Frame.around([*chain.from_iterable(line.points for line in shown)], axes)
    parts = [*_grid(frame), *_axis_labels(frame, axes)]
    parts += [_mark(frame, x, label) for x, label in axes.marks]
    for line in shown:
        parts += _line_parts(frame, line)
    names = ", ".join(line.name for line in shown if not line.faint)
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{label}">{body}</svg>'
    ).format(w=_WIDTH, h=_HEIGHT, label=f"{axes.y}: {names}", body=Markup("").join(parts))


def smoothed(
    points: Sequence[tuple[float, float]], share: float = 0.05
) -> list[tuple[float, float]]:
    """A moving mean over a share of the points, of which half lie before and half after."""
    half = int(len(points) * share / 2)
    totals = [0.0]
    for _, y in points:
        totals.append(totals[-1] + y)
    means = []
    for index, (x, _) in enumerate(points):
        first, last = max(0, index - half), min(len(points), index + half + 1)
        means.append((x, (totals[last] - totals[first]) / (last - first)))
    return means


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    rough = (high - low) / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(s * magnitude for s in (1, 2, 2.5, 5, 10) if s * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """A number as short as its size allows: 12k, 350, 0.35, 1.5e-4."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value / 1000:.4g}k" if abs(value) < 1e6 else f"{value / 1e6:.4g}M"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class _Frame:
    """Maps data to the canvas."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]], axes: Axes) -> "_Frame":
        xs = [x for x, _ in points] + [x for x, _ in axes.marks]
        x_low, x_high = _widened(min(xs), max(xs))
        if axes.y_range is not None:
            return cls(x_low, x_high, *axes.y_range)
        ys = [y for _, y in points]
        low, high = _widened(min(ys), max(ys))
        # Start at 0 unless that would flatten the line.
        low = 0.0 if 0 <= low < 0.6 * high else low
        return cls(x_low, x_high, low, high + 0.05 * (high - low))

    def x(self, value: float) -> float:
        inside = _WIDTH - _LEFT - _RIGHT
        return round(_LEFT + inside * (value - self.x_low) / (self.x_high - self.x_low), 1)

    def y(self, value: float) -> float:
        inside = _HEIGHT - _TOP - _BOTTOM
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(_HEIGHT - _BOTTOM - inside * min(max(share, 0), 1), 1)


def _widened(low: float, high: float) -> tuple[float, float]:
    if high > low:
        return low, high
    margin = abs(low) * 0.1 or 1.0
    return low - margin, high + margin


def _drawable(line: Line) -> Line:
    """The line without points that are not finite, and with no more than a chart can show."""
    points = [(x, y) for x, y in line.points if math.isfinite(x) and math.isfinite(y)]
    if len(points) > _MAX_POINTS:
        step = (len(points) - 1) / (_MAX_POINTS - 1)
        points = [points[round(index * step)] for index in range(_MAX_POINTS)]
    return replace(line, points=tuple(points))


def _line_parts(frame: _Frame, line: Line) -> list[Markup]:
    """A line, with dots where there are few points."""
    dots = line.points if len(line.points) <= _MAX_DOTS and not line.faint else ()
    return [_polyline(frame, line), *(_dot(frame, line, point) for point in dots)]


def _grid(frame: _Frame) -> list[Markup]:
    parts = []
    for value in ticks(frame.y_low, frame.y_high, 4):
        y = frame.y(value)
        rule = Markup('<line class="rule" x1="{}" x2="{}" y1="{y}" y2="{y}"/>')
        text = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
        parts.append(rule.format(_LEFT, _WIDTH - _RIGHT, y=y))
        parts.append(text.format(_LEFT - 6, y + 4, number(value)))
    for value in ticks(frame.x_low, frame.x_high, 5):
        text = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
        parts.append(text.format(frame.x(value), _HEIGHT - _BOTTOM + 16, number(value)))
    return parts


def _axis_labels(frame: _Frame, axes: Axes) -> list[Markup]:
    base = Markup('<line class="axis" x1="{}" x2="{}" y1="{y}" y2="{y}"/>')
    text = Markup('<text class="axis-label" x="{}" y="{}" text-anchor="end">{}</text>')
    return [
        base.format(_LEFT, _WIDTH - _RIGHT, y=frame.y(frame.y_low)),
        text.format(_WIDTH - _RIGHT, _HEIGHT - 4, axes.x),
    ]


def _mark(frame: _Frame, value: float, label: str) -> Markup:
    x = frame.x(value)
    left = x > _WIDTH * 0.7
    return Markup(
        '<line class="mark" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'
        '<text class="tick" x="{text_x}" y="{text_y}" text-anchor="{anchor}">{label}</text>'
    ).format(
        x=x,
        top=_TOP,
        bottom=_HEIGHT - _BOTTOM,
        text_x=x - 4 if left else x + 4,
        text_y=_TOP - 6,
        anchor="end" if left else "start",
        label=label,
    )


def _polyline(frame: _Frame, line: Line) -> Markup:
    path = " ".join(f"{frame.x(x):g},{frame.y(y):g}" for x, y in line.points)
    kind = "faint" if line.faint else "line"
    return Markup('<polyline class="{} s{}" points="{}"><title>{}</title></polyline>').format(
        kind, line.style % _STYLES, path, line.name
    )


def _dot(frame: _Frame, line: Line, point: tuple[float, float]) -> Markup:
    x, y = point
    tooltip = f"{line.name}: {number(y)} at {number(x)}"
    return Markup(
        '<circle class="dot s{}" cx="{}" cy="{}" r="2.6"><title>{}</title></circle>'
    ).format(line.style % _STYLES, frame.x(x), frame.y(y), tooltip)
