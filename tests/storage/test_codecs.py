import io

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from png_files import GREY, GREY_ALPHA, write_png
from storage.codecs import (
    decode_image,
    decode_label_map,
    decode_rle,
    encode_image,
    encode_label_map,
    encode_rle,
)
from storage.errors import DataError, InputError
from storage.picture_headers import image_format, image_size


@pytest.fixture
def picture() -> np.ndarray:
    ramp = np.linspace(0, 255, 24 * 40 * 3).astype(np.uint8)
    return ramp.reshape(24, 40, 3)


def test_png_gives_the_pixels_back(picture):
    data = encode_image(picture, "png")
    assert image_format(data) == "png"
    assert image_size(data) == (40, 24)
    np.testing.assert_array_equal(decode_image(data), picture)


def test_jpg_is_close_and_repeatable(picture):
    data = encode_image(picture, "jpg")
    assert image_format(data) == "jpg"
    assert data == encode_image(picture, "jpg")
    assert np.abs(decode_image(data).astype(int) - picture).mean() < 3


def test_a_lower_quality_takes_fewer_bytes(picture):
    assert len(encode_image(picture, "jpg", quality=30)) < len(encode_image(picture, "jpg"))


def test_an_unknown_image_format_is_refused(picture):
    with pytest.raises(InputError, match="'webp' is unknown; choose one of jpg, png"):
        encode_image(picture, "webp")


def test_label_maps_keep_every_16_bit_value():
    labels = np.array([[0, 1, 255, 256], [1205, 32768, 65534, 65535]], dtype=np.uint16)
    data = encode_label_map(labels)
    decoded = decode_label_map(data)
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, labels)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(data))), labels)


def test_an_8_bit_image_is_no_label_map(picture):
    with pytest.raises(DataError, match="'RGB'"):
        decode_label_map(encode_image(picture, "png"))


@pytest.mark.parametrize(
    ("depth", "colours", "words"),
    [(8, GREY, "8-bit grey"), (16, GREY_ALPHA, "16-bit grey with alpha"), (4, GREY, "4-bit grey")],
)
def test_label_maps_are_told_by_their_header(depth, colours, words):
    samples = np.ones((3, 4, 2) if colours == GREY_ALPHA else (3, 4))
    with pytest.raises(DataError, match=rf"a PNG of {words}\); expected a PNG of 16-bit grey"):
        decode_label_map(write_png(samples, depth, colours))
    assert decode_label_map(write_png(np.full((3, 4), 300), 16, interlaced=True)).max() == 300


@pytest.mark.parametrize("cut", [0, 5, 100])
@pytest.mark.parametrize("name", ["png", "jpg"])
def test_cut_images_are_told(picture, name, cut):
    with pytest.raises(DataError):
        decode_image(encode_image(picture, name)[:cut])


def test_bytes_of_another_kind_have_no_image_format():
    with pytest.raises(DataError, match="GIF89a"):
        image_format(b"GIF89a")


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (64, 64)])
def test_run_lengths_give_the_mask_back_as_coco_reads_it(shape):
    mask = np.random.default_rng(0).random(shape) > 0.6
    counts = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(counts, *shape), mask)
    reference = {"size": list(shape), "counts": counts.encode()}
    assert coco_mask.area(reference) == mask.sum()
