"""Label Studio's brush run lengths: bits of blocks of equal or different bytes.

The format is that of `@thi.ng/rle-pack`, which Label Studio names as its own: 32 bits with the
number of values, 5 with the width of a value less one, four times 4 with the widths of the run
lengths less one; then blocks: a bit that says whether the values are equal, 2 bits that say which
width the length has, the length less one, and the value or the values. A mask is the fourth byte of
each pixel of an RGBA picture, row by row.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from storage.errors import InputError

__all__ = ["pack_brush", "unpack_brush"]

_WIDTHS = (3, 4, 8, 16)
_CHANNELS = 4
_OPAQUE = 128
"""From here on a pixel belongs to the mask: strokes may be soft at their edges."""
_COUNT, _WORD, _WIDTH, _CHOICE = 32, 5, 4, 2
_BYTE = 8


def pack_brush(mask: Bool[np.ndarray, "height width"]) -> list[int]:
    """Write a mask as Label Studio's run lengths.

    Returns:
        Bytes, as its JSON has them.
    """
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    bounds = np.concatenate(([0], edges, [flat.size]))
    bits = [f"{flat.size * _CHANNELS:032b}", f"{_BYTE - 1:05b}"]
    bits += [f"{width - 1:04b}" for width in _WIDTHS]
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        value = 255 if flat[start] else 0
        left = (stop - start) * _CHANNELS
        while left:
            length = min(left, 1 << _WIDTHS[-1])
            choice = next(n for n, width in enumerate(_WIDTHS) if length <= 1 << width)
            bits.append(f"1{choice:02b}{length - 1:0{_WIDTHS[choice]}b}{value:08b}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % _BYTE)
    return list(int(text, 2).to_bytes(len(text) // _BYTE, "big"))


def unpack_brush(
    values: Sequence[int], height: int, width: int, *, name: str
) -> Bool[np.ndarray, "height width"]:
    """Read a mask from Label Studio's run lengths.

    Args:
        values: Bytes, as its JSON has them.
        height: Rows of the mask.
        width: Columns of the mask.
        name: What messages call the mask.

    Raises:
        InputError: They are no run lengths, or not those of a picture of this size.
    """
    try:
        data = np.frombuffer(bytes(values), np.uint8)
    except (TypeError, ValueError) as error:
        raise _wrong(name, "something else than bytes") from error
    reader = _Bits(np.unpackbits(data), name)
    count, word = reader.number(_COUNT), reader.number(_WORD) + 1
    if count != height * width * _CHANNELS or word != _BYTE:
        why = f"{count} values of {word} bits, expected {width} x {height} pixels of four bytes"
        raise _wrong(name, why)
    widths = [reader.number(_WIDTH) + 1 for _ in _WIDTHS]
    pixels = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        equal, choice = reader.number(1), reader.number(_CHOICE)
        length = reader.number(widths[choice]) + 1
        if at + length > count:
            raise _wrong(name, f"runs beyond its {count} values")
        pixels[at : at + length] = reader.number(_BYTE) if equal else reader.several(length)
        at += length
    return (pixels.reshape(height, width, _CHANNELS)[..., -1] >= _OPAQUE).copy()


class _Bits:
    """Reads numbers from bits, one after the other."""

    def __init__(self, bits: UInt8[np.ndarray, " bits"], name: str) -> None:
        self._bits = bits
        self._at = 0
        self._name = name

    def number(self, width: int) -> int:
        """The next number of so many bits."""
        return int("".join(map(str, self._next(width).tolist())), 2)

    def several(self, count: int) -> UInt8[np.ndarray, " count"]:
        """The next bytes."""
        return np.packbits(self._next(count * _BYTE))

    def _next(self, width: int) -> UInt8[np.ndarray, " width"]:
        found = self._bits[self._at : self._at + width]
        if len(found) < width:
            raise _wrong(self._name, "an end before all of its pixels")
        self._at += width
        return found


def _wrong(name: str, what: str) -> InputError:
    return InputError(
        f"{name} has run lengths with {what}: export it from Label Studio again, as JSON"
    )
