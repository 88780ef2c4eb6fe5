"""Drawn scenes with exact masks and boxes: the procedural world that the miniature models learn.

A `Scene` is a small record; everything visible is derived from it, so that the same record always
gives the same pixels. `render(scene, things=False)` draws the object-free twin of a scene. Scenes
are drawn four times too large and averaged down, which makes the edges smooth.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CANVAS = 64
"""Width and height of a scene in pixels."""

CLASSES = (
    "balloon",
    "bus",
    "cat",
    "mushroom",
    "fish",
    "star",
    "umbrella",
    "house",
    "boat",
    "tree",
    "apple",
    "cactus",
    "cup",
    "rocket",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white")
SIZES = ("small", "large")
BACKGROUNDS = ("meadow", "beach", "snow", "night", "room", "wall")

_SCALE = 4
_WIDE = CANVAS * _SCALE
_HORIZON = (0.54, 0.62)
_RADII = {"small": (9.0, 12.0), "large": (17.0, 22.0)}
_PAIR_RADII = {"small": (9.0, 11.5), "large": (13.0, 15.5)}
_INDOORS = ("room", "wall")

_Point = tuple[float, float]
_Rgb = tuple[int, int, int]

_RGB: dict[str, _Rgb] = {
    "red": (216, 38, 44),
    "orange": (248, 134, 18),
    "yellow": (252, 214, 42),
    "green": (44, 158, 66),
    "blue": (42, 98, 222),
    "purple": (142, 62, 184),
    "white": (246, 246, 246),
}
_INK: _Rgb = (32, 28, 40)
_PAINTS: dict[str, _Rgb] = {
    "ink": _INK,
    "snow": (250, 250, 250),
    "cream": (244, 226, 190),
    "brown": (122, 78, 44),
    "glass": (186, 226, 246),
    "tyre": (52, 50, 58),
    "leaf": (70, 150, 50),
    "flame": (255, 170, 30),
    "pink": (240, 130, 140),
}


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        class_id: Index into `CLASSES`.
        colour: One of `COLOURS`.
        size: One of `SIZES`.
        x: Centre in pixels from the left.
        y: Centre in pixels from the top.
        radius: Half of the larger side in pixels.
    """

    class_id: int
    colour: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """All that a picture is drawn from.

    Attributes:
        background: One of `BACKGROUNDS`.
        things: The objects; later ones hide earlier ones.
        seed: Decides the jitter of the background, the shapes and the clutter.
        clutter: Names of the distractors, which have no class and no mask.
    """

    background: str
    things: tuple[Thing, ...]
    seed: int
    clutter: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Part:
    """One filled polygon, or a thick line when `width` is not 0, in units of the radius."""

    points: NDArray[np.float64]
    paint: str
    width: float = 0.0
    body: bool = True


def _poly(paint: str, *points: _Point, body: bool = True) -> _Part:
    return _Part(np.array(points), paint, body=body)


def _line(paint: str, width: float, *points: _Point, body: bool = True) -> _Part:
    return _Part(np.array(points), paint, width, body)


def _arc(
    x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 360.0
) -> list[_Point]:
    """Points on an ellipse; angles in degrees, clockwise from the right."""
    count = max(5, int(22 * abs(stop - start) / 360))
    angles = np.radians(np.linspace(start, stop, count))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def _oval(paint: str, x: float, y: float, rx: float, ry: float, *, body: bool = True) -> _Part:
    return _poly(paint, *_arc(x, y, rx, ry), body=body)


def _rect(
    paint: str, left: float, top: float, right: float, bottom: float, *, body: bool = True
) -> _Part:
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return _poly(paint, *corners, body=body)


def _star_points() -> list[_Point]:
    radii = (1.05, 0.46)
    angles = [math.radians(-90 + 36 * i) for i in range(10)]
    return [
        (radii[i % 2] * math.cos(a), 0.06 + radii[i % 2] * math.sin(a))
        for i, a in enumerate(angles)
    ]


# What is drawn for each class, back to front. "main" is the colour of the thing, "dark" and "light"
# are shades of it. Asymmetric classes always look the same way: mirrored copies are hard to learn.
_SHAPES: dict[str, tuple[_Part, ...]] = {
    "balloon": (
        _line("ink", 0.09, (0.0, 0.55), (0.1, 0.7), (-0.06, 0.84), (0.04, 1.0)),
        _poly("dark", (0.0, 0.36), (0.17, 0.62), (-0.17, 0.62)),
        _oval("main", 0.0, -0.28, 0.66, 0.72),
        _oval("light", -0.26, -0.55, 0.14, 0.2, body=False),
    ),
    "bus": (
        _poly("main", (-0.9, -0.62), (0.9, -0.62), (1, -0.5), (1.0, 0.44), (-1, 0.44), (-1, -0.5)),
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
        _poly("main", *_arc(0.0, 0.05, 1.0, 0.95, 180, 360)),
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
            *_arc(0.0, 0.0, 1.0, 0.92, 180, 360),
            *_arc(0.67, 0.0, 0.33, 0.16, 0, -180),
            *_arc(0.0, 0.0, 0.33, 0.16, 0, -180),
            *_arc(-0.67, 0.0, 0.33, 0.16, 0, -180),
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
        _line("main", 0.18, *_arc(0.5, 0.1, 0.4, 0.36, -90, 90)),
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


def sample_scene(
    rng: np.random.Generator,
    *,
    num_things: int = 1,
    hard: float = 0.0,
    class_ids: Collection[int] | None = None,
    background: str | None = None,
    exclude: Collection[tuple[int, str]] = (),
) -> Scene:
    """Draw a random scene record.

    Args:
        rng: The only source of randomness.
        num_things: 0, 1 or 2 objects, all of different classes.
        hard: From 0 (large, near the centre, no clutter) to 1 (small and large, anywhere, clutter
            in 60 % of the scenes).
        class_ids: The classes to choose from, without replacement; all when None. As many ids as
            things means exactly those classes.
        background: One of `BACKGROUNDS`; random when None.
        exclude: Pairs (class id, background) that must not occur together.

    Raises:
        ValueError: If no class is left for some thing, or there are more than two things.
    """
    if not 0 <= num_things <= 2:
        message = f"num_things is {num_things}, expected 0, 1 or 2: draw another scene"
        raise ValueError(message)
    pool = list(range(len(CLASSES)) if class_ids is None else class_ids)
    places = [background] if background is not None else list(BACKGROUNDS)
    rng.shuffle(places)
    for place in places:
        allowed = [c for c in pool if (c, place) not in exclude]
        if len(allowed) >= num_things:
            break
    else:
        message = f"fewer than {num_things} of {len(pool)} classes may be on {places}: exclude less"
        raise ValueError(message)
    chosen = [int(c) for c in rng.choice(allowed, num_things, replace=False)] if num_things else []
    return Scene(
        background=place,
        things=_place(rng, chosen, hard),
        seed=int(rng.integers(2**31)),
        clutter=_clutter(rng, place) if rng.random() < 0.6 * hard else (),
    )


def _place(rng: np.random.Generator, chosen: list[int], hard: float) -> tuple[Thing, ...]:
    """Give each class a colour, a size and a place; two things overlap a little at most."""
    anchors = ((32.0, 33.0),) if len(chosen) == 1 else ((17.0, 34.0), (47.0, 34.0))
    radii = _RADII if len(chosen) == 1 else _PAIR_RADII
    while True:
        things = []
        for class_id, anchor in zip(chosen, anchors, strict=False):
            size = "small" if rng.random() < 0.45 * hard else "large"
            radius = float(rng.uniform(*radii[size]))
            x, y = (_coordinate(rng, a, radius, hard) for a in anchor)
            colour = COLOURS[int(rng.integers(len(COLOURS)))]
            things.append(Thing(class_id, colour, size, x, y, radius))
        if len(things) < 2:
            return tuple(things)
        first, second = things
        gap = math.hypot(first.x - second.x, first.y - second.y)
        if gap >= 0.95 * (first.radius + second.radius):
            return tuple(things)


def _coordinate(rng: np.random.Generator, anchor: float, radius: float, hard: float) -> float:
    """A coordinate near the anchor, or, with probability `hard`, anywhere inside the canvas."""
    low, high = radius + 1, CANVAS - radius - 1
    if rng.random() < hard:
        return float(rng.uniform(low, high))
    return float(np.clip(anchor + rng.uniform(-3, 3), low, high))


def _clutter(rng: np.random.Generator, background: str) -> tuple[str, ...]:
    if background in _INDOORS:
        return ("window",)
    sky = "moon" if background == "night" else ("sun", "cloud")[int(rng.integers(2))]
    choices = ((sky,), ("fence",), (sky, "fence"))
    return choices[int(rng.integers(3))]


def render(scene: Scene, *, things: bool = True) -> NDArray[np.uint8]:
    """Draw the scene.

    Args:
        scene: What to draw.
        things: False leaves the objects out; every pixel that no object touches stays the same.

    Returns:
        uint8 of shape (64, 64, 3).
    """
    rng = np.random.default_rng(scene.seed)
    image = Image.new("RGB", (_WIDE, _WIDE))
    draw = ImageDraw.Draw(image)
    _BACKDROPS[scene.background](draw, rng)
    for name in scene.clutter:
        _DISTRACTORS[name](draw, rng)
    if things:
        for index, thing in enumerate(scene.things):
            _draw_thing(draw, thing, _stretch(scene.seed, index), _palette(thing.colour))
    return np.asarray(image.reduce(_SCALE))


def masks(scene: Scene) -> NDArray[np.bool_]:
    """Visible pixels of each thing, at least half covered; shape (things, 64, 64)."""
    covers = np.zeros((len(scene.things), CANVAS, CANVAS), dtype=np.int16)
    for index, thing in enumerate(scene.things):
        image = Image.new("L", (_WIDE, _WIDE))
        _draw_thing(ImageDraw.Draw(image), thing, _stretch(scene.seed, index), None)
        covers[index] = np.asarray(image.reduce(_SCALE))
    visible = covers >= 128
    for index in range(len(scene.things) - 1):
        visible[index] &= ~visible[index + 1 :].any(axis=0)
    return visible


def boxes(scene: Scene) -> NDArray[np.float32]:
    """Tight boxes (left, top, right, bottom) in pixels, far edges exclusive; shape (things, 4).

    A thing that is wholly hidden has the box 0, 0, 0, 0.
    """
    found = np.zeros((len(scene.things), 4), dtype=np.float32)
    for index, mask in enumerate(masks(scene)):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size:
            found[index] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return found


def _stretch(seed: int, index: int) -> tuple[float, float]:
    """Width and height factors of a thing: no two cups are quite the same."""
    factors = np.random.default_rng((seed, index)).uniform(0.9, 1.0, 2)
    return float(factors[0]), float(factors[1])


@cache
def _palette(colour: str) -> dict[str, _Rgb]:
    main = np.array(_RGB[colour], dtype=np.float64)
    shades = {"main": main, "dark": main * 0.7, "light": main + (255 - main) * 0.55}
    return _PAINTS | {name: _rgb(shade) for name, shade in shades.items()}


def _rgb(values: NDArray[np.float64]) -> _Rgb:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


def _draw_thing(
    draw: ImageDraw.ImageDraw,
    thing: Thing,
    stretch: tuple[float, float],
    palette: dict[str, _Rgb] | None,
) -> None:
    """Draw one thing: the outline of all body parts first, then the parts. No palette: a mask."""
    unit = thing.radius * _SCALE
    scale = np.array(stretch) * unit
    centre = np.array((thing.x, thing.y)) * _SCALE
    border = max(3, round(0.045 * unit))
    parts = _SHAPES[CLASSES[thing.class_id]]
    lines = [(part.points * scale + centre).ravel().tolist() for part in parts]
    ink = _INK if palette else 255
    for part, points in zip(parts, lines, strict=True):
        if part.body:
            closed = points if part.width else points + points[:4]
            draw.line(closed, ink, round(part.width * unit) + 2 * border, joint="curve")
            if not part.width:
                draw.polygon(points, ink)
    if palette is None:
        return
    for part, points in zip(parts, lines, strict=True):
        if part.width:
            draw.line(points, palette[part.paint], max(1, round(part.width * unit)), joint="curve")
        else:
            draw.polygon(points, palette[part.paint])


def _shade(rng: np.random.Generator, rgb: _Rgb) -> _Rgb:
    """The colour a little lighter or darker."""
    shift = int(rng.integers(-8, 9))
    red, green, blue = (min(255, max(0, v + shift)) for v in rgb)
    return red, green, blue


def _ground(draw: ImageDraw.ImageDraw, rng: np.random.Generator, sky: _Rgb, land: _Rgb) -> int:
    """Sky above, land below; returns the row of the horizon on the wide canvas."""
    horizon = int(_WIDE * rng.uniform(*_HORIZON))
    draw.rectangle((0, 0, _WIDE, horizon), _shade(rng, sky))
    draw.rectangle((0, horizon, _WIDE, _WIDE), _shade(rng, land))
    return horizon


def _meadow(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (152, 208, 246), (126, 196, 98))
    for x, y in rng.uniform((0, horizon + 12), (_WIDE, _WIDE), (7, 2)).tolist():
        draw.polygon((x - 7, y, x, y - 14, x + 7, y), (84, 156, 66))


def _beach(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (176, 224, 250), (240, 218, 160))
    draw.rectangle((0, horizon - 44, _WIDE, horizon), (54, 146, 190))
    draw.rectangle((0, horizon - 6, _WIDE, horizon + 4), (232, 244, 248))


def _snow(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (178, 194, 214), (236, 242, 248))
    x = int(rng.integers(30, _WIDE - 30))
    draw.ellipse((x - 110, horizon - 30, x + 110, horizon + 60), (236, 242, 248))
    for left, top in rng.uniform(0, (_WIDE, horizon - 30), (5, 2)).tolist():
        draw.ellipse((left, top, left + 8, top + 8), (250, 252, 255))


def _night(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (28, 30, 78), (30, 54, 52))
    for left, top in rng.uniform(0, (_WIDE, horizon - 10), (5, 2)).tolist():
        draw.ellipse((left, top, left + 8, top + 8), (240, 236, 190))


def _room(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (236, 212, 186), (164, 112, 72))
    draw.rectangle((0, horizon - 8, _WIDE, horizon + 2), (250, 244, 234))


def _wall(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, _WIDE, _WIDE), _shade(rng, (190, 122, 100)))
    mortar = (222, 204, 190)
    for row in range(0, _WIDE, 32):
        draw.rectangle((0, row, _WIDE, row + 3), mortar)
        for column in range(row % 64, _WIDE, 64):
            draw.rectangle((column, row, column + 3, row + 31), mortar)


def _sun(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x, y, r = (
        int(rng.integers(24, _WIDE - 24)),
        int(rng.integers(22, 44)),
        int(rng.integers(18, 26)),
    )
    draw.ellipse((x - r, y - r, x + r, y + r), (255, 236, 120))


def _moon(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x, y, r = (
        int(rng.integers(24, _WIDE - 24)),
        int(rng.integers(22, 44)),
        int(rng.integers(16, 24)),
    )
    draw.ellipse((x - r, y - r, x + r, y + r), (236, 234, 210))
    draw.ellipse((x - r // 2, y - r, x + r + r // 2, y + r - 4), (28, 30, 78))


def _cloud(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x, y = int(rng.integers(36, _WIDE - 36)), int(rng.integers(24, 48))
    for dx, dy, r in ((-22, 4, 14), (0, -4, 20), (22, 4, 14)):
        draw.ellipse((x + dx - r, y + dy - r, x + dx + r, y + dy + r), (250, 250, 252))


def _fence(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    y, wood = int(rng.integers(140, 156)), (178, 146, 108)
    draw.rectangle((0, y, _WIDE, y + 6), wood)
    draw.rectangle((0, y + 20, _WIDE, y + 26), wood)
    for x in range(int(rng.integers(0, 36)), _WIDE, 36):
        draw.rectangle((x, y - 12, x + 8, y + 38), wood)


def _window(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x, y = int(rng.integers(10, _WIDE - 80)), int(rng.integers(8, 30))
    draw.rectangle((x, y, x + 68, y + 76), (250, 248, 240))
    for left in (x + 6, x + 37):
        for top in (y + 6, y + 41):
            draw.rectangle((left, top, left + 25, top + 29), (164, 206, 230))


_Drawer = Callable[[ImageDraw.ImageDraw, np.random.Generator], None]

_BACKDROPS: dict[str, _Drawer] = {
    "meadow": _meadow,
    "beach": _beach,
    "snow": _snow,
    "night": _night,
    "room": _room,
    "wall": _wall,
}
_DISTRACTORS: dict[str, _Drawer] = {
    "sun": _sun,
    "moon": _moon,
    "cloud": _cloud,
    "fence": _fence,
    "window": _window,
}
