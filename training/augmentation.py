"""Random views of a pair: one geometry for both images and the mask, separate colours for each.

The recipe is the released one (ZegCLIP's): resize by 0.5 to 2, crop, flip, distort colours, pad.
Images are enlarged and colours turned as mmsegmentation does it, by OpenCV; what is shrunk is
averaged by Pillow, where mmsegmentation leaves pixels out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from PIL import Image

from models.opencv import load_opencv
from storage.errors import InputError
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL
from training.config import AugmentationConfig

_cv2 = load_opencv()

_HUES = 180
"""OpenCV's levels of hue: 2 degrees each, so that a circle fits into 8 bits."""
_LEVELS = np.arange(256, dtype=np.float32)
_CHECK_SIDE = 64
_KEPT_SHARE = 0.25
_WHOLE_AREA = 8
"""Areas of the crop that an enlarged image may have to be enlarged whole: OpenCV does that faster
than Pillow cuts out of it. The two differ by one level at most."""

Pixels = UInt8[np.ndarray, "height width 3"]
_Labels = UInt16[np.ndarray, "height width"]


@dataclass(frozen=True)
class LabelledPair:
    """A pair and its labels at one size.

    Attributes:
        image: Positive image.
        counterfactual: Counterfactual image; None where there is no twin.
        labels: Stored labels of the positive image; padding is ignored.
    """

    image: UInt8[np.ndarray, "_ _ 3"]
    counterfactual: UInt8[np.ndarray, "_ _ 3"] | None
    labels: UInt16[np.ndarray, "_ _"]


@dataclass(frozen=True)
class Crop:
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

    def cut(self, image: Pixels) -> UInt8[np.ndarray, "cut_height cut_width 3"]:
        """Resize the crop out of an image, bilinearly; what is shrunk is averaged."""
        height, width = image.shape[:2]
        rows, columns = round(height * self.scale_y), round(width * self.scale_x)
        enlarged = rows >= height and columns >= width
        if enlarged and rows * columns <= _WHOLE_AREA * self.height * self.width:
            whole = _cv2.resize(image, (columns, rows), interpolation=_cv2.INTER_LINEAR)
            return whole[self.top : self.top + self.height, self.left : self.left + self.width]
        left, top = self.left / self.scale_x, self.top / self.scale_y
        right = min((self.left + self.width) / self.scale_x, width)
        bottom = min((self.top + self.height) / self.scale_y, height)
        size, box = (self.width, self.height), (left, top, right, bottom)
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box))

    def cut_labels(
        self, labels: _Labels, stride: int = 1
    ) -> UInt16[np.ndarray, "cut_height cut_width"]:
        """Take the nearest stored label of every `stride`-th pixel of the crop."""
        rows = self._nearest(self.top, self.height, stride, self.scale_y, labels.shape[0])
        columns = self._nearest(self.left, self.width, stride, self.scale_x, labels.shape[1])
        # one axis after the other is several times faster than both at once
        return labels.take(rows, axis=0).take(columns, axis=1)

    @staticmethod
    def _nearest(first: int, count: int, stride: int, scale: float, limit: int) -> np.ndarray:
        # Middles of the crop's pixels, in pixels of the stored map: (count / stride,).
        places = (np.arange(first, first + count, stride) + 0.5) / scale
        return np.minimum(places.astype(np.int64), limit - 1)


def augment(
    pair: LabelledPair,
    side: int,
    config: AugmentationConfig,
    rng: np.random.Generator,
    *,
    padding: tuple[int, int, int],
) -> LabelledPair:
    """Draw a random square view of a stored pair.

    Args:
        pair: Images and labels as stored, of the same size.
        side: Side of the result in pixels.
        config: How views differ.
        rng: Of this sample in this epoch.
        padding: Colour outside the image.

    Raises:
        InputError: If the three differ in size.
    """
    twin = pair.counterfactual
    sizes = {pair.image.shape[:2], pair.labels.shape}
    if twin is not None:
        sizes.add(twin.shape[:2])
    if len(sizes) != 1:
        message = (
            f"image, counterfactual and labels have the sizes {sorted(sizes)}, expected one size"
        )
        raise InputError(message)
    crop = _draw_crop(pair.labels, side, config, rng)
    flip = rng.random() < config.flip
    colours = _draw_colours(config, rng)
    other = colours if config.shared_colours else _draw_colours(config, rng)
    return LabelledPair(
        image=_finish(pair.image, crop, colours, side=side, flip=flip, padding=padding),
        counterfactual=None
        if twin is None
        else _finish(twin, crop, other, side=side, flip=flip, padding=padding),
        labels=_finish_labels(crop.cut_labels(pair.labels), side, flip=flip),
    )


@dataclass(frozen=True)
class _Colours:
    """One draw of the four distortions; 0 or 1 where a distortion does not happen."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    contrast_first: bool

    def apply(self, image: Pixels) -> Pixels:
        """Distort by tables of 256 levels, which rounds after every step as the released code."""
        # A table has the new level of each old one.
        levels = np.clip(_LEVELS + self.brightness, 0, 255).round()
        image = _looked_up(image, levels * self.contrast if self.contrast_first else levels)
        if (self.saturation, self.hue) != (1.0, 0.0):
            turned = (_LEVELS + round(self.hue * _HUES / 360)) % _HUES
            table = np.stack([turned, _LEVELS * self.saturation, _LEVELS], axis=1)  # (256, 3)
            image = _cv2.cvtColor(image, _cv2.COLOR_RGB2HSV)
            image = _cv2.cvtColor(_looked_up(image, table), _cv2.COLOR_HSV2RGB)
        return image if self.contrast_first else _looked_up(image, _LEVELS * self.contrast)


def _looked_up(
    image: Pixels, levels: Float32[np.ndarray, "256"] | Float32[np.ndarray, "256 3"]
) -> Pixels:
    """Put a new level in place of each old one, by one table or by one a channel."""
    table = np.clip(levels, 0, 255).round().astype(np.uint8)
    if table.ndim == 1 and np.array_equal(table, _LEVELS):
        return image
    return _cv2.LUT(image, table.reshape(1, 256, -1))


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


def _draw_crop(
    labels: _Labels, side: int, config: AugmentationConfig, rng: np.random.Generator
) -> Crop:
    height, width = labels.shape
    scale = rng.uniform(config.min_scale, config.max_scale) * side / min(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    crop = Crop(0, 0, min(side, rows), min(side, columns), rows / height, columns / width)
    wanted = _KEPT_SHARE * _num_labelled(labels) if config.crop_rule == "object" else None
    for _ in range(config.crop_tries):
        crop = Crop(
            int(rng.integers(rows - crop.height + 1)),
            int(rng.integers(columns - crop.width + 1)),
            crop.height,
            crop.width,
            crop.scale_y,
            crop.scale_x,
        )
        if _is_good(crop, labels, config.max_class_share, wanted):
            break
    return crop


def _is_good(crop: Crop, labels: _Labels, most: float, wanted: float | None) -> bool:
    """Judge a crop on a coarse grid, which is exact enough for a share.

    Args:
        crop: The crop.
        labels: Stored labels.
        most: Share of the labelled pixels that one of at least two classes may have.
        wanted: Labelled pixels that must be shown, in pixels of the stored labels; if it is given,
            that is all that counts.
    """
    stride = max(1, min(crop.height, crop.width) // _CHECK_SIDE)
    shown = crop.cut_labels(labels, stride)
    shown = shown[(shown != BACKGROUND_LABEL) & (shown != IGNORE_LABEL)]
    if wanted is None:
        counts = np.bincount(shown)
        return bool(np.count_nonzero(counts) > 1 and counts.max() < most * len(shown))
    area = len(shown) * stride**2 / (crop.scale_y * crop.scale_x)
    return bool(area >= wanted)


def _num_labelled(labels: _Labels) -> int:
    return int(np.count_nonzero((labels != BACKGROUND_LABEL) & (labels != IGNORE_LABEL)))


def _finish(
    pixels: Pixels,
    crop: Crop,
    colours: _Colours,
    *,
    side: int,
    flip: bool,
    padding: tuple[int, int, int],
) -> UInt8[np.ndarray, "{side} {side} 3"]:
    found = crop.cut(pixels)
    found = colours.apply(_cv2.flip(found, 1) if flip else found)
    if found.shape == (side, side, 3):
        return found
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[: crop.height, : crop.width] = found
    canvas[crop.height :] = padding
    canvas[: crop.height, crop.width :] = padding
    return canvas


def _finish_labels(
    labels: _Labels, side: int, *, flip: bool
) -> UInt16[np.ndarray, "{side} {side}"]:
    labels = _cv2.flip(labels, 1) if flip else labels
    if labels.shape == (side, side):
        return labels
    canvas = np.full((side, side), IGNORE_LABEL, np.uint16)
    canvas[: labels.shape[0], : labels.shape[1]] = labels
    return canvas
