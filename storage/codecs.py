"""Images, label maps and masks as bytes, and back."""

import io
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, UInt8, UInt16
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask

from storage.errors import DataError, InputError

__all__ = [
    "decode_image",
    "decode_label_map",
    "decode_rle",
    "encode_image",
    "encode_label_map",
    "encode_rle",
]

_IMAGE_FORMATS = ("jpg", "png")

_RUN_LENGTH_STRATEGY = 3  # zlib's Z_RLE: faster and smaller than the default on label maps
_SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png"}


def encode_image(
    image: UInt8[np.ndarray, "height width 3"], image_format: str, *, quality: int = 95
) -> bytes:
    """Encode an RGB image.

    Args:
        image: RGB, 0..255.
        image_format: ``jpg`` (small) or ``png`` (lossless).
        quality: JPEG quality in 1..100; without meaning for PNG.

    Returns:
        The file's bytes; the same for the same pixels and the same Pillow version.

    Raises:
        InputError: The format is unknown.
    """
    buffer = io.BytesIO()
    if image_format == "jpg":
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    elif image_format == "png":
        Image.fromarray(image).save(buffer, "PNG")
    else:
        message = (
            f"image format {image_format!r} is unknown; choose one of {', '.join(_IMAGE_FORMATS)}"
        )
        raise InputError(message)
    return buffer.getvalue()


def decode_image(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image to RGB.

    Raises:
        DataError: The bytes are not an image, or a cut one.
    """
    return np.array(_opened(data).convert("RGB"))


def image_format(data: bytes) -> str:
    """Tell ``jpg`` from ``png`` by the first bytes.

    Raises:
        DataError: The bytes are neither.
    """
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    message = f"image bytes start with {data[:8]!r}; expected a JPEG or PNG signature"
    raise DataError(message)


def image_size(data: bytes) -> tuple[int, int]:
    """Read width and height in pixels from an image's header.

    Raises:
        DataError: The bytes are not an image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (UnidentifiedImageError, OSError) as error:
        raise _unreadable(data, error) from error


def encode_label_map(labels: UInt16[np.ndarray, "height width"]) -> bytes:
    """Encode a label map as a 16-bit grayscale PNG.

    Args:
        labels: ``class_id + 1``; 0 is background, 65535 is ignored.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(labels.astype(np.uint16, copy=False))
    image.save(buffer, "PNG", compress_type=_RUN_LENGTH_STRATEGY)
    return buffer.getvalue()


def decode_label_map(data: bytes) -> UInt16[np.ndarray, "height width"]:
    """Decode a 16-bit grayscale PNG, values unchanged.

    Raises:
        DataError: The bytes are no PNG, or not one of 16-bit grayscale.
    """
    image = _opened(data)
    if image.mode != "I;16":
        message = f"label map has Pillow mode {image.mode!r}; expected 16-bit grayscale ('I;16')"
        raise DataError(message)
    return np.array(image, dtype=np.uint16)


def encode_rle(mask: Bool[np.ndarray, "height width"]) -> str:
    """Encode a binary mask as compressed COCO run lengths (column-major, ASCII)."""
    encoded = cast("dict[str, Any]", coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))
    return encoded["counts"].decode("ascii")


def decode_rle(counts: str, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Decode compressed COCO run lengths.

    Args:
        counts: What `encode_rle` returned.
        height: Rows of the mask.
        width: Columns of the mask.
    """
    encoded = {"size": [height, width], "counts": counts.encode("ascii")}
    return coco_mask.decode(cast("Any", encoded)).astype(bool)


def _opened(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise _unreadable(data, error) from error
    return image


def _unreadable(data: bytes, error: Exception) -> DataError:
    return DataError(f"{len(data)} bytes are not a readable image: {error}")
