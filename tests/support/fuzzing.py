"""Random damage to files, and what readers may make of it: data, or an error in words, soon."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from storage.errors import EngineError

SECONDS = 5.0
"""For one file of a few kilobytes; most take a millisecond."""

DataT = TypeVar("DataT")


def damaged(data: bytes, seed: int) -> bytes:
    """Bits flipped, bytes set to extremes, a part cut out, doubled, moved or filled with noise."""
    rng = np.random.default_rng(seed)
    found = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at, length = int(rng.integers(len(found))), int(rng.integers(1, 600))
        match rng.integers(7):
            case 0:
                found[at] ^= 1 << int(rng.integers(8))
            case 1:
                found[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 2:
                del found[at:]
            case 3:
                del found[at : at + length]
            case 4:
                found[at:at] = found[at : at + length]
            case 5:
                found[at : at + length] = rng.bytes(length)
            case _:
                other = int(rng.integers(len(found)))
                found[at : at + length] = found[other : other + length]
        found = found or bytearray(b"\0")
    return bytes(found)


def survives(read: Callable[[DataT], object], data: DataT, *, named: str = "") -> bool:
    """Whether the data was read; anything but an error in words goes up.

    Args:
        read: Reads it.
        data: What is read.
        named: What the error must name.
    """
    began = time.process_time()  # which a busy machine does not lengthen
    try:
        read(data)
    except EngineError as error:
        said = str(error)
    else:
        said = ""
    assert time.process_time() - began < SECONDS
    assert not said or named in said
    return not said
