import numpy as np
import pytest

from models.labelling.attention.dense_crf import MASK_CRF, SEED_CRF, DenseCrf
from models.labelling.attention.final_threshold import choose_mask, fill_holes
from models.labelling.attention.seeds import field_seeds
from models.labelling.attention.thresholds import SeedLevels
from storage.errors import InputError

NO_KERNELS = {"near_weight": 0.0, "alike_weight": 0.0}
PLAIN = MASK_CRF.model_copy(update=NO_KERNELS)


def plain_field(size):
    """A field without kernels, whose masks are those of the map."""
    return DenseCrf(np.zeros((*size, 3), np.uint8), PLAIN)


def text_mask(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_the_threshold_is_that_whose_mask_agrees_best_with_the_walk():
    class_map = np.float32([[0.2, 0.405, 0.455, 0.9]])
    walked = np.array([[False, False, True, True]])
    found = choose_mask(class_map, walked, plain_field((1, 4)))
    # From .41 on the mask is that of the walk, and 2 / (2 + 2) is the best there can be.
    assert found.threshold == pytest.approx(0.41)
    assert found.agreement == 0.5
    np.testing.assert_array_equal(found.mask, walked)


def test_without_overlap_there_is_no_mask():
    class_map = np.float32([[0.9, 0.1]])
    assert choose_mask(class_map, np.array([[False, True]]), plain_field((1, 2))) is None
    assert choose_mask(class_map, np.array([[False, False]]), plain_field((1, 2))) is None


@pytest.mark.parametrize("value", [0.0, np.nan])
@pytest.mark.parametrize("size", [(1, 1), (17, 333)])
def test_a_map_that_says_nothing_has_no_mask(value, size):
    walked = np.ones(size, bool)
    assert choose_mask(np.full(size, value, np.float32), walked, plain_field(size)) is None


def test_a_class_that_covers_everything_does():
    walked = np.ones((17, 33), bool)
    found = choose_mask(np.ones((17, 33), np.float32), walked, plain_field((17, 33)))
    assert found.mask.all()
    assert found.threshold == pytest.approx(0.35)


def test_masks_are_refined_by_the_image_before_they_are_compared():
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = 220
    square = image[..., 0] > 0
    class_map = np.zeros((40, 40), np.float32)
    class_map[12:30, 11:31] = 0.6  # a little beside the square
    found = choose_mask(class_map, np.roll(square, 1, axis=0), DenseCrf(image, MASK_CRF))
    np.testing.assert_array_equal(found.mask, square)


def test_sizes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"the image's size \(3, 2\)"):
        choose_mask(np.zeros((2, 3), np.float32), np.ones((2, 3), bool), plain_field((3, 2)))


def test_holes_are_filled_in_parts_that_are_not_small():
    mask = text_mask(
        ".####...###",
        "##..#...#.#",
        "#...#...###",
        "#####......",
        "........###",
        "........#..",
        "........###",
    )
    expected = text_mask(
        ".####...###",
        "#####...#.#",
        "#####...###",
        "#####......",
        "........###",
        "........#..",
        "........###",
    )
    np.testing.assert_array_equal(fill_holes(mask, 10 / 77), expected)
    assert fill_holes(mask, 9 / 77)[1, 9]  # the box of 9 pixels is no longer small
    assert not fill_holes(mask, 9 / 77)[5, 9]  # which is open


def test_a_hole_that_touches_the_outside_at_a_corner_is_one():
    mask = text_mask("###", "#.#", "##.")
    assert fill_holes(mask, 0.0).tolist() == [[True] * 3, [True] * 3, [True, True, False]]


def test_seeds_take_the_edges_of_the_image_and_leave_the_rest_unsure():
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = 220
    square = image[..., 0] > 0
    class_map = np.full((40, 40), 0.1, np.float32)
    class_map[11:29, 12:30] = 0.8
    class_map[0:6, 0:6] = 0.5  # between the levels, and of the background's colour
    found = field_seeds(class_map, SeedLevels(0.6, 0.3), DenseCrf(image, SEED_CRF))
    np.testing.assert_array_equal(found.foreground, square)
    assert found.background[square].sum() == 0
    assert not (found.foreground & found.background).any()
    plain = DenseCrf(image, SEED_CRF.model_copy(update=NO_KERNELS))
    found = field_seeds(class_map, SeedLevels(0.6, 0.3), plain)
    assert (found.labels(4)[0:6, 0:6] == 65535).all()
