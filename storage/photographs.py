"""Photographs as people see them: RGB of any JPEG or PNG, turned upright.

What is seen is what `cv2.imread` gives with its defaults, and so what mmcv and most training code
show a network: turned by the EXIF data, of 16 bits the upper 8, palettes and print colours as RGB,
whatever is transparent as if it were not.
"""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from storage.codecs import decode_picture
from storage.errors import DataError, InputError
from storage.orientation import UPRIGHT, read_orientation, turned

__all__ = ["decode_photograph", "read_photograph"]


def read_photograph(path: str | Path) -> UInt8[np.ndarray, "height width 3"]:
    """Read a JPEG or PNG file.

    Args:
        path: The file.

    Returns:
        RGB, upright.

    Raises:
        InputError: If the file cannot be read.
        DataError: If it is no picture, or damaged; see `storage.codecs.decode_picture`.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"{path} cannot be read ({reason}); give the path of a JPEG or PNG file"
        raise InputError(message) from error
    return decode_photograph(data, str(path))


def decode_photograph(
    data: bytes, name: str = "picture", *, way_out: str = "choose another file"
) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a JPEG or PNG file.

    Args:
        data: The file.
        name: What messages call it.
        way_out: What to do about a damaged one; the end of a message.

    Returns:
        RGB, upright.

    Raises:
        DataError: See `storage.codecs.decode_picture`.
    """
    with warnings.catch_warnings():
        # Cameras and editors write such data; the orientation is read from them here.
        warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
        image = decode_picture(data, name, way_out=way_out)
    exif = image.info.get("exif", b"")
    try:
        if image.mode.startswith("I"):  # of 16 bits; Pillow's conversion would cut at 255
            pixels = np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        else:
            # Its conversion warns of what is transparent, and mixes nothing in.
            image.info.pop("transparency", None)
            pixels = np.asarray(image.convert("RGB"))
    except (ValueError, OSError) as error:
        message = f"{name} cannot be shown in RGB ({error}); {way_out}"
        raise DataError(message) from error
    orientation = read_orientation(exif) if isinstance(exif, bytes) else UPRIGHT
    return pixels if orientation == UPRIGHT else turned(pixels, orientation)
