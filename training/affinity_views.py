"""Random views of an image and its seeds for the training of affinities."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageEnhance

from storage.records import IGNORE_LABEL
from training.affinity_config import AffinityConfig

_GREY = 127  # of what lies outside the image; it has no labels
_LEVELS = 256


@dataclass(frozen=True, eq=False)
class SeededImage:
    """An image and the labels that are taken for granted in it.

    Attributes:
        image: RGB.
        labels: Class index plus one, 0 for background, 65535 for pixels that are unsure.
    """

    image: UInt8[np.ndarray, "height width 3"]
    labels: UInt16[np.ndarray, "height width"]


@runtime_checkable
class SeededImages(Protocol):
    """Images by number; one is read whenever it is shown, is the same each time, in any thread."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, number: int, /) -> SeededImage:
        """Read one, 0 being the first."""
        ...


def seeded_view(item: SeededImage, config: AffinityConfig, rng: np.random.Generator) -> SeededImage:
    """Draw a square view: a crop, mirrored or not, in changed colours.

    Args:
        item: As stored; where it is smaller than the crop, the rest is grey and unsure.
        config: How views differ.
        rng: Of this position of the training.
    """
    side = config.crop
    height, width = item.labels.shape
    top, left = (int(rng.integers(max(0, each - side) + 1)) for each in (height, width))
    part = slice(top, top + side), slice(left, left + side)
    image, labels = item.image[part], item.labels[part]
    if rng.random() < config.flip:
        image, labels = image[:, ::-1], labels[:, ::-1]
    canvas = np.full((side, side, 3), _GREY, np.uint8)
    marks = np.full((side, side), IGNORE_LABEL, np.uint16)
    canvas[: image.shape[0], : image.shape[1]] = _recoloured(image, config, rng)
    marks[: labels.shape[0], : labels.shape[1]] = labels
    return SeededImage(canvas, marks)


def _recoloured(
    image: UInt8[np.ndarray, "height width 3"], config: AffinityConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "height width 3"]:
    """Change brightness, contrast, saturation and hue, in an order of its own each time."""
    strengths = [config.brightness, config.contrast, config.saturation, config.hue]
    drawn = (rng.uniform(-1.0, 1.0, 4) * strengths).tolist()
    picture = Image.fromarray(np.ascontiguousarray(image))
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind in rng.permutation(4).tolist():
        if kind < len(enhancers):
            picture = enhancers[kind](picture).enhance(1.0 + drawn[kind])
        else:
            picture = _turned(picture, drawn[kind])
    return np.asarray(picture)


def _turned(picture: Image.Image, share: float) -> Image.Image:
    """Turn all hues by a share of the circle."""
    levels = list(range(_LEVELS))
    shift = round(share * _LEVELS)
    hues = [(level + shift) % _LEVELS for level in levels]
    return picture.convert("HSV").point(hues + levels * 2).convert("RGB")
