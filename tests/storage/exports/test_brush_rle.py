"""Label Studio's run lengths: to the pixel, by hand, and foreign."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from storage.errors import InputError
from storage.exports.brush_rle import pack_brush, unpack_brush


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 40))))
def test_masks_survive_to_the_pixel(mask):
    found = unpack_brush(pack_brush(mask), *mask.shape, name="m")
    assert (found == mask).all()


def test_runs_longer_than_a_block_and_large_pictures():
    mask = np.zeros((300, 300), bool)
    mask[100:290] = True
    assert (unpack_brush(pack_brush(mask), 300, 300, name="m") == mask).all()


def test_by_hand():
    """Two pixels, the second of the mask: 8 values; a run of four zeros, a run of four 255."""
    bits = f"{8:032b}" + f"{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    bits += "1" + "00" + f"{3:03b}" + f"{0:08b}" + "1" + "00" + f"{3:03b}" + f"{255:08b}"
    bits += "0" * (-len(bits) % 8)
    by_hand = list(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    assert pack_brush(np.array([[False, True]])) == by_hand


def test_blocks_of_different_bytes_and_soft_edges():
    """As the tool writes strokes: the fourth byte is how opaque they are."""
    values = [10, 20, 30, 255, 10, 20, 30, 127, 0, 0, 0, 0]
    bits = f"{12:032b}" + f"{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    bits += "0" + "01" + f"{11:04b}" + "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    data = list(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    assert unpack_brush(data, 1, 3, name="m").tolist() == [[True, False, False]]


WHOLE = pack_brush(np.eye(4, dtype=bool))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "an end before"),
        (WHOLE[:6], "an end before"),
        (WHOLE[:-4], "an end before"),
        ([255] * 4 + WHOLE[4:], "expected 4 x 4 pixels"),
        ([300], "something else than bytes"),
        ([-1], "something else than bytes"),
        (WHOLE[:7] + [255] * 9, r"beyond its 64 values|an end before"),
    ],
)
def test_foreign_bytes_are_refused(values, why):
    with pytest.raises(InputError, match=why):
        unpack_brush(values, 4, 4, name="m")
