"""Format and size of a picture by its first bytes, before any decoder is trusted with the rest."""

import struct
from typing import NamedTuple

from storage.errors import DataError

MAX_PIXELS = 10_000 * 8_000
"""Most pixels of a picture, a label map or a mask: 229 MiB of RGB. Below the number from which
Pillow warns."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SIGNATURES = {_JPEG: "jpg", _PNG: "png"}
_MAX_SEGMENTS = 4096  # of a JPEG, before its size is said; colour profiles may take 255 of them
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_SCAN, _END = 0xDA, 0xD9
_COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_CHANNELS = {1: "grey", 3: "colours", 4: "colours for print"}
_FOREIGN = {b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
VERIFY = "verify the dataset"
"""The way out where a picture is part of a dataset of ours."""


class PictureHeader(NamedTuple):
    """What a picture says about itself.

    Attributes:
        format: ``jpg`` or ``png``.
        width: Pixels.
        height: Pixels.
        depth: Bits of a channel, or of an index into a palette.
        colours: Of a PNG its colour type, of a JPEG the number of its channels.
    """

    format: str
    width: int
    height: int
    depth: int
    colours: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def described(self) -> str:
        """Format, depth and colours in words, such as `a PNG of 8-bit RGB`."""
        if self.format == "jpg":
            return f"a JPEG of {self.depth}-bit {_CHANNELS.get(self.colours, 'colours')}"
        kind = _COLOUR_TYPES.get(self.colours, f"colour type {self.colours}")
        return f"a PNG of {self.depth}-bit {kind}"


def read_header(data: bytes, name: str = "picture", *, way_out: str = VERIFY) -> PictureHeader:
    """Read format and size; nothing is decoded.

    Args:
        data: The picture's file.
        name: What messages call it: its file and member.
        way_out: What to do about a damaged one; the end of a message.

    Raises:
        DataError: It is neither JPEG nor PNG, says no size, has no pixels, or more than
            `MAX_PIXELS`.
    """
    kind = image_format(data, name)
    found = _read_png(data) if kind == "png" else _read_jpeg(data)
    if found is None:
        message = f"{name} ({len(data)} bytes) is not a readable image: it says no size; {way_out}"
        raise DataError(message)
    width, height, depth, colours = found
    check_size(width, height, name, way_out=way_out)
    return PictureHeader(kind, width, height, depth, colours)


def image_format(data: bytes, name: str = "image") -> str:
    """Tell ``jpg`` from ``png`` by the first bytes.

    Args:
        data: The picture's file.
        name: What messages call it.

    Raises:
        DataError: It is neither.
    """
    for signature, kind in _SIGNATURES.items():
        if data.startswith(signature):
            return kind
    message = f"{name} {_beginning(data)}; expected a JPEG or PNG signature"
    raise DataError(message)


def foreign_format(data: bytes) -> str:
    """Name the format of a picture that is neither JPEG nor PNG; empty if it is none known."""
    for signature, kind in _FOREIGN.items():
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return "HEIF or AVIF" if data[4:8] == b"ftyp" else ""


def _beginning(data: bytes) -> str:
    kind = foreign_format(data) if data else "an empty file"
    return f"starts with {data[:8]!r}{f', which is {kind}' if kind else ''}"


def image_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Read width and height in pixels, see `read_header`."""
    return read_header(data, name).size


def check_size(width: int, height: int, name: str, *, way_out: str = VERIFY) -> None:
    """Refuse a picture or mask without pixels, or with more than `MAX_PIXELS`.

    Raises:
        DataError: It is; says its size.
    """
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        message = (
            f"{name} is to have {width} x {height} pixels, expected 1 to {MAX_PIXELS} "
            f"in all; {way_out}"
        )
        raise DataError(message)


def _read_png(data: bytes) -> tuple[int, int, int, int] | None:
    """Width, height, depth and colour type in the header, which is the first chunk."""
    if len(data) < 26 or data[12:16] != b"IHDR":
        return None
    return struct.unpack(">IIBB", data[16:26])


def _read_jpeg(data: bytes) -> tuple[int, int, int, int] | None:
    """Width, height, depth and channels in the first frame header, before the first scan."""
    at = len(_JPEG) - 1
    for _ in range(_MAX_SEGMENTS):
        at = data.find(b"\xff", at)
        while data[at + 1 : at + 2] == b"\xff":
            at += 1
        if at < 0 or at + 10 > len(data) or data[at + 1] in {_SCAN, _END}:
            return None
        marker = data[at + 1]
        if marker in _FRAMES:
            depth, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            return width, height, depth, channels
        at += 2
        if marker not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2])
    return None
