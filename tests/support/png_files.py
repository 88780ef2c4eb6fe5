"""PNG files of every depth, colour type and interlacing, written by the format's description."""

import struct
import zlib

import numpy as np

from hostile import chunk

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The passes of Adam7: first column and row, and the steps between them.
_PASSES = [
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
]  # fmt: skip


def packed_rows(samples: np.ndarray, depth: int) -> bytes:
    """Rows of samples (height, width or width times channels), each behind its filter 0."""
    parts = []
    for row in samples.reshape(len(samples), -1):
        if depth == 16:
            data = row.astype(">u2").tobytes()
        else:
            bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
            data = np.packbits(bits).tobytes()
        parts.append(b"\0" + data)
    return b"".join(parts)


def write_png(
    samples: np.ndarray,
    depth: int = 8,
    colours: int = GREY,
    *,
    palette: object = None,
    interlaced: bool = False,
    extra: bytes = b"",
) -> bytes:
    """A PNG that stores these samples as they are.

    Args:
        samples: (height, width) or (height, width, channels).
        depth: Bits of a sample.
        colours: The colour type.
        palette: Colours of a PLTE chunk, three numbers each.
        interlaced: Whether its rows are stored by Adam7.
        extra: Chunks before the pixels.
    """
    height, width = samples.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, int(interlaced))
    parts = [samples]
    if interlaced:
        parts = [samples[y::dy, x::dx] for x, y, dx, dy in _PASSES]
    data = b"".join(packed_rows(part, depth) for part in parts if part.size)
    chunks = [chunk(b"IHDR", head)]
    if palette is not None:
        chunks.append(chunk(b"PLTE", np.asarray(palette, np.uint8).tobytes()))
    chunks += [extra, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(chunks)
