"""Colours in which label maps are shown: a colour for each label, which people save as palettes."""

import numpy as np
from jaxtyping import UInt8

NUM_VOC_COLOURS = 256


def voc_colours() -> UInt8[np.ndarray, "256 3"]:
    """The colour table of PASCAL VOC: red, green and blue of each label; 255 is the void.

    The bits of the label are dealt to the three channels in turn, the lowest three first.
    """
    labels = np.arange(NUM_VOC_COLOURS)
    colours = np.zeros((NUM_VOC_COLOURS, 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((labels >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours
