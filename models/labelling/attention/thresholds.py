"""From class maps to seeds and labels: DiffuMask's adaptive threshold, Dataset Diffusion's two."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt16
from pydantic import BaseModel, Field, model_validator

from storage.documents import read_yaml, validate
from storage.errors import InputError
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL

_CLASSES = Path(__file__).parents[2] / "data" / "diffumask_classes.yaml"
_BINS = 100  # in 1
_STEP = 0.03
_LOWEST = 0.30
_HIGHEST = 0.75
_ROUNDING = 1e-9  # of sums of the steps


class SeedConstants(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """DiffuMask's constants of a class; the published are in `data/diffumask_classes.yaml`."""

    low: float = Field(ge=0, le=1)
    """Least value of the histogram."""
    high: float = Field(ge=0, le=1)
    """Where the histogram ends."""
    strict: float = Field(ge=-1, le=1)
    """Added to the mean of the values above the threshold."""
    generous: float = Field(ge=-1, le=1)
    """Added to the mean of the values below the threshold."""
    least_share: float = Field(ge=0, le=1)
    """Share of the image that foreground and background must have at least."""
    resolutions: tuple[int, ...] = Field(min_length=1)
    """Sides of the cross-attention that is averaged, in equal parts, for images of 512 pixels."""

    @model_validator(mode="after")
    def _check_range(self) -> "SeedConstants":
        if self.high <= self.low:
            message = f"high {self.high:g} is not above low {self.low:g}: the histogram has no bin"
            raise ValueError(message)
        return self


@dataclass(frozen=True)
class SeedLevels:
    """Two thresholds of a class map.

    Attributes:
        strict: What is above it is surely of the class ("la" in the release).
        generous: What is not above it is surely background ("ha").
    """

    strict: float
    generous: float


@dataclass(frozen=True, eq=False)
class Seeds:
    """Pixels whose label is taken for granted; no pixel is in both.

    Attributes:
        foreground: Of the class.
        background: Of no class.
    """

    foreground: Bool[np.ndarray, "height width"]
    background: Bool[np.ndarray, "height width"]

    def labels(self, label: int) -> UInt16[np.ndarray, "height width"]:
        """Write them as a label map: the label, 0 for background, 65535 for what is in neither."""
        found = np.full(self.foreground.shape, IGNORE_LABEL, np.uint16)
        found[self.background] = BACKGROUND_LABEL
        found[self.foreground] = label
        return found


def seed_constants(name: str) -> SeedConstants:
    """The published constants of a class, or the default ones.

    Args:
        name: Of the class; case, blanks, hyphens and underscores do not matter.
    """
    rows = _published()
    return rows.get(_plain(name), rows["default"])


def seed_levels(
    class_map: Float32[np.ndarray, "height width"], constants: SeedConstants
) -> SeedLevels:
    """Find the two thresholds of a map as DiffuMask does.

    The first threshold is the lower edge of the fullest bin of a hundredth (of two, the lower one).
    It falls by .03 while too few pixels are above the mean of those above it, down to .30, and then
    rises by .03 while too few are below the mean of those below it, up to .75. From where it ends,
    the two means are taken once more, and moved by the offsets of the class.

    Where no value is above the threshold, the release has a mean of nothing, which is no number;
    here the mean is then the threshold itself, and so below it.

    Args:
        class_map: Of one class, in [0, 1]; values that are not finite count as 0.
        constants: Of the class.
    """
    values = _finite(class_map).astype(np.float64)
    threshold = _fullest_bin(values, constants)
    strict, generous = _mean_above(values, threshold), _mean_below(values, threshold)
    least = constants.least_share
    while (values > strict).mean() < least and threshold >= _LOWEST - _ROUNDING:
        threshold -= _STEP
        strict = _mean_above(values, threshold)
    while (values < generous).mean() < least and threshold <= _HIGHEST + _ROUNDING:
        generous = _mean_below(values, threshold)
        threshold += _STEP
    return SeedLevels(
        _mean_above(values, threshold) + constants.strict,
        _mean_below(values, threshold) + constants.generous,
    )


def threshold_seeds(class_map: Float32[np.ndarray, "height width"], levels: SeedLevels) -> Seeds:
    """Take the pixels on which both thresholds agree.

    Foreground is above both, background above neither; a pixel at a threshold is not above it. The
    offsets may put the strict one below the generous one: what lies between is unsure all the same.

    Args:
        class_map: Of one class, in [0, 1]; values that are not finite count as 0.
        levels: Its thresholds.
    """
    values = _finite(class_map)
    strict, generous = values > levels.strict, values > levels.generous
    return Seeds(strict & generous, ~strict & ~generous)


def banded_labels(
    maps: Float32[np.ndarray, "classes height width"],
    labels: Sequence[int],
    *,
    foreground: float = 0.6,
    uncertain: float = 0.5,
) -> UInt16[np.ndarray, "height width"]:
    """Label each pixel by its highest map, as Dataset Diffusion does.

    Args:
        maps: Of the classes, in [0, 1]; values that are not finite count as 0. Of equal maps the
            first wins.
        labels: Of the classes, in the label map.
        foreground: From this value on a pixel is of its class.
        uncertain: From this value on a pixel is to be ignored; below, it is background.

    Raises:
        InputError: If there are not as many labels as maps, or the thresholds are not in order.
    """
    if len(labels) != len(maps):
        message = f"{len(maps)} maps came with {len(labels)} labels, expected as many"
        raise InputError(message)
    if not 0 < uncertain <= foreground <= 1:
        message = (
            f"thresholds are {uncertain:g} (uncertain) and {foreground:g} (foreground), expected "
            "0 < uncertain <= foreground <= 1"
        )
        raise InputError(message)
    if not len(maps):
        return np.full(maps.shape[1:], BACKGROUND_LABEL, np.uint16)
    values = _finite(maps)
    best = values.max(axis=0)
    found = np.asarray(labels, np.uint16)[values.argmax(axis=0)]
    found[best < foreground] = IGNORE_LABEL
    found[best < uncertain] = BACKGROUND_LABEL
    return found


@lru_cache(maxsize=1)
def _published() -> dict[str, SeedConstants]:
    document = read_yaml(_CLASSES)
    rows: dict[str, SeedConstants] = {}
    for name, row in document.items():
        names = (name, *row.pop("also", ()))
        found = validate(SeedConstants, document["default"] | row, f"{_CLASSES.name}: {name}")
        rows |= {_plain(each): found for each in names}
    return rows


def _plain(name: str) -> str:
    return "".join(each for each in name.casefold() if each.isalnum())


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _fullest_bin(values: np.ndarray, constants: SeedConstants) -> float:
    """The lower edge of the fullest bin; values at an edge are in none."""
    edges = np.arange(round(constants.low * _BINS), round(constants.high * _BINS)) / _BINS
    counts = [((values > edge) & (values < edge + 1 / _BINS)).sum() for edge in edges]
    return float(edges[int(np.argmax(counts))])


def _mean_above(values: np.ndarray, threshold: float) -> float:
    above = values[values > threshold]
    return float(above.mean()) if above.size else threshold


def _mean_below(values: np.ndarray, threshold: float) -> float:
    below = values[values < threshold]
    return float(below.mean()) if below.size else threshold
