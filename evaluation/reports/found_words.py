"""What words found in a picture, as pictures: an overlay with a legend, and heat maps.

An overlay is for looking: large pictures are shown smaller and small ones larger. A heat map keeps
the picture's own size, and its levels are the scores.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

from evaluation.reports.sheets import GAP, INK, LINE, PAPER, QUIET, class_colour, cut_text, overlay

_MOST_SIDE, _LEAST_SIDE = 2048, 512
_LEAST_WIDTH, _COLUMN = 256, 200
_MOST_ENTRIES, _MOST_LETTERS = 300, 400
_SWATCH = 10


@dataclass(frozen=True)
class LegendEntry:
    """A word of a legend.

    Attributes:
        word: The word.
        label: What stands for it in the label map.
        share: The share of the picture's pixels that it has, in [0, 1].
    """

    word: str
    label: int
    share: float


def draw_overlay(
    image: UInt8[np.ndarray, "height width 3"],
    labels: Integer[np.ndarray, "height width"],
    legend: Sequence[LegendEntry],
) -> bytes:
    """Draw a picture with what was found tinted, and below it the words in their colours.

    Args:
        image: RGB.
        labels: 0 where nothing was found.
        legend: All words that were asked for; those without a pixel are named in one line.

    Returns:
        PNG bytes; the picture's longer side has 512 to 2,048 pixels.
    """
    picture, shown = _to_look_at(image, labels)
    found = [entry for entry in legend if entry.share > 0][:_MOST_ENTRIES]
    missing = [entry.word for entry in legend if entry.share <= 0]
    height, width = picture.shape[:2]
    columns = max(1, max(width, _LEAST_WIDTH) // _COLUMN)
    rows = -(-len(found) // columns)
    lines = rows + bool(missing)
    canvas = Image.new(
        "RGB", (max(width, _LEAST_WIDTH), height + lines * LINE + 2 * GAP), color=PAPER
    )
    canvas.paste(Image.fromarray(overlay(picture, shown)), (0, 0))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for index, entry in enumerate(found):
        column, row = divmod(index, rows)
        left, top = GAP + column * _COLUMN, height + GAP + row * LINE
        swatch = (left, top + 2, left + _SWATCH, top + 2 + _SWATCH)
        draw.rectangle(swatch, fill=class_colour(entry.label))
        text_left, share = left + _SWATCH + GAP, f" {entry.share:.1%}"
        room = _COLUMN - _SWATCH - 2 * GAP - draw.textlength(share, font)
        text = cut_text(entry.word[:_MOST_LETTERS], draw, font, int(room)) + share
        draw.text((text_left, top), text, fill=INK, font=font)
    if missing:
        text = f"not found: {', '.join(missing)}"[:_MOST_LETTERS]
        text = cut_text(text, draw, font, canvas.width - 2 * GAP)
        draw.text((GAP, height + GAP + rows * LINE), text, fill=QUIET, font=font)
    return _png(canvas)


def draw_heat(scores: Float32[np.ndarray, "height width"]) -> bytes:
    """Draw the scores of a word as a PNG of 8-bit grey: level 0 is score 0, level 255 score 1.

    Args:
        scores: In [0, 1].
    """
    return _png(Image.fromarray(np.rint(scores * np.float32(255)).astype(np.uint8)))


def _to_look_at(
    image: UInt8[np.ndarray, "height width 3"], labels: Integer[np.ndarray, "height width"]
) -> tuple[UInt8[np.ndarray, "rows columns 3"], Integer[np.ndarray, "rows columns"]]:
    """Both at a size that a screen shows; small pictures keep sharp pixels."""
    height, width = labels.shape
    longer = max(height, width)
    if longer <= _MOST_SIDE:
        times = max(1, _LEAST_SIDE // longer)
        return image.repeat(times, 0).repeat(times, 1), labels.repeat(times, 0).repeat(times, 1)
    scale = _MOST_SIDE / longer
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    small = Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX)
    nearest = np.ix_(_centres(height, rows), _centres(width, columns))
    return np.asarray(small), labels[nearest]


def _centres(length: int, count: int) -> Integer[np.ndarray, " count"]:
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
