"""Regions: the part of an image that may be painted over, with its soft edge."""

import numpy as np
from jaxtyping import Bool, Float32, UInt8

__all__ = ["blend", "soft_region"]


def soft_region(
    mask: Bool[np.ndarray, "height width"], grow: int, feather: int
) -> Float32[np.ndarray, "height width"]:
    """Grow a mask, and let it fade towards its edge.

    Args:
        mask: An object; at least one pixel.
        grow: How far the region goes beyond it, in pixels.
        feather: Over how many of these it fades; at most `grow`.

    Returns:
        How much of the new picture each pixel gets: 1 on the object, 0 outside the region, and in
        its last `feather` pixels something between.
    """
    # most runs paint over nothing, and need not wait for the library
    from scipy.ndimage import distance_transform_edt

    distance = np.asarray(distance_transform_edt(~mask))
    return np.clip((grow + 1 - distance) / (feather + 1), 0, 1).astype(np.float32)


def blend(
    image: UInt8[np.ndarray, "height width 3"],
    painted: UInt8[np.ndarray, "height width 3"],
    weights: Float32[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay a new picture over an image; where its weight is 0, the image keeps every bit.

    Args:
        image: RGB.
        painted: The new picture.
        weights: As `soft_region` gives them.
    """
    change = painted.astype(np.float32) - image
    return (image + weights[:, :, None] * change).round().astype(np.uint8)
