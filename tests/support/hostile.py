"""Damaged and hostile files, made by small functions from whole ones."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from storage.archives import write_archive

Member = tuple[str, bytes]
BLOCK = 512


# tar archives


def sealed(header: bytes) -> bytes:
    """A tar header with the checksum that belongs to it."""
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **fields: str) -> bytes:
    """A header that says anything."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT, "latin-1", "strict")[-BLOCK:])
    block[124:136] = b"%011o\0" % size
    return sealed(bytes(block))


def with_size(field: bytes) -> bytes:
    """A header of a file whose size field holds these 12 bytes."""
    block = header("0badcafe00000009.png")
    return sealed(block[:124] + field.ljust(12, b"\0") + block[136:])


def base_256(size: int) -> bytes:
    """A size field in base 256, which may be negative or huge."""
    sign = b"\x80" if size >= 0 else b"\xff"
    return sign + size.to_bytes(11, "big", signed=size < 0)


def filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def entry(head: bytes, data: bytes = b"") -> bytes:
    return head + filled(data)


def note(text: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header in front of the next member."""
    return entry(header("././@PaxHeader", len(text), kind), text)


def record(keyword: str, value: str) -> bytes:
    """A line of an extended header, which begins with its own length."""
    body = f" {keyword}={value}\n"
    length = len(body) + 1
    while len(f"{length}{body}") != length:
        length += 1
    return f"{length}{body}".encode()


def before(addition: bytes) -> Callable[[Sequence[Member]], bytes]:
    """A whole archive with something in front."""
    return lambda members: addition + bytes(write_archive(members))


def archived(members: Sequence[Member]) -> bytes:
    """An archive of names that our own writer may refuse."""
    return b"".join(entry(header(name, len(data)), data) for name, data in members) + bytes(1024)


def renamed(old: str, new: str) -> Callable[[Sequence[Member]], bytes]:
    """An archive in which a part of the names is another."""
    return lambda members: archived([(name.replace(old, new), data) for name, data in members])


def ordered(*order: int) -> Callable[[Sequence[Member]], bytes]:
    """An archive of these members, by their numbers."""
    return lambda members: bytes(write_archive([members[number] for number in order]))


def replaced(number: int, change: Callable[[bytes], bytes]) -> Callable[[Sequence[Member]], bytes]:
    """An archive in which one member holds other bytes."""

    def build(members: Sequence[Member]) -> bytes:
        name, data = members[number]
        return bytes(
            write_archive([*members[:number], (name, change(data)), *members[number + 1 :]])
        )

    return build


# the JSON of a sample


def fields(**changes: object) -> Callable[[bytes], bytes]:
    """The JSON with other values; None leaves a field out."""

    def change(data: bytes) -> bytes:
        found = json.loads(data) | changes
        return json.dumps({name: each for name, each in found.items() if each is not None}).encode()

    return change


def raw(name: str, value: bytes) -> Callable[[bytes], bytes]:
    """The JSON with the bytes of a value as they stand here."""

    def change(data: bytes) -> bytes:
        marked = json.dumps(json.loads(data) | {name: "@@"}).encode()
        return marked.replace(b'"@@"', value)

    return change


def instance(**changes: object) -> Callable[[bytes], bytes]:
    """The JSON with other values of its first instance."""

    def change(data: bytes) -> bytes:
        found = json.loads(data)
        first, *others = json.loads(found["instances"])
        return json.dumps(
            found | {"instances": json.dumps([first | changes, *others])}, allow_nan=True
        ).encode()

    return change


# pictures


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *, depth: int = 8, colours: int = 2) -> bytes:
    """A PNG that says a size and holds next to nothing."""
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    pixels = chunk(b"IDAT", zlib.compress(bytes(64)))
    return signature + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def with_chunk(kind: bytes, data: bytes) -> Callable[[bytes], bytes]:
    """A PNG with another chunk behind its header."""
    return lambda png: png[:33] + chunk(kind, data) + png[33:]


def text_bomb(size: int) -> Callable[[bytes], bytes]:
    """A PNG with a text that unpacks to so many bytes."""
    return with_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(size), 9))


def saved(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def picture(mode: str, side: int = 16, kind: str = "PNG", **how: object) -> bytes:
    """A picture of any mode."""
    return saved(Image.new(mode, (side, side)), kind, **how)


def animated(side: int = 16) -> bytes:
    frames = [Image.new("RGB", (side, side), colour) for colour in ("red", "blue")]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:])


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def flipped(where: int) -> Callable[[bytes], bytes]:
    """Another bit at a byte, from the front or the end."""

    def change(data: bytes) -> bytes:
        found = bytearray(data)
        found[where] ^= 1
        return bytes(found)

    return change


def noise(side: int, kind: str = "PNG", **how: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels), kind, **how)


def always(data: bytes) -> Callable[[bytes], bytes]:
    return lambda _: data
