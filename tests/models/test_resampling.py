"""What Pillow's resizing in torch must do: give Pillow's bytes."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from models.resampling import KNOWN_FILTERS, resized_as_pillow, taps

LENGTHS = st.integers(1, 90)
FILTERS = sorted(KNOWN_FILTERS)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def noise(seed, height, width, levels=256):
    """Random bytes; of two levels they are 0 and 255, beyond which a cubic filter would go."""
    drawn = np.random.default_rng(seed).integers(0, levels, (height, width, 3))
    return (drawn * (255 // (levels - 1))).astype(np.uint8)


def by_pillow(pixels, size, resample):
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], resample))


def by_us(pixels, size, resample, device="cpu"):
    return resized_as_pillow(torch.tensor(pixels, device=device), size, resample).cpu().numpy()


@given(
    before=st.tuples(LENGTHS, LENGTHS),
    after=st.tuples(LENGTHS, LENGTHS),
    levels=st.sampled_from([2, 256]),
    seed=st.integers(0, 99),
)
@example(before=(90, 20), after=(30, 18), levels=256, seed=0)  # rows first, since Pillow 13
@example(before=(90, 50), after=(10, 10), levels=256, seed=0)  # exactly twice as much: columns
@example(before=(1, 1), after=(90, 90), levels=256, seed=0)
@example(before=(90, 90), after=(1, 1), levels=2, seed=0)
@example(before=(40, 60), after=(40, 60), levels=256, seed=0)
def test_bytes_are_those_of_pillow(before, after, levels, seed):
    pixels = noise(seed, *before, levels)
    for resample in FILTERS:
        np.testing.assert_array_equal(
            by_us(pixels, after, resample), by_pillow(pixels, after, resample)
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((512, 512), (1024, 1024)),
        ((512, 512), (800, 800)),
        ((512, 512), (224, 224)),
        ((768, 1024), (800, 1066)),
        ((1333, 500), (1024, 384)),
        ((1080, 1920), (750, 1333)),
    ],
)
def test_sizes_of_real_networks_give_pillows_bytes(device, before, after):
    smooth = by_pillow(noise(1, 9, 7), before, Image.Resampling.BICUBIC)
    grainy = noise(2, *before)
    for pixels in (smooth, grainy):
        for resample in FILTERS:
            np.testing.assert_array_equal(
                by_us(pixels, after, resample, device), by_pillow(pixels, after, resample)
            )


@given(before=LENGTHS, after=LENGTHS)
def test_weights_of_a_pixel_add_up_to_one(before, after):
    for resample in FILTERS:
        places, weights = taps(before, after, resample)
        assert places.shape == weights.shape
        assert places.min() >= 0
        assert places.max() < before
        # Each is rounded by itself.
        assert np.abs(weights.astype(np.int64).sum(axis=0) - 2**22).max() <= len(weights)


def test_sums_of_weights_and_bytes_fit_into_32_bits():
    for before in (2, 90, 5000):
        for resample in FILTERS:
            _, weights = taps(before, 7, resample)
            assert np.abs(weights.astype(np.int64) * 255).sum(axis=0).max() + 2**21 < 2**31
