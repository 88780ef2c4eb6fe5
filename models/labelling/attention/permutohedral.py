"""Gaussian filtering of scattered points, on the permutohedral lattice.

The lattice of Adams, Baek and Davis (Fast high-dimensional filtering using the permutohedral
lattice, 2010): each point gives its values to the corners of the simplex that it lies in, the
corners are blurred along the lattice's directions, and each point takes its values back. Time and
memory grow with the number of points, where the exact sum grows with its square.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from scipy import sparse

from storage.errors import InputError

_MOST_PLACES = 2**62  # what a key of 64 bits tells apart


class PermutohedralLattice:
    """The points of one image, ready to filter any number of values on them.

    What comes out is the sum over all points, itself included, of ``exp(-|f_i - f_j|^2 / 2)`` times
    the value of j, up to a factor that is the same for all points and to the lattice's error.

    Args:
        features: Of each point, divided by the standard deviations of the filter.

    Raises:
        InputError: If the features are not finite, or reach too far for keys of 64 bits.
    """

    def __init__(self, features: Float32[np.ndarray, "points dimensions"]) -> None:
        if not np.isfinite(features).all():
            message = "features of a lattice are not all finite, expected finite numbers"
            raise InputError(message)
        corners, weights = _simplices(_embedded(features.astype(np.float64)))
        keys, deltas = _keys(corners)
        present, places = np.unique(keys, return_inverse=True)
        points, count = keys.shape
        ends = np.arange(0, points * count + 1, count)
        own = weights.astype(np.float32).ravel()
        self._slice: Any = sparse.csr_array(
            (own, places.ravel(), ends), shape=(points, len(present))
        )
        self._splat: Any = self._slice.T.tocsr()
        self._blurs: list[Any] = [_blur(present, delta) for delta in deltas]

    def filtered(
        self, values: Float32[np.ndarray, "points columns"]
    ) -> Float32[np.ndarray, "points columns"]:
        """Filter the values of all points, each column by itself."""
        on_lattice = self._splat @ values
        for blur in self._blurs:
            on_lattice = blur @ on_lattice
        return self._slice @ on_lattice


def _embedded(features: np.ndarray) -> np.ndarray:
    """Points in the hyperplane of sum 0, scaled so that the blur has the deviation 1."""
    dimensions = features.shape[1]
    number = np.arange(dimensions)
    deviation = np.sqrt(2 / 3) * (dimensions + 1)
    scaled = features * (deviation / np.sqrt((number + 1) * (number + 2)))
    # Row i of the basis is 1 at the first i + 1 coordinates and -(i + 1) at the next.
    basis = np.tril(np.ones((dimensions, dimensions + 1)))
    basis[number, number + 1] = -(number + 1)
    return scaled @ basis


def _simplices(
    embedded: np.ndarray,
) -> tuple[Int64[np.ndarray, "points corners coordinates"], np.ndarray]:
    """The corners of each point's simplex, and its barycentric coordinates among them."""
    points, count = embedded.shape
    rounded = np.rint(embedded / count).astype(np.int64)
    rest = embedded - rounded * count
    order = np.argsort(-rest, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(count)[None], axis=1)
    # The rounded coordinates need not sum to 0: those that were rounded the furthest go back.
    rank += rounded.sum(axis=1, keepdims=True)
    wrapped = (rank < 0).astype(np.int64) - (rank >= count)
    rank += wrapped * count
    origin = (rounded + wrapped) * count
    offsets = (embedded - origin) / count
    weights = np.zeros((points, count + 1))
    rows = np.arange(points)[:, None]
    weights[rows, count - 1 - rank] += offsets
    weights[rows, count - rank] -= offsets
    weights[:, 0] += 1.0 + weights[:, count]
    steps = np.arange(count)
    # Corner r is r above the origin, but for its last r coordinates in order of rank.
    canonical = steps[:, None] - count * (steps[None] >= count - steps[:, None])
    corners = origin[:, None] + canonical[steps[None, :, None], rank[:, None]]
    return corners, weights[:, :count]


def _keys(
    corners: Int64[np.ndarray, "points corners coordinates"],
) -> tuple[Int64[np.ndarray, "points corners"], list[int]]:
    """One number for each corner, and what a step along each of the lattice's directions adds."""
    count = corners.shape[2]
    kept = corners[..., :-1]  # the last follows from the sum, which is 0
    low = kept.min(axis=(0, 1)) - count  # so that neighbours of the outermost have keys too
    spans = [int(span) for span in kept.max(axis=(0, 1)) + count - low + 1]
    bases = [1]
    for span in spans:
        bases.append(bases[-1] * span)
    if bases[-1] > _MOST_PLACES:
        message = (
            f"features of a lattice reach over {bases[-1]:.1g} places, expected at most "
            f"{_MOST_PLACES:.1g}: take larger standard deviations, or a smaller image"
        )
        raise InputError(message)
    scale = np.array(bases[:-1], np.int64)
    total = sum(bases[:-1])
    deltas = [total - count * base for base in bases[:-1]] + [total]
    return (kept - low) @ scale, deltas


def _blur(present: Int64[np.ndarray, " lattice"], delta: int) -> Any:
    """A matrix that adds to each corner half of its two neighbours along one direction."""
    number = len(present)
    rows, columns = [np.arange(number)], [np.arange(number)]
    for sought in (present + delta, present - delta):
        places = np.minimum(np.searchsorted(present, sought), number - 1)
        found = np.flatnonzero(present[places] == sought)
        rows.append(found)
        columns.append(places[found])
    halves = sum(map(len, rows)) - number
    values = np.concatenate([np.ones(number, np.float32), np.full(halves, 0.5, np.float32)])
    return sparse.csr_array(
        (values, (np.concatenate(rows), np.concatenate(columns))), shape=(number, number)
    )
