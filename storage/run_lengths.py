"""Binary masks as COCO's compressed run lengths, column by column; the first run is of zeros.

Each run is written as its difference from the one before the last, in digits of five bits. The
decoder is one of our own: that of ``pycocotools`` writes past its memory if the runs are longer
than the mask.
"""

from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Int, UInt8
from pycocotools import mask as coco_mask

from storage.errors import DataError
from storage.picture_headers import check_size

_FIRST_DIGIT, _LAST_DIGIT = 48, 48 + 63
_MORE, _SIGN, _BITS = 32, 16, 5
_MOST_DIGITS = 6  # enough for twice the largest mask, with a sign


def encode_rle(mask: Bool[np.ndarray, "height width"]) -> str:
    """Encode a binary mask as compressed COCO run lengths (column-major, ASCII)."""
    encoded = cast("dict[str, Any]", coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))
    return encoded["counts"].decode("ascii")


def decode_rle(
    counts: str, height: int, width: int, *, name: str = "mask"
) -> Bool[np.ndarray, "height width"]:
    """Decode compressed COCO run lengths.

    Args:
        counts: What `encode_rle` returned.
        height: Rows of the mask.
        width: Columns of the mask.
        name: What messages call the mask.

    Raises:
        DataError: They are no run lengths, or not those of a mask of this size.
    """
    runs = _runs(counts, height, width, name)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def check_rle(counts: str, height: int, width: int, *, name: str = "mask") -> None:
    """Raise what `decode_rle` raises, without making the mask."""
    _runs(counts, height, width, name)


def _runs(counts: str, height: int, width: int, name: str) -> Int[np.ndarray, " runs"]:
    check_size(width, height, name)
    digits = _digits(counts, height * width, name)
    last = digits < _MORE
    starts = np.flatnonzero(np.concatenate(([True], last[:-1])))
    lengths = np.diff(np.append(starts, len(digits)))
    if not last[-1] or lengths.max() > _MOST_DIGITS:
        raise _wrong(name, "a run that is cut, or longer than any mask")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits.astype(np.int64) & (_MORE - 1)) << (_BITS * place), starts)
    runs -= np.where(digits[last] & _SIGN, np.int64(1) << (_BITS * lengths), 0)
    runs[2::2] = np.cumsum(runs[2::2])
    runs[1::2] = np.cumsum(runs[1::2])
    if runs.min() < 0:
        raise _wrong(name, f"a run of {runs.min()} pixels, expected no negative one")
    if runs.sum() != height * width:
        raise _wrong(name, f"runs of {runs.sum()} pixels, expected {width} x {height}")
    return runs


def _digits(counts: str, pixels: int, name: str) -> UInt8[np.ndarray, " digits"]:
    if not counts:
        raise _wrong(name, "no run, expected one at least")
    if len(counts) > _MOST_DIGITS * (pixels + 1):
        raise _wrong(name, f"{len(counts)} digits for {pixels} pixels")
    data = np.frombuffer(counts.encode("latin-1", "replace"), dtype=np.uint8)
    if data.min() < _FIRST_DIGIT or data.max() > _LAST_DIGIT or not counts.isascii():
        raise _wrong(name, "a character that is no digit of COCO's")
    return data - np.uint8(_FIRST_DIGIT)


def _wrong(name: str, what: str) -> DataError:
    return DataError(f"{name} has run lengths with {what}; verify the dataset")
