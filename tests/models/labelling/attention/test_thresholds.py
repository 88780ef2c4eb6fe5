import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.labelling.attention.thresholds import (
    SeedConstants,
    SeedLevels,
    banded_labels,
    seed_constants,
    seed_levels,
    threshold_seeds,
)
from storage.documents import validate
from storage.errors import InputError

DEFAULT = SeedConstants(
    low=0.45, high=0.53, strict=-0.04, generous=0.02, least_share=0.06, resolutions=(16, 32, 64)
)


def map_of(*parts):
    """A row of pixels: so many with this value, and so on."""
    return np.concatenate([np.full(count, value, np.float32) for count, value in parts])[None]


def test_the_published_constants_are_those_of_the_release():
    assert seed_constants("dog") == DEFAULT
    table = {
        "aeroplane": (0.48, 0.53, -0.02, 0.05, 0.06, (16, 32, 64)),
        "boat": (0.48, 0.53, -0.02, 0.05, 0.06, (16, 32, 64)),
        "diningtable": (0.55, 0.64, -0.04, 0.04, 0.06, (16,)),
        "person": (0.48, 0.55, 0.06, 0.06, 0.01, (16, 32, 64)),
        "sofa": (0.48, 0.58, -0.01, 0.07, 0.06, (8,)),
        "train": (0.45, 0.53, -0.04, 0.02, 0.06, (8,)),
        "tvmonitor": (0.45, 0.53, -0.04, 0.02, 0.06, (8,)),
    }
    for name, expected in table.items():
        assert tuple(seed_constants(name).model_dump().values()) == expected


def test_a_class_is_found_by_other_spellings_and_names():
    assert seed_constants("Dining table") == seed_constants("dining_table")
    assert seed_constants("dining-table") == seed_constants("diningtable") != DEFAULT
    assert seed_constants("airplane") == seed_constants("aeroplane")
    assert seed_constants("train (railroad vehicle)") == seed_constants("train")
    assert seed_constants("") == DEFAULT


def test_constants_without_a_bin_are_refused():
    row = DEFAULT.model_dump() | {"high": 0.45}
    with pytest.raises(InputError, match=r"high 0.45 is not above low 0.45"):
        validate(SeedConstants, row, "row")


def test_the_threshold_is_the_fullest_bin_and_the_levels_are_means_on_its_sides():
    # The bin from .47 to .48 has 30 pixels; 30 of .475 and 20 of .9 are above, 25 of .1 below.
    found = seed_levels(map_of((25, 0.0), (25, 0.1), (30, 0.475), (20, 0.9)), DEFAULT)
    assert found.strict == pytest.approx((30 * 0.475 + 20 * 0.9) / 50 - 0.04)
    assert found.generous == pytest.approx(0.05 + 0.02)


def test_of_equally_full_bins_the_lower_one_counts():
    values = map_of((20, 0.1), (20, 0.2), (20, 0.515), (20, 0.465), (20, 0.8))
    found = seed_levels(values, DEFAULT)
    assert found.strict == pytest.approx((0.515 + 0.465 + 0.8) / 3 - 0.04)


def test_a_value_at_an_edge_is_in_no_bin():
    # float32 holds 1/2 exactly; the 40 pixels at it do not count, the 2 at .465 do.
    found = seed_levels(map_of((40, 0.5), (2, 0.465), (24, 0.0), (24, 0.1), (10, 0.75)), DEFAULT)
    assert found.generous == pytest.approx(0.05 + 0.02)
    assert found.strict == pytest.approx((40 * 0.5 + 2 * 0.465 + 10 * 0.75) / 52 - 0.04)


def test_the_threshold_falls_while_too_little_is_above_the_mean():
    # At .45 four pixels of 1 are above: their mean is 1, which nothing passes. It falls by .03 to
    # .42, .39 (now .40 is above: mean .55, still 4 % above it) and on to .27, where it ends.
    values = map_of((56, 0.05), (4, 1.0), (12, 0.4), (28, 0.28))
    found = seed_levels(values, DEFAULT)
    assert found.strict == pytest.approx((4 * 1.0 + 12 * 0.4 + 28 * 0.28) / 44 - 0.04)
    assert found.generous == pytest.approx(0.05 + 0.02)


def test_the_threshold_rises_while_too_little_is_below_the_mean():
    # Nothing is below .45, so the mean of what is below is the threshold, which nothing passes,
    # until .60 is below it; then 6 pixels of .55 are below the mean of .55 and .57.
    values = map_of((6, 0.55), (14, 0.57), (80, 0.9))
    found = seed_levels(values, DEFAULT)
    assert found.generous == pytest.approx((6 * 0.55 + 14 * 0.57) / 20 + 0.02)
    assert found.strict == pytest.approx(0.9 - 0.04)


def test_seeds_are_above_both_levels_or_above_neither():
    values = map_of((1, 0.1), (1, 0.25), (1, 0.5), (1, 0.75), (1, 0.9))
    found = threshold_seeds(values, SeedLevels(strict=0.75, generous=0.25))
    assert found.foreground.tolist() == [[False, False, False, False, True]]
    assert found.background.tolist() == [[True, True, False, False, False]]
    assert found.labels(8).tolist() == [[0, 0, 65535, 65535, 8]]


def test_what_lies_between_levels_in_the_wrong_order_is_unsure():
    values = map_of((1, 0.1), (1, 0.5), (1, 0.9))
    found = threshold_seeds(values, SeedLevels(strict=0.3, generous=0.7))
    assert found.foreground.tolist() == [[False, False, True]]
    assert found.background.tolist() == [[True, False, False]]


@pytest.mark.parametrize("size", [(1, 1), (17, 333), (64, 64)])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_map_that_says_nothing_has_background_alone(size, value):
    values = np.full(size, value, np.float32)
    seeds = threshold_seeds(values, seed_levels(values, DEFAULT))
    assert not seeds.foreground.any()
    assert seeds.background.all()


def test_a_class_that_covers_everything_has_no_background():
    values = np.ones((17, 33), np.float32)
    seeds = threshold_seeds(values, seed_levels(values, DEFAULT))
    assert seeds.foreground.all()
    assert not seeds.background.any()


@given(
    values=arrays(np.float32, (6, 7), elements=st.floats(0, 1, width=32)),
    name=st.sampled_from(["dog", "person", "sofa", "diningtable", "boat"]),
)
def test_levels_are_finite_and_seeds_do_not_overlap(values, name):
    levels = seed_levels(values, seed_constants(name))
    assert np.isfinite([levels.strict, levels.generous]).all()
    seeds = threshold_seeds(values, levels)
    assert not (seeds.foreground & seeds.background).any()


def test_each_pixel_has_the_label_of_its_highest_map_outside_the_uncertain_band():
    maps = np.float32([[[0.9, 0.6, 0.55, 0.2]], [[0.1, 0.7, 0.5, 0.49]]])
    assert banded_labels(maps, [5, 9]).tolist() == [[5, 9, 65535, 0]]


def test_a_value_at_a_threshold_is_not_below_it():
    maps = np.float32([[[0.5, 0.25, 0.125]]])
    found = banded_labels(maps, [3], foreground=0.5, uncertain=0.25)
    assert found.tolist() == [[3, 65535, 0]]


def test_one_threshold_leaves_nothing_uncertain():
    maps = np.float32([[[0.5, 0.49]]])
    assert banded_labels(maps, [1], foreground=0.5, uncertain=0.5).tolist() == [[1, 0]]


def test_of_equal_maps_the_first_wins_and_nan_is_nothing():
    maps = np.float32([[[0.8, np.nan]], [[0.8, np.nan]]])
    assert banded_labels(maps, [7, 8]).tolist() == [[7, 0]]


def test_no_classes_are_background():
    found = banded_labels(np.zeros((0, 17, 333), np.float32), [])
    assert found.shape == (17, 333)
    assert found.dtype == np.uint16
    assert not found.any()


@pytest.mark.parametrize(("uncertain", "foreground"), [(0.6, 0.5), (0.0, 0.5), (0.5, 1.1)])
def test_thresholds_out_of_order_are_refused(uncertain, foreground):
    with pytest.raises(InputError, match="expected 0 < uncertain <= foreground <= 1"):
        banded_labels(
            np.zeros((1, 2, 2), np.float32), [1], foreground=foreground, uncertain=uncertain
        )


def test_labels_of_another_count_are_refused():
    with pytest.raises(InputError, match="1 maps came with 2 labels"):
        banded_labels(np.zeros((1, 2, 2), np.float32), [1, 2])
