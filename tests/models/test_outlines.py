import numpy as np
import pytest

from models.outlines import fill_outline, outline


def drawn(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def area_of(points):
    """Area inside a polygon by the shoelace formula, in pixels squared."""
    x, y = points.astype(float).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


@pytest.mark.parametrize(
    "mask",
    [
        drawn("....", ".##.", ".##.", "...."),
        drawn("#"),
        drawn("####"),
        drawn("#", "#", "#"),
        drawn("##", "##"),
        drawn(".#.", "###", ".#."),
        drawn("#####", "#...#", "#...#", "#...#", "#####"),  # a hole whose cut has no width
        drawn("######", "######", "##..##", "##..##", "######", "######"),
    ],
)
def test_a_mask_in_one_piece_comes_back_pixel_for_pixel(mask):
    points = outline(mask)
    assert len(points) >= 3
    assert mask[points[:, 1], points[:, 0]].all()
    assert (fill_outline(points, *mask.shape) == mask).all()


def test_the_corners_of_a_square_are_the_centres_of_its_corner_pixels():
    mask = np.zeros((6, 6), bool)
    mask[1:5, 2:5] = True
    assert {tuple(point) for point in outline(mask).tolist()} == {(2, 1), (4, 1), (2, 4), (4, 4)}


def test_two_parts_are_joined_by_a_cut_at_their_nearest_points():
    mask = drawn("##....", "##..##", "....##")
    points = outline(mask)
    filled = fill_outline(points, *mask.shape)
    assert (filled >= mask).all()
    # The cut from (1, 1) to (4, 1) holds no area, but its pixels are under an edge.
    assert np.argwhere(filled & ~mask).tolist() == [[1, 2], [1, 3]]
    assert area_of(points) == 1 + 1


def test_an_island_in_a_hole_is_filled_and_the_hole_is_not():
    mask = np.ones((15, 15), bool)
    mask[3:12, 3:12] = False
    mask[6:9, 6:9] = True
    filled = fill_outline(outline(mask), *mask.shape)
    assert filled[7, 7]
    assert (filled != mask).sum() <= 3  # the pixels under the cut to the island


def test_ragged_masks_lose_no_pixel_and_gain_few():
    noise = np.random.default_rng(3).random((96, 96))
    coarse = np.kron(noise[::8, ::8] > 0.55, np.ones((8, 8), bool))
    filled = fill_outline(outline(coarse), *coarse.shape)
    assert (filled >= coarse).all()
    assert coarse.sum() / filled.sum() > 0.95


def test_a_mask_of_thousands_of_specks_loses_no_pixel():
    noise = np.random.default_rng(0).random((96, 96)) > 0.7
    points = outline(noise)
    assert noise[points[:, 1], points[:, 0]].all()
    assert (fill_outline(points, *noise.shape) >= noise).all()


def test_a_mask_without_a_pixel_has_no_outline():
    with pytest.raises(ValueError, match="no pixel"):
        outline(np.zeros((4, 4), bool))
