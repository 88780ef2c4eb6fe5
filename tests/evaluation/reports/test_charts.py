"""Line charts as inline SVG."""

import math
import xml.etree.ElementTree as ET

import pytest

from evaluation.reports.charts import Axes, Line, line_chart, number, smoothed, ticks

AXES = Axes(x="step", y="loss")


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    found = ET.fromstring(svg).iter("polyline")  # noqa: S314 - our own output
    return [
        [
            (float(x), float(y))
            for x, y in (pair.split(",") for pair in line.attrib["points"].split())
        ]
        for line in found
    ]


def test_a_line_rises_on_the_canvas_where_its_values_rise() -> None:
    [points] = polylines(line_chart([Line("a", ((0, 1), (5, 2), (10, 4)))], AXES))
    xs, ys = zip(*points, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2)


def test_names_are_escaped() -> None:
    svg = line_chart([Line("<script>x</script>", ((0, 1), (1, 2)))], Axes(x="<b>", y='"y"'))
    assert "<script>" not in svg
    assert "<b>" not in svg
    ET.fromstring(svg)  # noqa: S314 - our own output


def test_values_that_are_not_finite_are_left_out() -> None:
    line = Line("a", ((0, 1), (1, math.nan), (2, math.inf), (3, 2)))
    [points] = polylines(line_chart([line], AXES))
    assert len(points) == 2
    assert line_chart([Line("a", ((0, math.nan),))], AXES) == ""


def test_a_constant_line_and_a_single_point_can_be_drawn() -> None:
    for points in (((0.0, 3.0), (1.0, 3.0)), ((2.0, 0.0),)):
        assert polylines(line_chart([Line("a", points)], AXES))


def test_long_lines_are_thinned_and_keep_both_ends() -> None:
    points = tuple((float(x), math.sin(x / 900)) for x in range(5000))
    [drawn] = polylines(line_chart([Line("a", points)], AXES))
    assert len(drawn) == 400
    [ends] = polylines(line_chart([Line("a", (points[0], points[-1]))], AXES))
    assert (drawn[0][0], drawn[-1][0]) == (ends[0][0], ends[-1][0])


def test_the_moving_mean_keeps_length_and_mean_of_a_straight_line() -> None:
    line = [(float(x), 2.0 * x) for x in range(200)]
    means = smoothed(line, share=0.1)
    assert len(means) == 200
    assert means[100] == pytest.approx(line[100])
    assert smoothed(line[:5], share=0.1) == line[:5]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 600, [0, 200, 400, 600]),
        (0.3, 0.52, [0.3, 0.4, 0.5]),
    ],
)
def test_ticks_are_round_numbers_inside_the_range(
    low: float, high: float, expected: list[float]
) -> None:
    count = 5 if high == 1 else 3
    assert ticks(low, high, count) == pytest.approx(expected)


def test_numbers_are_short() -> None:
    values = (0, 0.00015, 0.0001, 0.35, 12.345, 1500, 2_500_000, -3000)
    shown = ["0", "1.5e-4", "1e-4", "0.35", "12.3", "1.5k", "2.5M", "-3k"]
    assert [number(value) for value in values] == shown
