"""What each class of the drawn world is drawn from: polygons and thick lines, back to front.

Points are in units of the radius, from the centre of the thing: x to the right, y down. A shape
spans about -1..1 both ways.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
"""x and y."""


@dataclass(frozen=True)
class Part:
    """One filled polygon or one thick line of a shape.

    Attributes:
        points: Corners or joints, float (points, 2), in units of the radius.
        paint: What it is filled with: "main" is the colour of the thing, "dark" and "light" are
            shades of it, the others are the same on every thing.
        width: Width of a line in units of the radius; 0 makes a polygon.
        body: Whether it gets an outline and belongs to the mask.
    """

    points: NDArray[np.float64]
    paint: str
    width: float = 0.0
    body: bool = True


def _poly(paint: str, *points: Point, body: bool = True) -> Part:
    return Part(np.array(points), paint, body=body)


def _line(paint: str, width: float, *points: Point, body: bool = True) -> Part:
    return Part(np.array(points), paint, width, body)


def _arc(
    x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 360.0
) -> list[Point]:
    """Points on an ellipse; angles in degrees, clockwise from the right."""
    count = max(5, int(22 * abs(stop - start) / 360))
    angles = np.radians(np.linspace(start, stop, count))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def _oval(paint: str, x: float, y: float, rx: float, ry: float, *, body: bool = True) -> Part:
    return _poly(paint, *_arc(x, y, rx, ry), body=body)


def _rect(
    paint: str, left: float, top: float, right: float, bottom: float, *, body: bool = True
) -> Part:
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return _poly(paint, *corners, body=body)


def _star_points() -> list[Point]:
    radii = (1.05, 0.46)
    angles = [math.radians(-90 + 36 * i) for i in range(10)]
    return [
        (radii[i % 2] * math.cos(a), 0.06 + radii[i % 2] * math.sin(a))
        for i, a in enumerate(angles)
    ]


# Asymmetric classes always look the same way: mirrored copies are hard to learn.
SHAPES: dict[str, tuple[Part, ...]] = {
    "balloon": (
        _line("ink", 0.09, (0.0, 0.55), (0.1, 0.7), (-0.06, 0.84), (0.04, 1.0)),
        _poly("dark", (0.0, 0.36), (0.17, 0.62), (-0.17, 0.62)),
        _oval("main", 0.0, -0.28, 0.66, 0.72),
        _oval("light", -0.26, -0.55, 0.14, 0.2, body=False),
    ),
    "bus": (
        _poly(
            "main",
            (-0.9, -0.62), (0.9, -0.62), (1.0, -0.5), (1.0, 0.44), (-1.0, 0.44), (-1.0, -0.5),
        ),
        _oval("tyre", -0.56, 0.44, 0.25, 0.25),
        _oval("tyre", 0.56, 0.44, 0.25, 0.25),
        _oval("cream", -0.56, 0.44, 0.1, 0.1, body=False),
        _oval("cream", 0.56, 0.44, 0.1, 0.1, body=False),
        _rect("glass", -0.84, -0.42, -0.46, -0.06, body=False),
        _rect("glass", -0.34, -0.42, 0.04, -0.06, body=False),
        _rect("glass", 0.16, -0.42, 0.54, -0.06, body=False),
        _rect("glass", 0.68, -0.42, 1.0, -0.02, body=False),
        _rect("dark", -0.98, 0.12, 0.98, 0.22, body=False),
    ),
    "cat": (
        _line("main", 0.24, (0.3, 0.8), (0.72, 0.78), (0.84, 0.5), (0.74, 0.2)),
        _oval("main", 0.0, 0.5, 0.46, 0.5),
        _poly("main", (-0.6, -1.0), (-0.08, -0.62), (-0.56, -0.25)),
        _poly("main", (0.6, -1.0), (0.08, -0.62), (0.56, -0.25)),
        _oval("main", 0.0, -0.32, 0.6, 0.46),
        _oval("ink", -0.24, -0.38, 0.09, 0.12, body=False),
        _oval("ink", 0.24, -0.38, 0.09, 0.12, body=False),
        _poly("pink", (-0.11, -0.19), (0.11, -0.19), (0.0, -0.07), body=False),
        _oval("light", 0.0, 0.55, 0.22, 0.28, body=False),
    ),
    "mushroom": (
        _poly("cream", (-0.24, -0.05), (0.24, -0.05), (0.36, 0.95), (-0.36, 0.95)),
        _poly("main", *_arc(0.0, 0.05, 1.0, 0.95, 180.0, 360.0)),
        _oval("snow", -0.45, -0.28, 0.16, 0.15, body=False),
        _oval("snow", 0.08, -0.58, 0.17, 0.15, body=False),
        _oval("snow", 0.5, -0.22, 0.15, 0.14, body=False),
    ),
    "fish": (
        _poly("dark", (0.35, 0.0), (1.0, -0.56), (0.82, 0.0), (1.0, 0.56)),
        _poly("dark", (-0.4, -0.4), (0.0, -0.82), (0.3, -0.35)),
        _oval("main", -0.26, 0.0, 0.74, 0.5),
        _line("dark", 0.09, (-0.36, -0.4), (-0.24, -0.15), (-0.24, 0.15), (-0.36, 0.4), body=False),
        _oval("snow", -0.62, -0.12, 0.15, 0.15, body=False),
        _oval("ink", -0.65, -0.12, 0.08, 0.08, body=False),
    ),
    "star": (_poly("main", *_star_points()),),
    "umbrella": (
        _line("brown", 0.13, (0.0, -0.3), (0.0, 0.72), (0.1, 0.9), (0.28, 0.9), (0.36, 0.7)),
        _poly(
            "main",
            *_arc(0.0, 0.0, 1.0, 0.92, 180.0, 360.0),
            *_arc(0.67, 0.0, 0.33, 0.16, 0.0, -180.0),
            *_arc(0.0, 0.0, 0.33, 0.16, 0.0, -180.0),
            *_arc(-0.67, 0.0, 0.33, 0.16, 0.0, -180.0),
        ),
        _line("dark", 0.08, (0.0, -0.9), (-0.34, -0.1), body=False),
        _line("dark", 0.08, (0.0, -0.9), (0.34, -0.1), body=False),
    ),
    "house": (
        _rect("main", -0.74, -0.14, 0.74, 0.94),
        _rect("brown", 0.36, -0.86, 0.6, -0.3),
        _poly("brown", (0.0, -0.98), (1.0, -0.08), (-1.0, -0.08)),
        _rect("ink", -0.52, 0.3, -0.12, 0.94, body=False),
        _rect("glass", 0.14, 0.16, 0.54, 0.52, body=False),
    ),
    "boat": (
        _line("brown", 0.12, (0.0, -0.96), (0.0, 0.4)),
        _poly("snow", (0.1, -0.9), (0.82, 0.24), (0.1, 0.24)),
        _poly("light", (-0.1, -0.7), (-0.1, 0.24), (-0.66, 0.24)),
        _poly("main", (-1.0, 0.36), (1.0, 0.36), (0.66, 0.88), (-0.66, 0.88)),
    ),
    "tree": (
        _rect("brown", -0.17, 0.5, 0.17, 1.0),
        _poly("main", (0.0, -0.35), (0.82, 0.62), (-0.82, 0.62)),
        _poly("main", (0.0, -0.72), (0.66, 0.16), (-0.66, 0.16)),
        _poly("main", (0.0, -1.0), (0.48, -0.3), (-0.48, -0.3)),
        _line("dark", 0.08, (-0.5, 0.16), (0.5, 0.16), body=False),
        _line("dark", 0.08, (-0.36, -0.3), (0.36, -0.3), body=False),
    ),
    "apple": (
        _line("brown", 0.14, (0.0, -0.4), (0.06, -0.9)),
        _poly("leaf", (0.08, -0.66), (0.34, -0.96), (0.7, -0.86), (0.46, -0.6)),
        _oval("main", -0.32, 0.18, 0.56, 0.68),
        _oval("main", 0.32, 0.18, 0.56, 0.68),
        _oval("main", 0.0, 0.3, 0.5, 0.6, body=False),
        _oval("light", -0.46, -0.06, 0.12, 0.22, body=False),
    ),
    "cactus": (
        _line("main", 0.3, (0.0, 0.36), (0.64, 0.36), (0.66, -0.28)),
        _line("main", 0.3, (0.0, 0.1), (-0.64, 0.1), (-0.66, -0.52)),
        _line("main", 0.46, (0.0, 0.92), (0.0, -0.74)),
        _oval("main", 0.0, -0.76, 0.23, 0.22),
        _line("dark", 0.07, (-0.08, -0.62), (-0.08, 0.86), body=False),
        _line("dark", 0.07, (0.09, -0.62), (0.09, 0.86), body=False),
    ),
    "cup": (
        _line("main", 0.18, *_arc(0.5, 0.1, 0.4, 0.36, -90.0, 90.0)),
        _poly("main", (-0.86, -0.6), (0.58, -0.6), (0.42, 0.78), (-0.7, 0.78)),
        _oval("light", -0.14, -0.6, 0.72, 0.18),
        _oval("brown", -0.14, -0.57, 0.56, 0.11, body=False),
    ),
    "rocket": (
        _poly("flame", (-0.22, 0.5), (0.22, 0.5), (0.0, 1.0)),
        _poly("dark", (-0.26, 0.0), (-0.72, 0.56), (-0.62, 0.8), (-0.2, 0.56)),
        _poly("dark", (0.26, 0.0), (0.72, 0.56), (0.62, 0.8), (0.2, 0.56)),
        _poly(
            "main",
            (0.0, -1.0),
            (0.22, -0.68),
            (0.34, -0.25),
            (0.34, 0.2),
            (0.24, 0.58),
            (-0.24, 0.58),
            (-0.34, 0.2),
            (-0.34, -0.25),
            (-0.22, -0.68),
        ),
        _oval("glass", 0.0, -0.22, 0.19, 0.19, body=False),
    ),
}  # fmt: skip
"""The parts of each class, back to front; the order is that of the class ids."""
