"""Colours in which the label maps of benchmarks are saved, and what a palette says by them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt8

from storage.label_colours import voc_colours

Palette = UInt8[np.ndarray, "_ 3"]

# What mmsegmentation paints background and the 59 classes in (mmseg/datasets/pascal_context.py).
_MMSEG_CONTEXT = """
787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846
08ff33 ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc
ff095c 7009ff 08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14
ff0829 ff0599 0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff
ff4700 00ebff 00adff 1f00ff
"""
_GREY_RAMP: Palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
_UNKNOWN = -1


@dataclass(frozen=True)
class LabelColours:
    """The colours that the labels of a benchmark are known by.

    Attributes:
        highest: The last class's label; the first is 1, and 0 is background.
        void: The label of ignored pixels, if there are any.
        tables: Colours of the labels from 0, in each way that is in use; none if none is known.
        shows: Whether palettes show something at all; otherwise an index is the label.
    """

    highest: int
    void: int | None = None
    tables: tuple[Palette, ...] = ()
    shows: bool = True

    def label_of(self, table: Palette) -> dict[int, int]:
        """The label of each colour, as `codes` numbers them; colours of two labels have none."""
        labels = [label for label in range(len(table)) if self.allows(label)]
        numbers = codes(table[labels]).tolist()
        return {
            number: label
            for number, label in zip(numbers, labels, strict=True)
            if numbers.count(number) == 1
        }

    def allows(self, label: int) -> bool:
        """Whether this is background, a class, or void."""
        return label <= self.highest or label == self.void


def voc_like(highest: int) -> LabelColours:
    """The colours of PASCAL VOC and of what is laid out like it, for so many classes."""
    return LabelColours(highest, 255, (voc_colours(),))


def context_colours(highest: int) -> LabelColours:
    """The colours in which label maps of PASCAL Context are saved: VOC's, or mmsegmentation's."""
    painted = np.frombuffer(bytes.fromhex(_MMSEG_CONTEXT), np.uint8).reshape(-1, 3)
    return LabelColours(highest, 255, (voc_colours(), painted))


def codes(colours: UInt8[np.ndarray, "*shape 3"]) -> Int32[np.ndarray, "*shape"]:
    """A number for each colour."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def as_stored(palette: Palette, used: list[int], tables: tuple[Palette, ...]) -> bool:
    """Whether a palette says that its indices are the labels.

    So it is if each index that is used has the colour of that label in a table, or its own number
    as grey. Software pads short palettes with black, which then says nothing about an index.

    Args:
        palette: The colours in the file.
        used: Indices that pixels have.
        tables: Colours of the labels.
    """
    length = len(palette)
    while length and not palette[length - 1].any():
        length -= 1
    if not length:
        return True
    said = [index for index in used if index < len(palette)]
    for table in (*tables, _GREY_RAMP):
        if said == used and _equal(palette, table, used):
            return True
        if 2 <= length <= len(table) and _equal(palette, table, list(range(length))):
            return True
    return False


def _equal(palette: Palette, table: Palette, indices: list[int]) -> bool:
    inside = [index for index in indices if index < len(table)]
    return inside == indices and bool((palette[indices] == table[indices]).all())


def by_colour(palette: Palette, used: list[int], known: LabelColours) -> dict[int, int] | None:
    """The label of each index that is used, by its colour; None if the colours do not say it."""
    if not used or used[-1] >= len(palette):
        return None
    numbers = codes(palette[used]).tolist()
    if numbers.count(0) > 1:  # black is background, and what short palettes are padded with
        return None
    for table in known.tables:
        labels = known.label_of(table)
        if all(number in labels for number in numbers):
            return {index: labels[number] for index, number in zip(used, numbers, strict=True)}
    return None


def is_ambiguous_grey(palette: Palette, used: list[int], known: LabelColours) -> bool:
    """Whether greys and indices are both labels, and not the same ones."""
    if used[-1] >= len(palette):
        return False
    colours = palette[used]
    values = colours[:, 0].tolist()
    grey = bool((colours == colours[:, :1]).all()) and len(set(values)) == len(values)
    return grey and len(used) > 1 and all(map(known.allows, values))
