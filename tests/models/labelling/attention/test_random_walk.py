import numpy as np
import pytest
import torch

from models.labelling.attention.affinity import pair_offsets, paired
from models.labelling.attention.random_walk import WalkSettings, random_walk
from storage.errors import InputError


def affinities_of(matrix, grid, radius):
    """Those of all pairs, from a matrix of cells by cells."""
    numbers = torch.arange(grid[0] * grid[1]).view(grid)
    pairs = [paired(numbers, offset) for offset in pair_offsets(radius)]
    return [matrix[own.numpy(), other.numpy()].astype(np.float32) for own, other in pairs]


def near_cells(grid, radius):
    places = np.argwhere(np.ones(grid))
    return ((places[:, None] - places) ** 2).sum(axis=2) < radius**2


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 6)])
def test_the_walk_is_the_power_of_the_matrix_of_transitions(grid):
    rng = np.random.default_rng(0)
    cells = grid[0] * grid[1]
    matrix = rng.uniform(0.5, 1, (cells, cells))
    matrix = np.maximum(matrix, matrix.T)
    maps = rng.random((2, *grid), np.float32)
    maps.flags.writeable = False
    settings = WalkSettings(power=2, doublings=3, background=0.3)
    found = random_walk(affinities_of(matrix, grid, 3), maps, 1, 3, settings)
    weights = np.where(near_cells(grid, 3), matrix, 0) ** 2
    np.fill_diagonal(weights, 1.0)
    transitions = np.linalg.matrix_power(weights / weights.sum(axis=0), 8)
    expected = maps.reshape(2, cells) @ transitions  # as AffinityNet has it: columns sum to 1
    np.testing.assert_allclose(found[1:], expected.reshape(maps.shape), atol=1e-5)
    np.testing.assert_allclose(found[0], 0.3, atol=1e-6)


def test_a_map_fills_what_is_alike_and_stops_at_what_is_not():
    square = np.zeros((8, 8), bool)
    square[2:6, 3:7] = True
    alike = square.ravel()[:, None] == square.ravel()
    maps = np.zeros((1, 16, 16), np.float32)
    maps[0, 4:12, 6:13] = 1.0  # all but the last of the square's 8 columns
    found = random_walk(affinities_of(np.where(alike, 1.0, 0.01), (8, 8), 5), maps, 2, 5)
    mask = found.argmax(axis=0) == 1
    np.testing.assert_array_equal(mask, np.kron(square, np.ones((2, 2), bool)))
    assert found[1, 8, 12] == pytest.approx(7 / 8, abs=0.01)


def test_cells_at_the_edge_are_means_of_the_pixels_that_they_have():
    maps = np.float32([[[0.2, 0.4, 0.9]]])  # cells of 2 pixels: .3 and .9
    settings = WalkSettings(doublings=0, power=1)
    [edge] = [each for each in affinities_of(np.zeros((2, 2)), (1, 2), 2) if each.size]
    empty = [np.zeros((1, 0), np.float32)] * 3
    affinities = [edge, *empty]
    found = random_walk(affinities, maps, 2, 2, settings)
    assert found.shape == (2, 1, 3)
    np.testing.assert_allclose(found[1, 0], [0.3, 0.45, 0.75], atol=1e-6)  # bilinear between them


@pytest.mark.parametrize("size", [(1, 1), (17, 333), (64, 64)])
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_maps_that_are_the_same_everywhere_stay_so(size, value):
    grid = tuple(-(-side // 8) for side in size)
    cells = grid[0] * grid[1]
    affinities = affinities_of(np.full((cells, cells), 0.8), grid, 5)
    found = random_walk(affinities, np.full((1, *size), value, np.float32), 8, 5)
    np.testing.assert_allclose(found[1], np.nan_to_num(value), atol=1e-5)
    np.testing.assert_allclose(found[0], 0.45, atol=1e-5)


def test_without_classes_there_is_background_alone():
    affinities = affinities_of(np.ones((4, 4)), (2, 2), 3)
    found = random_walk(affinities, np.zeros((0, 3, 4), np.float32), 2, 3)
    assert found.shape == (1, 3, 4)
    np.testing.assert_allclose(found, 0.45, atol=1e-6)


def test_affinities_of_another_image_or_radius_are_refused():
    maps = np.zeros((1, 8, 8), np.float32)
    affinities = affinities_of(np.ones((16, 16)), (4, 4), 3)
    with pytest.raises(InputError, match=r"came for a grid of \(8, 8\), expected"):
        random_walk(affinities, maps, 1, 3)
    with pytest.raises(InputError, match="pairs nearer than 5"):
        random_walk(affinities, maps, 2, 5)
