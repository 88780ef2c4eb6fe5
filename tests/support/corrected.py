"""A mask that somebody drew anew in CVAT: one block of one class, and nothing else."""

import numpy as np

from storage.codecs import decode_image
from storage.current_samples import CurrentSamples
from storage.exports.corrected_masks import import_masks

__all__ = ["correct_to_block"]


def correct_to_block(store, key, name, folder, *, rows=(2, 7), columns=(3, 9)):
    """Import a file in which a sample has one block of a class; returns its pixels."""
    (sample,) = [each for each in CurrentSamples(store) if each.key == key]
    height, width = decode_image(sample.image_bytes).shape[:2]
    (top, bottom), (left, right) = rows, columns
    wide, high = right - left, bottom - top
    file = folder / f"{key}.xml"
    file.write_text(
        f'<annotations><version>1.1</version><image id="0" name="{key}.png" width="{width}" '
        f'height="{height}"><mask label="{name}" source="manual" occluded="0" '
        f'rle="0, {wide * high}" left="{left}" top="{top}" width="{wide}" height="{high}" '
        'z_order="0"></mask></image></annotations>'
    )
    made = import_masks(store, file, who="ann@here", why="another thing")
    assert made.corrected == (key,)
    block = np.zeros((height, width), bool)
    block[top:bottom, left:right] = True
    return block
