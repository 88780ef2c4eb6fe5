"""Colours and sizes beside mmsegmentation's own transforms, on the same draws."""

import numpy as np
import pytest

from models.closed_sets.openmmlab import BaseModel  # makes mmcv and mmseg usable
from models.miniature import world
from training.augmentation import LabelledPair, augment
from training.config import AugmentationConfig

assert BaseModel
mmcv = pytest.importorskip("mmcv")
transforms = pytest.importorskip("mmseg.datasets.transforms")

SIDE = 96
COLOURS = ("brightness", "contrast", "saturation", "hue")
EVERY_COLOUR = AugmentationConfig(min_scale=1, max_scale=1, flip=0)


def picture(seed, height=SIDE, width=SIDE):
    """A drawn scene with noise, so that there are many colours."""
    rng = np.random.default_rng(seed)
    scene = world.render(world.sample_scene(rng, num_things=2)).astype(int)
    rows, columns = (np.arange(n) * world.CANVAS // n for n in (height, width))
    scene = scene[rows[:, None], columns]
    return np.clip(scene + rng.integers(-40, 41, scene.shape), 0, 255).astype(np.uint8)


def view(image, config, seed):
    labels = np.zeros(image.shape[:2], np.uint16)
    rng = np.random.default_rng(seed)
    return augment(LabelledPair(image, None, labels), SIDE, config, rng, padding=(0, 0, 0)).image


def colour_draws(config, seed):
    """What `augment` draws for the colours of an image at scale 1."""
    rng = np.random.default_rng(seed)
    rng.uniform(config.min_scale, config.max_scale)
    for _ in range(2 * config.crop_tries):
        rng.integers(1)
    rng.random()
    happens = rng.random(5) < 0.5
    return happens, rng.uniform(-1.0, 1.0, 4)


def distorted_by_mmsegmentation(image, config, seed):
    """PhotoMetricDistortion, its own functions in its own order."""
    theirs = transforms.PhotoMetricDistortion()
    happens, drawn = colour_draws(config, seed)
    brightness, contrast, saturation, hue = drawn
    found = image[..., ::-1]  # blue first
    if happens[0]:
        found = theirs.convert(found, beta=brightness * config.brightness)
    if happens[1] and happens[4]:
        found = theirs.convert(found, alpha=1 + contrast * config.contrast)
    if happens[2] and config.saturation:
        found = mmcv.bgr2hsv(found)
        found[..., 1] = theirs.convert(found[..., 1], alpha=1 + saturation * config.saturation)
        found = mmcv.hsv2bgr(found)
    if happens[3] and config.hue:
        found = mmcv.bgr2hsv(found)
        found[..., 0] = (found[..., 0].astype(int) + round(hue * config.hue / 2)) % 180
        found = mmcv.hsv2bgr(found)
    if happens[1] and not happens[4]:
        found = theirs.convert(found, alpha=1 + contrast * config.contrast)
    return found[..., ::-1]


@pytest.mark.parametrize("only", [*COLOURS, None])
def test_colours_are_those_of_mmsegmentation(only):
    still = {} if only is None else dict.fromkeys(set(COLOURS) - {only}, 0)
    config = EVERY_COLOUR.model_copy(update=still)
    for seed in range(20):
        image = picture(seed)
        found = view(image, config, seed).astype(int)
        difference = np.abs(found - distorted_by_mmsegmentation(image, config, seed))
        # It cuts levels off where ours rounds them, and turns colours twice where ours does once.
        assert difference.mean() < 2.0, seed
        if only in ("brightness", "contrast"):
            assert difference.max() <= 1, seed


@pytest.mark.parametrize("degrees", [36, 180])
def test_turned_hues_are_exactly_those_of_mmsegmentation(degrees):
    config = EVERY_COLOUR.model_copy(
        update={"brightness": 0, "contrast": 0, "saturation": 0, "hue": degrees}
    )
    for seed in range(20):
        image = picture(seed)
        expected = distorted_by_mmsegmentation(image, config, seed)
        np.testing.assert_array_equal(view(image, config, seed), expected)


@pytest.mark.parametrize("scale", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("shape", [(80, 64), (64, 80), (64, 300), (64, 1500)])
def test_what_is_enlarged_is_what_mmcv_enlarges(scale, shape):
    still = dict.fromkeys(COLOURS, 0)
    config = AugmentationConfig(min_scale=scale, max_scale=scale, crop_tries=1, flip=0, **still)
    image = picture(3, *shape)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rng.uniform(scale, scale)
        factor = scale * SIDE / min(shape)
        rows, columns = (round(side * factor) for side in shape)
        top, left = (int(rng.integers(n - SIDE + 1)) for n in (rows, columns))
        whole = mmcv.imresize(image, (columns, rows)).astype(int)
        difference = np.abs(view(image, config, seed) - whole[top : top + SIDE, left : left + SIDE])
        # A long image is cut by Pillow, which rounds in another way.
        assert difference.max() <= (0 if rows * columns <= 8 * SIDE**2 else 1)
