"""Perspective, blur and hidden parts: shared by image, twin and labels, and off by default."""

import numpy as np
import pytest

from storage.records import IGNORE_LABEL
from training.augmentation import LabelledPair
from training.config import AugmentationConfig
from training.disturbances import disturb

SIDE = 64


def view():
    """A picture whose red channel says the label, and a twin that is the same turned to blue."""
    labels = np.zeros((SIDE, SIDE), np.uint16)
    labels[20:50, 10:40] = 1204
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[..., 0] = np.where(labels > 0, 255, 0)
    image[..., 1] = np.arange(SIDE) * 4
    return LabelledPair(image, image[..., ::-1].copy(), labels)


def run(seed, stored=None, **settings):
    return disturb(stored or view(), AugmentationConfig(**settings), np.random.default_rng(seed))


def assert_equal(first, second):
    for name in ("image", "counterfactual", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_nothing_happens_and_nothing_is_drawn_by_default():
    rng = np.random.default_rng(3)
    assert disturb(view(), AugmentationConfig(), rng).labels is not None
    assert_equal(disturb(view(), AugmentationConfig(), rng), view())
    assert rng.random() == np.random.default_rng(3).random()


@pytest.mark.parametrize("name", ["perspective", "blur", "occlusion"])
def test_the_same_generator_disturbs_alike_and_both_pictures_alike(name):
    changed = 0
    for seed in range(10):
        found = run(seed, **{name: 1})
        assert_equal(found, run(seed, **{name: 1}))
        if name != "occlusion":  # a rectangle has one colour in both
            np.testing.assert_array_equal(found.image, found.counterfactual[..., ::-1])
        changed += not np.array_equal(found.image, view().image)
    assert changed == 10
    shares = [np.array_equal(run(s, **{name: 0.5}).image, view().image) for s in range(200)]
    assert 0.35 < np.mean(shares) < 0.65


def test_perspective_keeps_labels_with_the_picture_and_shows_nothing_from_outside():
    for seed in range(20):
        found = run(seed, perspective=1)
        assert set(np.unique(found.labels)) <= {0, 1204}
        red = found.image[..., 0] > 127
        assert ((found.labels > 0) != red).mean() < 0.03
        assert (found.labels > 0).sum() >= 0.8 * (view().labels > 0).sum()  # it is nearer


def test_a_view_from_the_front_is_the_view():
    found = run(0, perspective=1, perspective_shift=1e-9)
    np.testing.assert_array_equal(found.labels, view().labels)
    assert np.abs(found.image.astype(int) - view().image).max() <= 1


def test_blur_leaves_labels_alone_and_is_bounded():
    found = run(1, blur=1, blur_sigma=1.5)
    np.testing.assert_array_equal(found.labels, view().labels)
    assert found.image[20:50, 10:40, 0][15, 15] == 255
    assert 0 < found.image[35, 10, 0] < 255


def test_what_is_hidden_is_ignored_and_nothing_else_changes():
    for seed in range(20):
        found = run(seed, occlusion=1, occlusion_patches=2, occlusion_size=0.3)
        hidden = found.labels == IGNORE_LABEL
        assert 0 < hidden.sum() <= 2 * 19 * 19
        np.testing.assert_array_equal(found.labels[~hidden], view().labels[~hidden])
        np.testing.assert_array_equal(found.image[~hidden], view().image[~hidden])
        np.testing.assert_array_equal(found.image[hidden], found.counterfactual[hidden])


def test_a_view_without_twin_stays_without():
    alone = LabelledPair(view().image, None, view().labels)
    found = run(2, alone, perspective=1, blur=1, occlusion=1)
    assert found.counterfactual is None
    assert not np.array_equal(found.image, alone.image)
