"""Random views of a pair: one geometry for both images and the mask, colours for each apart.

The recipe is the released one (ZegCLIP's): resize by 0.5 to 2, crop, flip, distort colours, pad.
Only the window that ends up in the crop is ever resized.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image
from pydantic import BaseModel, Field, model_validator

from storage.errors import InputError
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL

_LEVELS = np.arange(256, dtype=np.float32)
_CHECK_SIDE = 64
_KEPT_SHARE = 0.25

Pixels = UInt8[np.ndarray, "height width 3"]
Labels = UInt16[np.ndarray, "height width"]


class AugmentationConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How views differ from the stored images."""

    min_scale: float = Field(default=0.5, gt=0)
    """Smallest short side of the resized image, in crops."""
    max_scale: float = Field(default=2.0, gt=0)
    """Largest short side of the resized image, in crops."""
    crop_rule: Literal["released", "object"] = "released"
    """Which of `crop_tries` random crops is taken: the first with two classes of which none has
    more than `max_class_share` (else the last, which may show no object at all), or the first that
    shows a quarter of the labelled pixels."""
    crop_tries: int = Field(default=10, gt=0)
    """Crops tried."""
    max_class_share: float = Field(default=0.75, gt=0, le=1)
    """Share of the labelled pixels that one class may have under the released rule."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip; 0 where orientation means something."""
    brightness: float = Field(default=32.0, ge=0, le=255)
    """Largest shift of all levels of 255; each of the four distortions happens every other time."""
    contrast: float = Field(default=0.5, ge=0, lt=1)
    """Levels are multiplied by up to 1 plus or minus this."""
    saturation: float = Field(default=0.5, ge=0, lt=1)
    """Saturation is multiplied by up to 1 plus or minus this."""
    hue: float = Field(default=36.0, ge=0, le=180)
    """Largest turn of the hue in degrees."""
    shared_colours: bool = False
    """Distort the colours of both images of a pair alike."""

    @model_validator(mode="after")
    def _check_scales(self) -> "AugmentationConfig":
        if self.min_scale > self.max_scale:
            msg = f"min_scale is {self.min_scale}, expected at most max_scale {self.max_scale}"
            raise ValueError(msg)
        return self


@dataclass(frozen=True)
class View:
    """A pair and its labels at one size.

    Attributes:
        image: Positive image.
        counterfactual: Counterfactual image.
        labels: Stored labels of the positive image; padding is ignored.
    """

    image: Pixels
    counterfactual: Pixels
    labels: Labels


@dataclass(frozen=True)
class Window:
    """A crop of a resized image: where it lies, and how large it is.

    Attributes:
        top: First row, in pixels of the resized image.
        left: First column.
        height: Rows, at most the crop's side.
        width: Columns.
        scale_y: Rows of the resized image a stored row.
        scale_x: Columns of the resized image a stored column.
    """

    top: int
    left: int
    height: int
    width: int
    scale_y: float
    scale_x: float

    def cut(self, image: Image.Image) -> Image.Image:
        """Resize the window out of an image, bilinearly."""
        left, top = self.left / self.scale_x, self.top / self.scale_y
        right = min((self.left + self.width) / self.scale_x, image.width)
        bottom = min((self.top + self.height) / self.scale_y, image.height)
        size, box = (self.width, self.height), (left, top, right, bottom)
        return image.resize(size, Image.Resampling.BILINEAR, box)

    def cut_labels(self, labels: Labels, stride: int = 1) -> Labels:
        """Take the nearest stored label of every `stride`-th pixel of the window."""
        rows = self._nearest(self.top, self.height, stride, self.scale_y, labels.shape[0])
        columns = self._nearest(self.left, self.width, stride, self.scale_x, labels.shape[1])
        return labels[rows[:, None], columns]

    @staticmethod
    def _nearest(first: int, count: int, stride: int, scale: float, limit: int) -> np.ndarray:
        places = (np.arange(first, first + count, stride) + 0.5) / scale
        return np.minimum(places.astype(np.int64), limit - 1)


def augment(
    view: View,
    side: int,
    config: AugmentationConfig,
    rng: np.random.Generator,
    *,
    padding: tuple[int, int, int],
) -> View:
    """Draw a random square view of a stored pair.

    Args:
        view: Images and labels as stored, of the same size.
        side: Side of the result in pixels.
        config: How views differ.
        rng: Of this sample in this epoch.
        padding: Colour outside the image.

    Raises:
        InputError: If the three differ in size.
    """
    sizes = {view.image.shape[:2], view.counterfactual.shape[:2], view.labels.shape}
    if len(sizes) != 1:
        msg = f"image, counterfactual and labels have the sizes {sorted(sizes)}, expected one size"
        raise InputError(msg)
    window = _draw_window(view.labels, side, config, rng)
    flip = rng.random() < config.flip
    colours = _draw_colours(config, rng)
    other = colours if config.shared_colours else _draw_colours(config, rng)
    return View(
        image=_finish(view.image, window, colours, side=side, flip=flip, padding=padding),
        counterfactual=_finish(
            view.counterfactual, window, other, side=side, flip=flip, padding=padding
        ),
        labels=_finish_labels(window.cut_labels(view.labels), side, flip=flip),
    )


@dataclass(frozen=True)
class _Colours:
    """One draw of the four distortions; 0 or 1 where a distortion does not happen."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    contrast_first: bool

    def apply(self, image: Image.Image) -> Image.Image:
        """Distort by tables of 256 levels, which rounds after every step as the released code."""
        levels = np.clip(_LEVELS + self.brightness, 0, 255).round()
        contrasted = _table(levels * self.contrast if self.contrast_first else levels)
        image = image.point(contrasted * 3)
        if (self.saturation, self.hue) != (1.0, 0.0):
            hues = ((np.arange(256) + round(self.hue * 256 / 360)) % 256).tolist()
            saturations = _table(_LEVELS * self.saturation)
            values = list(range(256))
            image = image.convert("HSV").point(hues + saturations + values).convert("RGB")
        if not self.contrast_first and self.contrast != 1.0:
            image = image.point(_table(_LEVELS * self.contrast) * 3)
        return image


def _table(levels: np.ndarray) -> list[int]:
    return np.clip(levels, 0, 255).round().astype(int).tolist()


def _draw_colours(config: AugmentationConfig, rng: np.random.Generator) -> _Colours:
    happens = rng.random(5) < 0.5
    drawn = rng.uniform(-1.0, 1.0, 4)
    brightness, contrast, saturation, hue = np.where(happens[:4], drawn, 0.0).tolist()
    return _Colours(
        brightness=brightness * config.brightness,
        contrast=1.0 + contrast * config.contrast,
        saturation=1.0 + saturation * config.saturation,
        hue=hue * config.hue,
        contrast_first=bool(happens[4]),
    )


def _draw_window(
    labels: Labels, side: int, config: AugmentationConfig, rng: np.random.Generator
) -> Window:
    height, width = labels.shape
    scale = rng.uniform(config.min_scale, config.max_scale) * side / min(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    window = Window(0, 0, min(side, rows), min(side, columns), rows / height, columns / width)
    for _ in range(config.crop_tries):
        window = Window(
            int(rng.integers(rows - window.height + 1)),
            int(rng.integers(columns - window.width + 1)),
            window.height,
            window.width,
            window.scale_y,
            window.scale_x,
        )
        if _is_good(window, labels, config):
            break
    return window


def _is_good(window: Window, labels: Labels, config: AugmentationConfig) -> bool:
    """Judge a crop on a coarse grid, which is exact enough for a share."""
    stride = max(1, min(window.height, window.width) // _CHECK_SIDE)
    shown = window.cut_labels(labels, stride)
    shown = shown[(shown != BACKGROUND_LABEL) & (shown != IGNORE_LABEL)]
    if config.crop_rule == "released":
        counts = np.unique(shown, return_counts=True)[1]
        return len(counts) > 1 and counts.max() < config.max_class_share * counts.sum()
    labelled = np.count_nonzero((labels != BACKGROUND_LABEL) & (labels != IGNORE_LABEL))
    area = len(shown) * stride**2 / (window.scale_y * window.scale_x)
    return area >= _KEPT_SHARE * labelled


def _finish(
    pixels: Pixels,
    window: Window,
    colours: _Colours,
    *,
    side: int,
    flip: bool,
    padding: tuple[int, int, int],
) -> Pixels:
    found = np.asarray(colours.apply(window.cut(Image.fromarray(pixels))))
    found = found[:, ::-1] if flip else found
    if found.shape == (side, side, 3):
        return found
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = padding
    canvas[: window.height, : window.width] = found
    return canvas


def _finish_labels(labels: Labels, side: int, *, flip: bool) -> Labels:
    canvas = np.full((side, side), IGNORE_LABEL, np.uint16)
    canvas[: labels.shape[0], : labels.shape[1]] = labels[:, ::-1] if flip else labels
    return canvas
