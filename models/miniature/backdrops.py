"""The backgrounds of the drawn world, and the clutter: things that have no class and no mask.

All of it is drawn on a sheet four times as wide as a picture, with a random place and shade.
"""

from collections.abc import Callable

import numpy as np
from PIL import ImageDraw

WIDE = 256
"""Width and height of the sheet that scenes are drawn on, in pixels."""

Rgb = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

Drawer = Callable[[ImageDraw.ImageDraw, np.random.Generator], None]
"""Draws on the sheet; the generator decides all that is random."""

_HORIZON = (0.54, 0.62)
"""Highest and lowest horizon, as a share of the height from the top."""


def _shade(rng: np.random.Generator, rgb: Rgb) -> Rgb:
    """The colour a little lighter or darker."""
    shift = int(rng.integers(-8, 9))
    red, green, blue = (min(255, max(0, v + shift)) for v in rgb)
    return red, green, blue


def _ground(draw: ImageDraw.ImageDraw, rng: np.random.Generator, sky: Rgb, land: Rgb) -> int:
    """Sky above, land below; returns the row of the horizon on the wide canvas."""
    horizon = int(WIDE * rng.uniform(*_HORIZON))
    draw.rectangle((0, 0, WIDE, horizon), _shade(rng, sky))
    draw.rectangle((0, horizon, WIDE, WIDE), _shade(rng, land))
    return horizon


def _meadow(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (152, 208, 246), (126, 196, 98))
    for x, y in rng.uniform((0, horizon + 12), (WIDE, WIDE), (7, 2)).tolist():
        draw.polygon((x - 7, y, x, y - 14, x + 7, y), (84, 156, 66))


def _beach(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (176, 224, 250), (240, 218, 160))
    draw.rectangle((0, horizon - 44, WIDE, horizon), (54, 146, 190))
    draw.rectangle((0, horizon - 6, WIDE, horizon + 4), (232, 244, 248))


def _snow(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (178, 194, 214), (236, 242, 248))
    x = int(rng.integers(30, WIDE - 30))
    draw.ellipse((x - 110, horizon - 30, x + 110, horizon + 60), (236, 242, 248))
    for left, top in rng.uniform(0, (WIDE, horizon - 30), (5, 2)).tolist():
        draw.ellipse((left, top, left + 8, top + 8), (250, 252, 255))


def _night(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (28, 30, 78), (30, 54, 52))
    for left, top in rng.uniform(0, (WIDE, horizon - 10), (5, 2)).tolist():
        draw.ellipse((left, top, left + 8, top + 8), (240, 236, 190))


def _room(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    horizon = _ground(draw, rng, (236, 212, 186), (164, 112, 72))
    draw.rectangle((0, horizon - 8, WIDE, horizon + 2), (250, 244, 234))


def _wall(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    draw.rectangle((0, 0, WIDE, WIDE), _shade(rng, (190, 122, 100)))
    mortar = (222, 204, 190)
    for row in range(0, WIDE, 32):
        draw.rectangle((0, row, WIDE, row + 3), mortar)
        for column in range(row % 64, WIDE, 64):
            draw.rectangle((column, row, column + 3, row + 31), mortar)


def _sun(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x, y, r = (
        int(rng.integers(24, WIDE - 24)),
        int(rng.integers(22, 44)),
        int(rng.integers(18, 26)),
    )
    draw.ellipse((x - r, y - r, x + r, y + r), (255, 236, 120))


def _moon(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x, y, r = (
        int(rng.integers(24, WIDE - 24)),
        int(rng.integers(22, 44)),
        int(rng.integers(16, 24)),
    )
    draw.ellipse((x - r, y - r, x + r, y + r), (236, 234, 210))
    draw.ellipse((x - r // 2, y - r, x + r + r // 2, y + r - 4), (28, 30, 78))


def _cloud(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x, y = int(rng.integers(36, WIDE - 36)), int(rng.integers(24, 48))
    for dx, dy, r in ((-22, 4, 14), (0, -4, 20), (22, 4, 14)):
        draw.ellipse((x + dx - r, y + dy - r, x + dx + r, y + dy + r), (250, 250, 252))


def _fence(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    y, wood = int(rng.integers(140, 156)), (178, 146, 108)
    draw.rectangle((0, y, WIDE, y + 6), wood)
    draw.rectangle((0, y + 20, WIDE, y + 26), wood)
    for x in range(int(rng.integers(0, 36)), WIDE, 36):
        draw.rectangle((x, y - 12, x + 8, y + 38), wood)


def _window(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x, y = int(rng.integers(10, WIDE - 80)), int(rng.integers(8, 30))
    draw.rectangle((x, y, x + 68, y + 76), (250, 248, 240))
    for left in (x + 6, x + 37):
        for top in (y + 6, y + 41):
            draw.rectangle((left, top, left + 25, top + 29), (164, 206, 230))


BACKDROPS: dict[str, Drawer] = {
    "meadow": _meadow,
    "beach": _beach,
    "snow": _snow,
    "night": _night,
    "room": _room,
    "wall": _wall,
}
"""Draws each background."""

CLUTTER: dict[str, Drawer] = {
    "sun": _sun,
    "moon": _moon,
    "cloud": _cloud,
    "fence": _fence,
    "window": _window,
}
"""Draws each piece of clutter."""
