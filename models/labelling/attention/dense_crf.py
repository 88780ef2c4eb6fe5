"""A fully connected conditional random field over one image, by mean field.

Krähenbühl and Koltun (NeurIPS 2011): labels of pixels that are near each other, and of pixels that
are not too far apart and of like colours, tend to agree (Potts). Kernels are normalised
symmetrically: ``N^-1/2 K N^-1/2`` with ``N`` the row sums of ``K``. A pixel is its own neighbour
too, and the lattice has its axes in the order of the published implementation, with which the
masks agree to the pixel.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from pydantic import BaseModel, Field
from scipy import sparse

from models.labelling.attention.permutohedral import PermutohedralLattice
from storage.errors import InputError

PUBLISHED_LABELS = 21
"""Labels of DiffuMask's fields: PASCAL VOC's classes and background, whichever are there."""

_NO_WEIGHT = 1e-8  # of a Gaussian: what float32 does not see in a sum of ones
_VALUES_AT_ONCE = 8_000_000  # of the exact kernel: 32 MB


class CrfSettings(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A field; the defaults are those with which DiffuMask finds its seeds."""

    near: float = Field(default=3.0, ge=0.1)
    """Standard deviation of the first kernel in pixels."""
    near_weight: float = Field(default=3.0, ge=0)
    """What agreement counts under the first kernel."""
    alike: float = Field(default=60.0, ge=1)
    """Standard deviation of the second kernel in pixels."""
    alike_levels: float = Field(default=10.0, ge=1)
    """Standard deviation of the second kernel in levels of 255 of each colour."""
    alike_weight: float = Field(default=9.0, ge=0)
    """What agreement counts under the second kernel."""
    iterations: int = Field(default=10, ge=1)
    """Rounds of the mean field."""
    kernel: Literal["lattice", "exact"] = "lattice"
    """How the second kernel is summed: on the permutohedral lattice, in time that grows with the
    number of pixels, or exactly, in time that grows with its square."""


SEED_CRF = CrfSettings()
"""DiffuMask's field for seeds, with unaries of the certainty .7."""

MASK_CRF = CrfSettings(alike=80, alike_levels=13, alike_weight=10)
"""DiffuMask's field for final masks, with unaries of the certainty .5."""


class DenseCrf:
    """The field of one image; its kernels serve any number of labellings.

    Args:
        image: RGB.
        settings: Of the field; distances are in pixels of this image.
    """

    def __init__(self, image: UInt8[np.ndarray, "height width 3"], settings: CrfSettings) -> None:
        self._size = image.shape[:2]
        self._settings = settings
        self._kernels: list[tuple[float, _Normalised]] = []
        if settings.near_weight:
            near = _Near(self._size, settings.near)
            self._kernels.append((settings.near_weight, _Normalised(near, self._size)))
        if settings.alike_weight:
            alike = (_Lattice if settings.kernel == "lattice" else _Exact)(image, settings)
            self._kernels.append((settings.alike_weight, _Normalised(alike, self._size)))

    def infer(
        self, energies: Float32[np.ndarray, "problems labels height width"]
    ) -> Float32[np.ndarray, "problems labels height width"]:
        """Find the marginal probabilities of labels; several problems share the work.

        Args:
            energies: Of each label at each pixel, the negative logarithm of how likely it is to
                begin with.

        Returns:
            Probabilities; those of a pixel sum to 1.

        Raises:
            InputError: If the energies have another size than the image, no label, or values that
                are not finite.
        """
        if energies.shape[2:] != self._size or not energies.shape[1]:
            message = (
                f"energies of {energies.shape[1]} labels have the size {energies.shape[2:]}, "
                f"expected one label or more and the image's size {self._size}"
            )
            raise InputError(message)
        if not np.isfinite(energies).all():
            message = "energies are not all finite, expected finite numbers"
            raise InputError(message)
        # Pixels first, since the kernels sum over them: (height, width, problems, labels).
        beliefs = -energies.transpose(2, 3, 0, 1)
        found = _softmax(beliefs)
        for _ in range(self._settings.iterations):
            found = _softmax(beliefs + self._messages(found))
        return np.ascontiguousarray(found.transpose(2, 3, 0, 1))

    def _messages(self, found: Float32[np.ndarray, "height width problems labels"]) -> np.ndarray:
        """What all other pixels say to each one, against what they say to the last label.

        Probabilities of a pixel sum to 1, so what is said to the last label need not be summed:
        it is what is said to all labels together, less what is said to the others.
        """
        messages = np.zeros_like(found)
        height, width, problems, labels = found.shape
        columns = found[..., :-1].reshape(height, width, problems * (labels - 1))
        for weight, kernel in self._kernels:
            said = kernel.filtered(columns).reshape(height, width, problems, labels - 1)
            messages[..., :-1] += weight * said
            messages[..., -1] += weight * (kernel.of_ones[..., None] - said.sum(axis=-1))
        return messages


def two_label_energies(
    foreground: Bool[np.ndarray, "height width"],
    certainty: float,
    labels: int = PUBLISHED_LABELS,
) -> Float32[np.ndarray, "2 height width"]:
    """Energies of background and foreground for a field that was published with more labels.

    With n labels, a pixel's own label has the probability p, and each other one (1 - p) / (n - 1).
    Of two labels alone, the same ratio of the two, p (n - 1) / (1 - p), is had with
    ``p' = p (n - 1) / (p (n - 1) + 1 - p)``: .979 for .7 and .952 for .5 of 21 labels. Labels that
    no pixel has lose what they have of the probability in the first round, so that the masks are
    nearly the same: of the 262,144 pixels of a drawn scene 86 differed.

    Args:
        foreground: Pixels of the class.
        certainty: Probability of a pixel's own label among all labels, in (0, 1).
        labels: Of the published field.

    Raises:
        InputError: If the certainty is not in (0, 1), or there are fewer than 2 labels.
    """
    if not 0 < certainty < 1 or labels < 2:
        message = (
            f"certainty is {certainty:g} among {labels} labels, expected one above 0 and below 1 "
            "among 2 labels or more"
        )
        raise InputError(message)
    own = certainty * (labels - 1)
    probability = own / (own + 1 - certainty)
    energies = -np.log(np.array([probability, 1 - probability], np.float32))
    return np.stack([energies[foreground.astype(int)], energies[(~foreground).astype(int)]])


def _softmax(beliefs: np.ndarray) -> np.ndarray:
    grown = np.exp(beliefs - beliefs.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


class _Normalised:
    """A kernel divided symmetrically by the roots of its row sums.

    Attributes:
        of_ones: What it makes of the value 1 at all pixels.
    """

    def __init__(self, kernel: "_Near | _Lattice | _Exact", size: tuple[int, int]) -> None:
        self._kernel = kernel
        ones = np.ones((*size, 1), np.float32)
        self._norm = 1.0 / np.sqrt(kernel.filtered(ones))
        self.of_ones = self.filtered(ones)[..., 0]

    def filtered(
        self, values: Float32[np.ndarray, "height width columns"]
    ) -> Float32[np.ndarray, "height width columns"]:
        return self._norm * self._kernel.filtered(self._norm * values)


class _Near:
    """The kernel of places alone, which rows and columns share: exact to float32."""

    def __init__(self, size: tuple[int, int], deviation: float) -> None:
        self._rows, self._columns = (_gaussian(side, deviation) for side in size)

    def filtered(self, values: np.ndarray) -> np.ndarray:
        height, width, count = values.shape
        found = (self._rows @ values.reshape(height, width * count)).reshape(values.shape)
        turned = found.transpose(1, 0, 2).reshape(width, height * count)
        return (self._columns @ turned).reshape(width, height, count).transpose(1, 0, 2)


def _gaussian(side: int, deviation: float) -> Any:
    reach = min(side - 1, int(np.sqrt(-2 * np.log(_NO_WEIGHT)) * deviation))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / deviation) ** 2).astype(np.float32)
    bands = np.repeat(weights[:, None], side, axis=1)
    return sparse.dia_array((bands, offsets), shape=(side, side)).tocsr()


class _Lattice:
    """The kernel of places and colours on the permutohedral lattice."""

    def __init__(self, image: np.ndarray, settings: CrfSettings) -> None:
        self._lattice = PermutohedralLattice(_features(image, settings))

    def filtered(self, values: np.ndarray) -> np.ndarray:
        height, width, count = values.shape
        return self._lattice.filtered(values.reshape(height * width, count)).reshape(values.shape)


class _Exact:
    """The same kernel, summed over all pairs of pixels, some rows at a time."""

    def __init__(self, image: np.ndarray, settings: CrfSettings) -> None:
        self._features = _features(image, settings).astype(np.float64)
        self._squares = (self._features**2).sum(axis=1)

    def filtered(self, values: np.ndarray) -> np.ndarray:
        pixels = len(self._features)
        columns = values.reshape(pixels, values.shape[2])
        found = np.empty_like(columns)
        rows = max(1, _VALUES_AT_ONCE // pixels)
        for first in range(0, pixels, rows):
            part = slice(first, first + rows)
            product = self._features[part] @ self._features.T
            distance = self._squares[part, None] + self._squares - 2 * product
            found[part] = np.exp(-0.5 * np.maximum(distance, 0.0)).astype(np.float32) @ columns
        return found.reshape(values.shape)


def _features(
    image: UInt8[np.ndarray, "height width 3"], settings: CrfSettings
) -> Float32[np.ndarray, "pixels 5"]:
    rows, columns = np.indices(image.shape[:2]).reshape(2, -1) / settings.alike
    places = np.stack([columns, rows], axis=1)  # in the order of the published implementation
    colours = image.reshape(-1, 3) / settings.alike_levels
    return np.concatenate([places, colours], axis=1).astype(np.float32)
