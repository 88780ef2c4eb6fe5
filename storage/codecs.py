"""Images, label maps and masks as bytes, and back."""

import io

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from storage.errors import DataError, InputError
from storage.picture_headers import VERIFY, read_header
from storage.run_lengths import decode_rle, encode_rle

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
_COLOURS = ("RGB", "L")
_LABEL_MAP = ("png", 16, 0)  # format, bits, and the colour type of grey
_SCAN_MARK, _MAX_SCANS = b"\xff\xda", 100  # each scan of a JPEG decodes all of its pixels again


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


def decode_image(data: bytes, *, name: str = "image") -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image to RGB.

    Args:
        data: JPEG or PNG.
        name: What messages call it: its file and member.

    Raises:
        DataError: See `decode_picture`; also if it is neither in colour nor grey (with a palette,
            transparent, of 16 bits, for print).
    """
    image = decode_picture(data, name)
    if image.mode not in _COLOURS:
        message = (
            f"{name} has Pillow mode {image.mode!r}; expected {' or '.join(_COLOURS)} (8 bits a "
            "channel, nothing transparent)"
        )
        raise DataError(message)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def encode_label_map(labels: UInt16[np.ndarray, "height width"]) -> bytes:
    """Encode a label map as a 16-bit grayscale PNG.

    Args:
        labels: ``class_id + 1``; 0 is background, 65535 is ignored.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(labels.astype(np.uint16, copy=False))
    image.save(buffer, "PNG", compress_type=_RUN_LENGTH_STRATEGY)
    return buffer.getvalue()


def decode_label_map(data: bytes, *, name: str = "label map") -> UInt16[np.ndarray, "height width"]:
    """Decode a 16-bit grayscale PNG, values unchanged.

    Args:
        data: What `encode_label_map` made.
        name: What messages call it: its file and member.

    Raises:
        DataError: See `decode_picture`; also if it is not of 16-bit grayscale.
    """
    image = decode_picture(data, name)
    header = read_header(data, name)
    # The mode is Pillow's opinion, and which it has of a file differs between its versions.
    if (header.format, header.depth, header.colours) != _LABEL_MAP or image.mode != "I;16":
        message = (
            f"{name} has Pillow mode {image.mode!r} ({header.described}); expected a PNG of 16-bit "
            "grey"
        )
        raise DataError(message)
    return np.array(image, dtype=np.uint16)


def decode_picture(data: bytes, name: str, *, way_out: str = VERIFY) -> Image.Image:
    """Decode a JPEG or PNG file, whatever its mode.

    Args:
        data: The file.
        name: What messages call it.
        way_out: What to do about a damaged one; the end of a message.

    Raises:
        DataError: It is neither, damaged, cut or animated, or larger than `MAX_PIXELS`; texts in it
            that unpack to more than Pillow takes count as damage.
    """
    header = read_header(data, name, way_out=way_out)
    if data.count(_SCAN_MARK) > _MAX_SCANS and header.format == "jpg":
        message = f"{name} has more than {_MAX_SCANS} scans, expected a picture; {way_out}"
        raise DataError(message)
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        image.load()
    except Exception as error:
        # A decoder fails on strange bytes with whatever its authors did not think of, and where
        # warnings are errors it fails with those.
        raise _unreadable(data, str(error) or repr(error), name, way_out) from error
    if image.size != header.size:
        raise _unreadable(data, f"it says {header.size} and {image.size} pixels", name, way_out)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise _unreadable(data, "it is animated, expected a single picture", name, way_out)
    return image


def _unreadable(data: bytes, why: str, name: str, way_out: str) -> DataError:
    message = f"{name} ({len(data)} bytes) is not a readable image: {why}; {way_out}"
    return DataError(message)
