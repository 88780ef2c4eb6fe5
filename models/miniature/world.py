"""The drawn world that the miniatures learn: scenes with exact masks and boxes.

A `Scene` is a small record; everything visible is derived from it, so that the same record always
gives the same pixels. `render(scene, things=False)` draws the object-free twin of a scene. Scenes
are drawn four times too large and averaged down, which makes the edges smooth. What the classes
look like is in `shapes`, backgrounds and clutter are in `backdrops`.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.miniature.backdrops import BACKDROPS, CLUTTER, WIDE, Rgb
from models.miniature.shapes import SHAPES

CANVAS = 64
"""Width and height of a scene in pixels."""

CLASSES = tuple(SHAPES)
"""Names of the classes; the place of a name is its class id."""

SIZES = ("small", "large")
_RGB: dict[str, Rgb] = {
    "red": (216, 38, 44),
    "orange": (248, 134, 18),
    "yellow": (252, 214, 42),
    "green": (44, 158, 66),
    "blue": (42, 98, 222),
    "purple": (142, 62, 184),
    "white": (246, 246, 246),
}
COLOURS = tuple(_RGB)
BACKGROUNDS = tuple(BACKDROPS)
_SCALE = WIDE // CANVAS  # pixels of the sheet for one of the picture
_RADII = {"small": (9.0, 12.0), "large": (17.0, 22.0)}
_PAIR_RADII = {"small": (9.0, 11.5), "large": (13.0, 15.5)}
_INDOORS = ("room", "wall")
_INK: Rgb = (32, 28, 40)
_PAINTS: dict[str, Rgb] = {
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
        clutter: What else is drawn, names in `backdrops.CLUTTER`; it has no class and no mask.
    """

    background: str
    things: tuple[Thing, ...]
    seed: int
    clutter: tuple[str, ...] = ()


def sample_scene(
    rng: np.random.Generator,
    *,
    num_things: int = 1,
    hard: float = 0.0,
    class_ids: Collection[int] | None = None,
    background: str | None = None,
    exclude: Collection[tuple[int, str]] = (),
) -> Scene:
    """Make up a random scene.

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
    """Names of clutter that suits a background."""
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
    image = Image.new("RGB", (WIDE, WIDE))
    draw = ImageDraw.Draw(image)
    BACKDROPS[scene.background](draw, rng)
    for name in scene.clutter:
        CLUTTER[name](draw, rng)
    if things:
        for index, thing in enumerate(scene.things):
            _draw_thing(draw, thing, _proportions(scene.seed, index), _palette(thing.colour))
    return np.asarray(image.reduce(_SCALE))  # mean of 4 x 4: (256, 256, 3) to (64, 64, 3)


def masks(scene: Scene) -> NDArray[np.bool_]:
    """Visible pixels of each thing, at least half covered; bool (things, 64, 64)."""
    covers = np.zeros((len(scene.things), CANVAS, CANVAS), dtype=np.int16)
    for index, thing in enumerate(scene.things):
        image = Image.new("L", (WIDE, WIDE))
        _draw_thing(ImageDraw.Draw(image), thing, _proportions(scene.seed, index), None)
        covers[index] = np.asarray(image.reduce(_SCALE))  # (64, 64), 255 where wholly covered
    visible = covers >= 128  # (things, 64, 64)
    for index in range(len(scene.things) - 1):
        visible[index] &= ~visible[index + 1 :].any(axis=0)  # less what later things cover
    return visible


def boxes(scene: Scene) -> NDArray[np.float32]:
    """Tight boxes (left, top, right, bottom) in pixels, far edges exclusive; shape (things, 4).

    A thing that is wholly hidden has the box 0, 0, 0, 0.
    """
    tight = np.zeros((len(scene.things), 4), dtype=np.float32)
    for index, mask in enumerate(masks(scene)):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if rows.size:
            tight[index] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return tight


def _proportions(seed: int, index: int) -> tuple[float, float]:
    """Factors 0.9 to 1 on the width and height of a thing: no two cups are quite the same."""
    factors = np.random.default_rng((seed, index)).uniform(0.9, 1.0, 2)
    return float(factors[0]), float(factors[1])


@cache
def _palette(colour: str) -> dict[str, Rgb]:
    """What each paint is on a thing of a colour."""
    main = np.array(_RGB[colour], dtype=np.float64)
    shades = {"main": main, "dark": main * 0.7, "light": main + (255 - main) * 0.55}
    return _PAINTS | {name: _rgb(shade) for name, shade in shades.items()}


def _rgb(values: NDArray[np.float64]) -> Rgb:
    red, green, blue = (int(value) for value in values)
    return red, green, blue


def _draw_thing(
    draw: ImageDraw.ImageDraw,
    thing: Thing,
    proportions: tuple[float, float],
    palette: dict[str, Rgb] | None,
) -> None:
    """Draw one thing: first the outline of all body parts, then the parts.

    Without a palette only the outline is drawn, filled, in 255: a mask.
    """
    unit = thing.radius * _SCALE
    scale = np.array(proportions) * unit
    centre = np.array((thing.x, thing.y)) * _SCALE
    border = max(3, round(0.045 * unit))
    parts = SHAPES[CLASSES[thing.class_id]]
    # (points, 2) in radii to a flat list x, y, x, y ... in pixels of the sheet
    lines = [(part.points * scale + centre).ravel().tolist() for part in parts]
    ink = _INK if palette else 255
    for part, points in zip(parts, lines, strict=True):
        if part.body:
            closed = points if part.width else points + points[:4]  # back to the second point
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
