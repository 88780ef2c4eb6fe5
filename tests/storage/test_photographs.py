"""Photographs are seen as `cv2.imread` shows them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from hostile import chunk
from png_files import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, write_png
from storage.errors import DataError, InputError
from storage.orientation import read_orientation
from storage.photographs import decode_photograph, read_photograph

CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}


def as_opencv(data: bytes) -> np.ndarray:
    """RGB as OpenCV reads the file."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def noise(*shape: int, below: int = 256) -> np.ndarray:
    return np.random.default_rng(3).integers(0, below, shape)


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF data that say an orientation and no more."""
    big = order == ">"
    head = (b"MM\0*" if big else b"II*\0") + (8).to_bytes(4, "big" if big else "little")
    data = Image.Exif()
    data[0x0112] = orientation
    found = data.tobytes()
    if not big:
        return found
    entry = b"\x01\x12\0\x03\0\0\0\x01" + orientation.to_bytes(2, "big") + b"\0\0"
    return b"Exif\0\0" + head + b"\0\x01" + entry + bytes(4)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("extra", ["plain", "tRNS", "gAMA"])
@pytest.mark.parametrize(
    ("colours", "depth"),
    [(c, d) for c in (GREY, PALETTE) for d in (1, 2, 4, 8)]
    + [(GREY, 16), *((c, d) for c in (RGB, GREY_ALPHA, RGB_ALPHA) for d in (8, 16))],
)
def test_png_of_any_kind(colours, depth, extra, interlaced):
    if extra == "tRNS" and colours in {GREY_ALPHA, RGB_ALPHA}:
        extra = "plain"
    data = {GREY: bytes([0, 1]), RGB: bytes([0, 1] * 3), PALETTE: bytes([0, 99])}
    before = {
        "plain": b"",
        "tRNS": chunk(b"tRNS", data.get(colours, b"")),
        "gAMA": chunk(b"gAMA", b"\0\0\xb1\x8f"),
    }
    shape = (7, 11, CHANNELS[colours]) if CHANNELS[colours] > 1 else (7, 11)
    picture = write_png(
        noise(*shape, below=2**depth),
        depth,
        colours,
        palette=noise(2**depth, 3) if colours == PALETTE else None,
        interlaced=interlaced,
        extra=before[extra],
    )
    np.testing.assert_array_equal(decode_photograph(picture), as_opencv(picture))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_photographs_are_turned_upright(orientation, order, kind):
    buffer = io.BytesIO()
    image = Image.fromarray(noise(5, 8, 3).astype(np.uint8)).resize((80, 48))
    image.save(buffer, kind, exif=exif(orientation, order))
    data = buffer.getvalue()
    expected = as_opencv(data)
    assert expected.shape[0] == (80 if orientation in range(5, 9) else 48)
    np.testing.assert_allclose(decode_photograph(data), expected, atol=2)


def test_an_orientation_in_other_data_than_exif_turns_nothing():
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    picture = write_png(noise(4, 6), extra=chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    assert decode_photograph(picture).shape == as_opencv(picture).shape == (4, 6, 3)


@pytest.mark.parametrize("damage", [b"", b"Exif\0\0", b"II*\0", exif(6)[:-9], b"XX" + exif(6)[2:]])
def test_damaged_exif_data_turn_nothing(damage):
    assert read_orientation(damage) == 1


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_jpeg_for_print_and_in_grey(mode):
    bands = [Image.fromarray(noise(4, 4).astype(np.uint8)).resize((64, 64)) for _ in mode]
    buffer = io.BytesIO()
    (Image.merge(mode, bands) if mode == "CMYK" else bands[0]).save(buffer, "JPEG", quality=100)
    found = decode_photograph(buffer.getvalue()).astype(int)
    np.testing.assert_allclose(found, as_opencv(buffer.getvalue()), atol=3)


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "a.jpg"
    with pytest.raises(InputError, match=r"a\.jpg cannot be read \(No such file"):
        read_photograph(path)
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read_photograph(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read \(embedded null byte\)"):
        read_photograph("a\0b")
    path.write_bytes(write_png(noise(3, 4))[:40])
    with pytest.raises(DataError, match=r"a\.jpg .* is not a readable image: .*another file"):
        read_photograph(path)
    path.write_bytes(write_png(noise(3, 4)))
    assert read_photograph(str(path)).shape == (3, 4, 3)
