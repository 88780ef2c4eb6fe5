"""Random views of a 512-pixel pair, beside mmsegmentation's pipeline on the same random numbers.

The peer does one transform after another: both images and the labels are resized whole, a crop is
judged by sorting its labels, every distortion of the colours converts the image forth and back. It
does that by OpenCV, as mmsegmentation does, and by Pillow, as we did before. The limit is resizing
both images to one window and one table of levels each, by OpenCV, and one gather of labels.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from benchmarks.measurement import Row, compare
from benchmarks.pictures import SIDE, discs, label_map, picture
from benchmarks.results_file import write_results
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL
from training.augmentation import LabelledPair, augment
from training.config import AugmentationConfig

PADDING = (122, 117, 104)
SEEDS = range(30)

PLAIN = AugmentationConfig(brightness=0, contrast=0, saturation=0, hue=0)
"""The released recipe without its distortions of the colours."""

Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Steps:
    """The peer, by one of two libraries.

    Attributes:
        by: The library.
    """

    by: Literal["opencv", "pillow"]

    def transformed(
        self, pair: LabelledPair, side: int, config: AugmentationConfig, rng: np.random.Generator
    ) -> LabelledPair:
        """Make a view as mmsegmentation does: resize, crop, flip, distort, pad."""
        assert pair.counterfactual is not None
        height, width = pair.labels.shape
        scale = rng.uniform(config.min_scale, config.max_scale) * side / min(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image, twin = (self._resized(each, size) for each in (pair.image, pair.counterfactual))
        labels = pair.labels.astype(np.int32)
        labels = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        rows, columns = _crop(labels, side, config, rng)
        image, twin, labels = (part[rows, columns] for part in (image, twin, labels))
        if rng.random() < config.flip:
            image, twin, labels = image[:, ::-1], twin[:, ::-1], labels[:, ::-1]
        image, twin = (self._distorted(pixels, config, rng) for pixels in (image, twin))
        below, beside = side - labels.shape[0], side - labels.shape[1]
        corner = ((0, below), (0, beside))
        return LabelledPair(
            image=_padded(image, below, beside),
            counterfactual=_padded(twin, below, beside),
            labels=np.pad(labels.astype(np.uint16), corner, constant_values=IGNORE_LABEL),
        )

    def _distorted(
        self, pixels: Pixels, config: AugmentationConfig, rng: np.random.Generator
    ) -> Pixels:
        """Distort colours one by one, each every other time."""
        happens = rng.random(5) < 0.5
        brightness, contrast, saturation, hue = rng.uniform(-1.0, 1.0, 4)
        if happens[0]:
            pixels = _levels(pixels, 1.0, brightness * config.brightness)
        if happens[4] and happens[1]:
            pixels = _levels(pixels, 1.0 + contrast * config.contrast, 0.0)
        if happens[2]:
            parts = self._to_hsv(pixels)
            parts[..., 1] = _levels(parts[..., 1], 1.0 + saturation * config.saturation, 0.0)
            pixels = self._to_rgb(parts)
        if happens[3]:
            parts = self._to_hsv(pixels)
            hues = 180 if self.by == "opencv" else 256
            turn = round(hue * config.hue * hues / 360)
            parts[..., 0] = (parts[..., 0].astype(np.int32) + turn) % hues
            pixels = self._to_rgb(parts)
        if not happens[4] and happens[1]:
            pixels = _levels(pixels, 1.0 + contrast * config.contrast, 0.0)
        return pixels

    def _resized(self, pixels: Pixels, size: tuple[int, int]) -> Pixels:
        if self.by == "opencv":
            return cv2.resize(pixels, size)
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))

    def _to_hsv(self, pixels: Pixels) -> Pixels:
        if self.by == "opencv":
            return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2HSV)
        return np.array(Image.fromarray(pixels).convert("HSV"))

    def _to_rgb(self, parts: Pixels) -> Pixels:
        if self.by == "opencv":
            return cv2.cvtColor(parts, cv2.COLOR_HSV2RGB)
        return np.asarray(Image.fromarray(parts, "HSV").convert("RGB"))


MMSEGMENTATION = Steps("opencv")
BEFORE = Steps("pillow")


def _crop(
    labels: np.ndarray, side: int, config: AugmentationConfig, rng: np.random.Generator
) -> tuple[slice, slice]:
    """Rows and columns of the first crop with two balanced classes, or of the last."""
    height, width = (min(side, length) for length in labels.shape)
    rows = columns = slice(None)
    for _ in range(config.crop_tries):
        top = int(rng.integers(labels.shape[0] - height + 1))
        left = int(rng.integers(labels.shape[1] - width + 1))
        rows, columns = slice(top, top + height), slice(left, left + width)
        found, counts = np.unique(labels[rows, columns], return_counts=True)
        counts = counts[(found != BACKGROUND_LABEL) & (found != IGNORE_LABEL)]
        if len(counts) > 1 and counts.max() / counts.sum() < config.max_class_share:
            break
    return rows, columns


def _levels(pixels: np.ndarray, factor: float, shift: float) -> np.ndarray:
    """Scale and shift levels in floating point."""
    return (pixels.astype(np.float32) * factor + shift).clip(0, 255).round().astype(np.uint8)


def _padded(pixels: Pixels, below: int, beside: int) -> Pixels:
    canvas = np.empty((pixels.shape[0] + below, pixels.shape[1] + beside, 3), np.uint8)
    canvas[:] = PADDING
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return canvas


def stored_pair() -> LabelledPair:
    """A drawn pair with two classes."""
    rng = np.random.default_rng(0)
    shapes = discs(rng, 2)
    return LabelledPair(picture(rng, shapes), picture(rng, shapes[:0]), label_map(shapes, (4, 700)))


def check(pair: LabelledPair) -> None:
    """Assert that all make the same views, but for rounding, where no crop is judged.

    What is shrunk is averaged by Pillow, so by us, and not by mmsegmentation.
    """
    for recipe in (PLAIN, AugmentationConfig()):
        averaged = recipe.model_copy(update={"crop_tries": 1})
        enlarged = averaged.model_copy(update={"min_scale": 1.0})
        for steps, config in ((BEFORE, averaged), (MMSEGMENTATION, enlarged)):
            for seed in SEEDS:
                found = augment(pair, SIDE, config, np.random.default_rng(seed), padding=PADDING)
                expected = steps.transformed(pair, SIDE, config, np.random.default_rng(seed))
                assert (found.labels == expected.labels).mean() > 0.999, seed
                for name in ("image", "counterfactual"):
                    levels = (vars(part)[name].astype(int) for part in (found, expected))
                    assert np.abs(np.subtract(*levels)).mean() < 1.5, (seed, name)


def windows() -> list[tuple[tuple[int, int], tuple[float, float, float, float]]]:
    """Size and place of one window of each scale as the recipe draws them."""
    drawn = []
    for scale in np.linspace(0.5, 2.0, len(SEEDS)):
        shown = min(SIDE, round(SIDE * scale))
        part = min(SIDE, shown / scale)
        drawn.append(((shown, shown), (0.0, 0.0, part, part)))
    return drawn


def measure(pair: LabelledPair, config: AugmentationConfig) -> list[Row]:
    """Time a recipe."""
    identity = np.arange(256, dtype=np.uint8)
    places = windows()

    def ours() -> None:
        for seed in SEEDS:
            augment(pair, SIDE, config, np.random.default_rng(seed), padding=PADDING)

    def peer(steps: Steps) -> None:
        for seed in SEEDS:
            steps.transformed(pair, SIDE, config, np.random.default_rng(seed))

    def limit() -> None:
        for size, (_, _, right, bottom) in places:
            for pixels in (pair.image, pair.counterfactual):
                cv2.LUT(cv2.resize(pixels[: round(bottom), : round(right)], size), identity)
            nearest = np.linspace(0, right, size[0], endpoint=False).astype(np.int64)
            pair.labels.take(nearest, axis=0).take(nearest, axis=1)

    return compare(
        {
            "ours": ours,
            "mmsegmentation's steps": partial(peer, MMSEGMENTATION),
            "the same by Pillow": partial(peer, BEFORE),
            "limit: resize, table, gather": limit,
        },
        repeats=2,
        items=len(SEEDS),
    )


def main() -> None:
    """Check both recipes, then time them."""
    pair = stored_pair()
    check(pair)
    rows = [{"part": "without colours", **row} for row in measure(pair, PLAIN)]
    rows += [{"part": "released recipe", **row} for row in measure(pair, AugmentationConfig())]
    packages = ("magicseg-engine", "numpy", "opencv-python-headless", "pillow")
    write_results("augment", rows, packages, setting={"side": SIDE, "images": 2})


if __name__ == "__main__":
    main()
