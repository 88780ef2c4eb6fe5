"""How a photograph is to be turned, by its EXIF data (JEITA CP-3451, tag 0x0112)."""

import struct

import numpy as np
from jaxtyping import UInt8

_PREFIX = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TAG, _ENTRY_BYTES, _VALUE_AT = 0x0112, 12, 8
UPRIGHT = 1
_EXCHANGED = range(5, 9)  # rows of the file are columns of the picture


def read_orientation(exif: bytes) -> int:
    """Read the orientation in 1..8; 1 (as stored) where none is said, or the data are damaged.

    Args:
        exif: The EXIF data, with or without the marker in front.
    """
    data = exif.removeprefix(_PREFIX)
    order = _BYTE_ORDERS.get(data[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, start)
        found = _value(data, order, range(start + 2, start + 2 + entries * _ENTRY_BYTES, 12))
    except struct.error:
        return UPRIGHT
    return found if found in range(1, 9) else UPRIGHT


def _value(data: bytes, order: str, entries: range) -> int:
    """The 16 bits of the tag's value, 0 if it is not there."""
    for at in entries:
        (tag,) = struct.unpack_from(f"{order}H", data, at)
        if tag == _TAG:
            return struct.unpack_from(f"{order}H", data, at + _VALUE_AT)[0]
    return 0


def turned(
    pixels: UInt8[np.ndarray, "rows columns 3"], orientation: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Turn and mirror stored pixels so that the picture stands upright.

    Args:
        pixels: As they are stored.
        orientation: What `read_orientation` gives.
    """
    if orientation in _EXCHANGED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
