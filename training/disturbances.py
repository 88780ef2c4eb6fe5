"""Disturbances of a view: perspective, blur, and patches that hide a part of it.

DiffuMask (ICCV 2023) names them beside splicing, without releasing them; what is drawn and how far
is our own. All are drawn once for the images of a pair and their labels: a twin that was blurred
alone would be told apart by that.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from storage.records import IGNORE_LABEL
from training.augmentation import LabelledPair
from training.config import AugmentationConfig

_LEAST_SIGMA = 0.1

_Picture = UInt8[np.ndarray, "side side 3"]


def disturb(
    view: LabelledPair, config: AugmentationConfig, rng: np.random.Generator
) -> LabelledPair:
    """Disturb a square view.

    Args:
        view: Both images and labels.
        config: How often and how far.
        rng: Of this sample in this epoch; nothing is drawn for what never happens.
    """
    if config.perspective and rng.random() < config.perspective:
        view = _tilted(view, config.perspective_shift, rng)
    if config.blur and rng.random() < config.blur:
        sigma = rng.uniform(_LEAST_SIGMA, config.blur_sigma)
        view = _of_images(view, lambda picture: _blurred(picture, sigma))
    if config.occlusion and rng.random() < config.occlusion:
        view = _hidden(view, config, rng)
    return view


def _tilted(view: LabelledPair, shift: float, rng: np.random.Generator) -> LabelledPair:
    """Show a quadrangle of the view as a square; it lies inside, so that nothing is padded."""
    side = view.labels.shape[0]
    square = np.array([(0, 0), (side, 0), (side, side), (0, side)], float)
    inward = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)], float)
    corners = square + inward * rng.uniform(0, shift / 2, (4, 2)) * side
    warp = _coefficients(square, corners)
    labels = Image.fromarray(view.labels.astype(np.int32), "I")
    warped = labels.transform(
        labels.size, Image.Transform.PERSPECTIVE, warp, Image.Resampling.NEAREST
    )
    tilted = _of_images(
        view,
        lambda picture: np.asarray(
            Image.fromarray(picture).transform(
                (side, side), Image.Transform.PERSPECTIVE, warp, Image.Resampling.BILINEAR
            )
        ),
    )
    return LabelledPair(tilted.image, tilted.counterfactual, np.asarray(warped).astype(np.uint16))


def _coefficients(shown: np.ndarray, source: np.ndarray) -> list[float]:
    """What Pillow needs to find for each shown point its source: (ax+by+c, dx+ey+f) / (gx+hy+1)."""
    rows: list[list[float]] = []
    for (x, y), (u, v) in zip(shown.tolist(), source.tolist(), strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return np.linalg.solve(np.array(rows), source.ravel()).tolist()


def _blurred(picture: _Picture, sigma: float) -> _Picture:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)))


def _hidden(
    view: LabelledPair, config: AugmentationConfig, rng: np.random.Generator
) -> LabelledPair:
    """Lay plain rectangles over the view; what they hide is unknown."""
    side = view.labels.shape[0]
    labels = view.labels.copy()
    patches: list[tuple[slice, slice, np.ndarray]] = []
    for _ in range(int(rng.integers(1, config.occlusion_patches + 1))):
        most = max(1, round(config.occlusion_size * side))
        height, width = (int(rng.integers(1, most + 1)) for _ in range(2))
        top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
        place = slice(top, top + height), slice(left, left + width)
        patches.append((*place, rng.integers(0, 256, 3, dtype=np.uint8)))
        labels[place] = IGNORE_LABEL

    def covered(picture: _Picture) -> _Picture:
        picture = picture.copy()
        for rows, columns, colour in patches:
            picture[rows, columns] = colour
        return picture

    shown = _of_images(view, covered)
    return LabelledPair(shown.image, shown.counterfactual, labels)


def _of_images(view: LabelledPair, change: Callable[[_Picture], _Picture]) -> LabelledPair:
    twin = view.counterfactual
    return LabelledPair(change(view.image), None if twin is None else change(twin), view.labels)
