from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.labelling.attention.grabcut import grabcut_labels, grabcut_mask
from models.labelling.attention.thresholds import Seeds


def scene(noise=6.0):
    """Two squares on a ground, and their labels."""
    labels = np.zeros((48, 64), np.uint16)
    labels[8:28, 6:26] = 3
    labels[20:44, 36:58] = 7
    colours = np.zeros((48, 64, 3))
    for label, colour in {0: (60, 160, 70), 3: (210, 60, 50), 7: (40, 60, 200)}.items():
        colours[labels == label] = colour
    noisy = colours + np.random.default_rng(0).normal(0, noise, colours.shape)
    image = np.clip(noisy, 0, 255).astype(np.uint8)
    for each in (image, labels):
        each.flags.writeable = False  # as what is decoded is
    return image, labels


def blurred(labels, label):
    """A mask that is too large by two pixels and misses a corner."""
    rows, columns = np.nonzero(labels == label)
    mask = np.zeros(labels.shape, bool)
    mask[rows.min() - 2 : rows.max() + 3, columns.min() - 2 : columns.max() + 3] = True
    mask[rows.min() - 2 : rows.min() + 6, columns.min() - 2 : columns.min() + 6] = False
    return mask


def test_a_mask_takes_the_edges_of_the_colours():
    image, labels = scene()
    barred = Seeds(np.zeros(labels.shape, bool), labels == 7)
    found = grabcut_mask(image, blurred(labels, 3), barred)
    np.testing.assert_array_equal(found, labels == 3)


def test_classes_in_turn_give_the_label_map_back():
    image, labels = scene()
    rough = np.zeros_like(labels)
    for label in (3, 7):
        rough[blurred(labels, label)] = label
    rough[0:4] = 65535
    np.testing.assert_array_equal(grabcut_labels(image, rough), labels)


def test_what_is_surely_of_the_object_or_surely_not_stays_so():
    image, labels = scene()
    seeds = Seeds(np.zeros(labels.shape, bool), np.zeros(labels.shape, bool))
    seeds.foreground[0, 0] = seeds.background[15, 15] = True
    found = grabcut_mask(image, labels == 3, seeds)
    assert found[0, 0]
    assert not found[15, 15]


def test_the_same_input_gives_the_same_mask_in_any_thread():
    image, labels = scene(noise=90.0)
    mask = blurred(labels, 7)
    expected = grabcut_mask(image, mask)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: grabcut_mask(image, mask), range(16)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [(1, 1), (17, 333)])
@pytest.mark.parametrize("inside", [True, False])
def test_a_mask_of_everything_or_nothing_stays(size, inside):
    image = np.zeros((*size, 3), np.uint8)
    mask = np.full(size, inside)
    np.testing.assert_array_equal(grabcut_mask(image, mask), mask)
    labels = np.where(mask, 5, 0).astype(np.uint16)
    np.testing.assert_array_equal(grabcut_labels(image, labels), labels)


def test_ignored_pixels_alone_are_background():
    labels = np.full((9, 9), 65535, np.uint16)
    assert not grabcut_labels(np.zeros((9, 9, 3), np.uint8), labels).any()


@pytest.mark.parametrize("pixels", range(1, 7))
def test_an_image_of_one_colour_and_few_pixels_can_be_cut(pixels):
    mask = np.zeros((3, 3), bool)
    mask.flat[:pixels] = True
    assert grabcut_mask(np.zeros((3, 3, 3), np.uint8), mask).shape == (3, 3)
