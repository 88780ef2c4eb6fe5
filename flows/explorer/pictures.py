"""Pictures as the explorer shows them: small ones, and masks in the colours of their classes."""

import io

import numpy as np
from jaxtyping import Bool
from PIL import Image

from evaluation.reports.sheets import class_colour
from storage.codecs import decode_image

THUMBNAIL_SIDE = 192
"""Longest side of a small picture in pixels."""

_QUALITY = 82
_FILL, _EDGE = 110, 255
_IGNORED = (128, 128, 128)


def thumbnail(image: bytes, name: str) -> bytes:
    """A small JPEG of a picture; one that is small already keeps its size.

    Args:
        image: JPEG or PNG.
        name: What messages call it.

    Raises:
        DataError: It is no picture that can be read.
    """
    small = Image.fromarray(decode_image(image, name=name))
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def mask_picture(mask: Bool[np.ndarray, "height width"], class_id: int | None) -> bytes:
    """A mask as a PNG to lay over a picture: half transparent inside, its outline solid.

    Args:
        mask: The pixels.
        class_id: Whose colour it has; None for pixels that are ignored, which are grey.
    """
    colour = _IGNORED if class_id is None else class_colour(class_id + 1)
    pixels = np.zeros((*mask.shape, 4), dtype=np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = np.where(mask, np.where(_inside(mask), _FILL, _EDGE), 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _inside(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """The pixels of a mask whose four neighbours are all of it."""
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
