import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.labelling.attention.aggregation import diffumask_map, refined_map
from storage.errors import InputError

SIZES = [(1, 1), (17, 333), (8, 8), (64, 48)]


def maps_of(*tokens):
    return np.array(tokens, np.float32)


def test_a_map_at_the_size_of_the_image_is_divided_by_its_maximum_alone():
    found = diffumask_map({2: maps_of([[0.1, 0.2], [0.4, 0.3]])}, {2: 1.0}, (2, 2))
    np.testing.assert_allclose(found, [[0.25, 0.5], [1.0, 0.75]], atol=1e-6)


def test_tokens_are_averaged_after_each_has_been_divided():
    found = diffumask_map({2: maps_of([[1, 0], [0, 0]], [[0, 4], [2, 0]])}, {2: 3.0}, (2, 2))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.25, 0.0]], atol=1e-6)


def test_resolutions_are_averaged_by_their_weights():
    maps = {1: maps_of([[0.3]]), 2: maps_of([[0.0, 0.2], [0.1, 0.0]])}
    found = diffumask_map(maps, {1: 1.0, 2: 3.0}, (2, 2))
    np.testing.assert_allclose(found, [[0.25, 1.0], [0.625, 0.25]], atol=1e-6)


def test_a_resolution_without_weight_is_not_read():
    maps = {2: maps_of([[1.0, 0.5], [0.5, 0.5]]), 1: maps_of([[np.nan]])}
    found = diffumask_map(maps, {1: 0.0, 2: 1.0}, (2, 2))
    np.testing.assert_allclose(found, maps[2][0], atol=1e-6)


def test_an_object_is_where_its_attention_is_after_the_enlargement():
    planted = np.zeros((1, 8, 8), np.float32)
    planted[0, 2:5, 3:7] = 0.5
    found = diffumask_map({8: planted}, {8: 1.0}, (64, 64))
    expected = np.zeros((64, 64), bool)
    expected[16:40, 24:56] = True
    assert ((found > 0.5) != expected).mean() < 0.03  # the corners are rounded
    assert found.max() == pytest.approx(1.0)
    assert found.min() == 0.0  # what bicubic interpolation lets fall below


@pytest.mark.parametrize("dead", [0.0, np.nan, np.inf, -1.0])
def test_a_token_that_says_nothing_is_left_out(dead):
    good = [[0.1, 0.2], [0.4, 0.3]]
    maps = maps_of(good, np.full((2, 2), dead))
    found = diffumask_map({2: maps}, {2: 1.0}, (2, 2))
    np.testing.assert_allclose(found, np.float32(good) / 0.4, atol=1e-6)
    assert not diffumask_map({2: maps[1:]}, {2: 1.0}, (5, 7)).any()


def test_a_resolution_where_no_token_says_anything_is_left_out():
    maps = {1: maps_of([[0.0]]), 2: maps_of([[0.1, 0.2], [0.4, 0.3]])}
    found = diffumask_map(maps, {1: 1.0, 2: 1.0}, (2, 2))
    np.testing.assert_allclose(found, [[0.25, 0.5], [1.0, 0.75]], atol=1e-6)


def test_a_class_without_tokens_has_a_map_of_zeros():
    empty = np.zeros((0, 4, 4), np.float32)
    assert not diffumask_map({4: empty}, {4: 1.0}, (9, 9)).any()
    assert not refined_map(empty, np.eye(16, dtype=np.float32), (4, 4), 4, (9, 9)).any()


@pytest.mark.parametrize("size", SIZES)
def test_any_size_of_image_gets_finite_values_between_0_and_1(size):
    rng = np.random.default_rng(0)
    maps = {side: rng.random((2, side, side), np.float32) for side in (4, 8)}
    attention = rng.random((16, 16), np.float32)
    for found in (
        diffumask_map(maps, {4: 1.0, 8: 1.0}, size),
        refined_map(maps[8], attention, (4, 4), 2, size),
    ):
        assert found.shape == size
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert 0.0 <= found.min() <= found.max() <= 1.0


def test_weights_that_cannot_be_used_are_refused():
    maps = {8: np.ones((1, 8, 8), np.float32)}
    with pytest.raises(InputError, match=r"recorded at the resolutions \[8\], but \[16, 64\]"):
        diffumask_map(maps, {8: 1.0, 64: 1.0, 16: 1.0}, (8, 8))
    for weights in ({}, {8: 0.0}, {8: -1.0}):
        with pytest.raises(InputError, match="none below 0 and one above 0"):
            diffumask_map(maps, weights, (8, 8))


def test_self_attention_carries_a_map_as_the_power_of_its_matrix_does():
    attention = np.float32([[0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, 0.5]])
    cross = maps_of([[0.8, 0.0], [0.2, 0.0]])
    found = refined_map(cross, attention, (2, 2), 3, (2, 2))
    carried = np.linalg.matrix_power(attention.astype(float), 3) @ cross.ravel()
    expected = (carried - carried.min()) / (carried.max() - carried.min())
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)


def test_a_segment_of_self_attention_is_filled_from_one_cell():
    segment = np.zeros((8, 8), bool)
    segment[2:6, 1:4] = True
    inside = segment.ravel()
    attention = (inside[:, None] == inside).astype(np.float32)
    attention /= attention.sum(axis=1, keepdims=True)
    cross = np.zeros((1, 8, 8), np.float32)
    cross[0, 3, 2] = 1.0
    found = refined_map(cross, attention, (8, 8), 1, (8, 8))
    np.testing.assert_array_equal(found, segment)


def test_rows_that_half_precision_keeps_from_summing_to_1_count_as_if_they_did():
    rng = np.random.default_rng(1)
    attention = rng.random((16, 16)).astype(np.float32)
    attention /= attention.sum(axis=1, keepdims=True)
    cross = rng.random((1, 4, 4), np.float32)
    exact = refined_map(cross, attention, (4, 4), 2, (4, 4))
    scaled = attention * rng.uniform(0.99, 1.01, (16, 1)).astype(np.float32)
    np.testing.assert_allclose(refined_map(cross, scaled, (4, 4), 2, (4, 4)), exact, atol=1e-4)


def test_arrays_that_may_not_be_written_are_read():
    cross = np.random.default_rng(2).random((1, 4, 4), np.float32)
    attention = np.eye(16, dtype=np.float32)
    for each in (cross, attention):
        each.flags.writeable = False
    assert diffumask_map({4: cross}, {4: 1.0}, (4, 4)).max() == 1.0
    assert refined_map(cross, attention, (4, 4), 1, (4, 4)).max() == 1.0


def test_without_self_attention_a_map_is_stretched_and_enlarged():
    cross = maps_of([[0.1, 0.2], [0.3, 0.5]])
    expected = [[0.0, 0.25], [0.5, 1.0]]
    np.testing.assert_allclose(refined_map(cross, None, None, 0, (2, 2)), expected, atol=1e-6)
    identity = np.eye(4, dtype=np.float32)
    same = refined_map(cross, identity, (2, 2), 8, (2, 2))
    np.testing.assert_allclose(same, expected, atol=1e-6)


def test_a_map_that_is_the_same_everywhere_is_not_stretched():
    flat = np.full((1, 4, 4), 0.3, np.float32)
    assert not refined_map(flat, None, None, 0, (8, 8)).any()
    mixing = np.full((16, 16), 1 / 16, np.float32)
    peaked = np.random.default_rng(2).random((1, 4, 4), np.float32)
    assert not refined_map(peaked, mixing, (4, 4), 8, (8, 8)).any()
    assert not refined_map(maps_of([[0.7]]), np.ones((1, 1), np.float32), (1, 1), 4, (3, 3)).any()


def test_self_attention_that_is_not_finite_says_nothing():
    cross = np.random.default_rng(2).random((1, 4, 4), np.float32)
    attention = np.full((16, 16), np.nan, np.float32)
    assert not refined_map(cross, attention, (4, 4), 1, (8, 8)).any()
    dead = np.zeros((16, 16), np.float32)
    assert not refined_map(cross, dead, (4, 4), 1, (8, 8)).any()


def test_a_grid_and_a_power_that_do_not_fit_are_refused():
    cross = np.ones((1, 4, 4), np.float32)
    attention = np.eye(16, dtype=np.float32)
    for grid in (None, (4, 5)):
        with pytest.raises(InputError, match="16 cells came with the grid"):
            refined_map(cross, attention, grid, 1, (8, 8))
    with pytest.raises(InputError, match="no self-attention was recorded and its power is 4"):
        refined_map(cross, None, None, 4, (8, 8))
    with pytest.raises(InputError, match="power is -1"):
        refined_map(cross, attention, (4, 4), -1, (8, 8))


@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_how_strong_attention_is_does_not_matter(seed, scale):
    maps = np.random.default_rng(seed).random((2, 4, 4)).astype(np.float32)
    scaled = maps * np.float32(scale)
    found = diffumask_map({4: maps}, {4: 1.0}, (8, 8))
    np.testing.assert_allclose(diffumask_map({4: scaled}, {4: 1.0}, (8, 8)), found, atol=1e-5)
    found = refined_map(maps, None, None, 0, (8, 8))
    np.testing.assert_allclose(refined_map(scaled, None, None, 0, (8, 8)), found, atol=1e-4)
