import numpy as np
import pytest

from storage.errors import InputError
from storage.records import IGNORE_LABEL
from training.augmentation import LabelledPair, augment
from training.config import AugmentationConfig

GREY = (122, 116, 104)
STILL = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}


def pair(height=48, width=64):
    """A picture whose red channel is the label, with an object in one corner."""
    labels = np.zeros((height, width), np.uint16)
    labels[4:16, 40:60] = 200
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = labels
    image[..., 1] = np.linspace(0, 255, width).astype(np.uint8)
    return LabelledPair(image, image[..., ::-1].copy(), labels)


def config(**changes):
    return AugmentationConfig(**{**STILL, **changes})


def run(seed, settings, side=32, stored=None):
    rng = np.random.default_rng(seed)
    return augment(stored or pair(), side, settings, rng, padding=GREY)


def test_pair_and_labels_stay_aligned():
    for seed in range(20):
        found = run(seed, config())
        assert found.image.shape == found.counterfactual.shape == (32, 32, 3)
        inside = found.labels != IGNORE_LABEL
        np.testing.assert_array_equal(found.image[inside][:, ::-1], found.counterfactual[inside])
        red = found.image[..., 0] > 100
        # Bilinear edges and nearest labels may differ by a pixel along the border of the object.
        assert ((found.labels == 200) != red)[inside].mean() < 0.1


def test_the_same_generator_gives_the_same_view():
    first, second = (run(5, AugmentationConfig()) for _ in range(2))
    for name in ("image", "counterfactual", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_small_views_are_padded_at_the_bottom_and_right_with_ignored_pixels():
    found = run(0, config(min_scale=0.5, max_scale=0.5, flip=0))
    assert (found.labels[16:] == IGNORE_LABEL).all()
    assert (found.labels[:16, :21] != IGNORE_LABEL).all()
    assert (found.labels[:, 21:] == IGNORE_LABEL).all()
    assert (found.image[found.labels == IGNORE_LABEL] == GREY).all()


def test_a_view_of_the_stored_size_is_the_image_itself():
    stored = pair(32, 32)
    found = run(0, config(min_scale=1, max_scale=1, flip=0), stored=stored)
    np.testing.assert_array_equal(found.image, stored.image)
    np.testing.assert_array_equal(found.labels, stored.labels)


def test_a_flip_turns_all_three():
    stored = pair(32, 32)
    found = run(0, config(min_scale=1, max_scale=1, flip=1), stored=stored)
    np.testing.assert_array_equal(found.image, stored.image[:, ::-1])
    np.testing.assert_array_equal(found.counterfactual, stored.counterfactual[:, ::-1])
    np.testing.assert_array_equal(found.labels, stored.labels[:, ::-1])


def test_the_object_rule_keeps_the_object_in_view():
    def shown(rule):
        settings = config(crop_rule=rule, min_scale=2, max_scale=2, crop_tries=50)
        return [int((run(seed, settings).labels == 200).any()) for seed in range(40)]

    assert sum(shown("object")) == 40
    assert sum(shown("released")) < 40


def test_the_released_rule_looks_for_two_balanced_classes():
    stored = pair()
    stored.labels[20:32, 30:42] = 7

    def balanced(tries):
        settings = config(min_scale=1.5, max_scale=1.5, crop_tries=tries, flip=0)
        good = 0
        for seed in range(30):
            labels = run(seed, settings, stored=stored).labels
            counts = np.bincount(labels[labels < IGNORE_LABEL], minlength=201)[[7, 200]]
            good += counts.min() > 0 and counts.max() < 0.75 * counts.sum()
        return good

    assert balanced(1) < 25
    assert balanced(100) == 30


def test_colours_differ_within_a_pair_unless_shared():
    stored = pair()
    same = LabelledPair(stored.image, stored.image, stored.labels)
    settings = AugmentationConfig(min_scale=1, max_scale=1)
    apart = [run(s, settings, stored=same) for s in range(5)]
    assert any((v.image != v.counterfactual).any() for v in apart)
    shared = settings.model_copy(update={"shared_colours": True})
    for seed in range(5):
        found = run(seed, shared, stored=same)
        np.testing.assert_array_equal(found.image, found.counterfactual)


def test_brightness_shifts_levels_by_its_draw():
    flat = np.full((32, 32, 3), 100, np.uint8)
    stored = LabelledPair(flat, flat, np.zeros((32, 32), np.uint16))
    settings = config(min_scale=1, max_scale=1, brightness=32)
    levels = {int(run(s, settings, stored=stored).image[0, 0, 0]) for s in range(60)}
    assert 100 in levels
    assert min(levels) >= 68
    assert max(levels) <= 132
    assert max(levels) - min(levels) > 40


def test_hue_turns_colours_and_leaves_grey_alone():
    image = np.full((32, 32, 3), 100, np.uint8)
    image[:16] = (200, 20, 20)
    stored = LabelledPair(image, image, np.zeros((32, 32), np.uint16))
    settings = config(min_scale=1, max_scale=1, hue=180, flip=0)
    found = [run(s, settings, stored=stored).image for s in range(20)]
    assert any(v[0, 0, 0] < 100 for v in found)
    assert all((v[20, 5] == 100).all() for v in found)


def test_a_pair_of_two_sizes_is_refused():
    stored = pair()
    broken = LabelledPair(stored.image, stored.counterfactual[:10], stored.labels)
    with pytest.raises(InputError, match="expected one size"):
        run(0, config(), stored=broken)


def test_scales_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="expected at most max_scale"):
        AugmentationConfig(min_scale=2, max_scale=1)
