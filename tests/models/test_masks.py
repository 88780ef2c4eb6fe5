"""Masks with a bit a pixel are the masks that were packed."""

import numpy as np
import pytest

from models.masks import PackedMasks


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 8, 8), (0, 4, 4), (2, 1, 1)])
def test_what_is_packed_comes_out_as_it_was(shape):
    masks = np.random.default_rng(0).random(shape) > 0.5
    packed = PackedMasks.of(masks)
    assert packed.shape == shape
    assert len(packed) == len(masks) == len(list(packed))
    np.testing.assert_array_equal(np.asarray(packed), masks)
    for index, mask in enumerate(packed):
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, masks[index])


def test_packs_of_one_size_are_joined_in_order_and_take_a_bit_a_pixel():
    masks = np.random.default_rng(1).random((5, 16, 32)) > 0.5
    packed = PackedMasks.joined([PackedMasks.of(masks[:2]), PackedMasks.of(masks[2:])])
    np.testing.assert_array_equal(np.asarray(packed), masks)
    assert packed.rows.nbytes == masks.size // 8
