"""The field against a loop over all pairs, and against the published implementation.

`tests/data/pydensecrf.npz` has what pydensecrf2 1.1 (MIT) answers for a drawn disk of 48 x 48
pixels whose seed is shifted by 4 rows, after 10 iterations with the settings of `SEED_CRF`: `both`
with two labels, `alike` without the kernel of places, `labels21` the mask of a field of 21 labels.
"""

from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.labelling.attention.dense_crf import (
    MASK_CRF,
    SEED_CRF,
    CrfSettings,
    DenseCrf,
    two_label_energies,
)
from models.labelling.attention.permutohedral import PermutohedralLattice
from storage.errors import InputError

STORED = Path(__file__).parents[3] / "data" / "pydensecrf.npz"


def scene(height, width, noise=8.0):
    """A disk of one colour on another, and the disk."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((height, width)) / max(height, width)
    disk = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2 < 0.06
    colours = np.where(disk[..., None], [200, 80, 60], [90, 140, 190])
    noisy = colours + rng.normal(0, noise, colours.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), disk


def looped(image, energies, settings):
    """The same field, as the paper writes it."""
    _, height, width = energies.shape
    pixels = [(row, column) for row in range(height) for column in range(width)]

    def near(a, b):
        return exp(-((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (2 * settings.near**2))

    def alike(a, b):
        colours = np.sum((image[a].astype(float) - image[b]) ** 2)
        places = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
        levels, deviation = settings.alike_levels, settings.alike
        return exp(-places / (2 * deviation**2) - colours / (2 * levels**2))

    weights = [(settings.near_weight, near), (settings.alike_weight, alike)]
    sums = [{a: sum(kernel(a, b) for b in pixels) for a in pixels} for _, kernel in weights]
    found = np.exp(-energies.astype(float))
    found /= found.sum(axis=0)
    for _ in range(settings.iterations):
        beliefs = -energies.astype(float)
        for (weight, kernel), own in zip(weights, sums, strict=True):
            for a in pixels:
                for b in pixels:
                    share = kernel(a, b) / sqrt(own[a] * own[b])
                    beliefs[:, *a] += weight * share * found[:, *b]
        found = np.exp(beliefs - beliefs.max(axis=0))
        found /= found.sum(axis=0)
    return found


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_the_exact_field_is_that_of_the_paper(labels):
    rng = np.random.default_rng(labels)
    image = rng.integers(0, 60, (4, 5, 3)).astype(np.uint8)
    energies = rng.uniform(0, 3, (labels, 4, 5)).astype(np.float32)
    settings = CrfSettings(near=1.5, near_weight=2, alike=4, alike_levels=20, iterations=3)
    exact = settings.model_copy(update={"kernel": "exact"})
    found = DenseCrf(image, exact).infer(energies[None])[0]
    np.testing.assert_allclose(found, looped(image, energies, settings), atol=2e-5)


def test_the_field_is_that_of_the_published_implementation():
    stored = np.load(STORED)
    energies = two_label_energies(stored["seed"], 0.7)[None]
    found = DenseCrf(stored["image"], SEED_CRF).infer(energies)[0, 1]
    np.testing.assert_array_equal(found > 0.5, stored["both"] > 0.5)
    # It sums the kernel of places on a lattice, which is exact here.
    assert np.abs(found - stored["both"]).mean() < 1e-4
    alone = SEED_CRF.model_copy(update={"near_weight": 0.0})
    found = DenseCrf(stored["image"], alone).infer(energies)[0, 1]
    np.testing.assert_allclose(found, stored["alike"], atol=1e-5)


def test_two_labels_give_the_mask_of_the_21_that_were_published():
    stored = np.load(STORED)
    energies = two_label_energies(stored["seed"], 0.7)[None]
    found = DenseCrf(stored["image"], SEED_CRF).infer(energies)[0, 1]
    np.testing.assert_array_equal(found > 0.5, stored["labels21"])
    own, other = -log(0.7), -log(0.3 / 20)
    assert energies[0, 1].max() - energies[0, 0].min() == pytest.approx(other - own, rel=1e-5)


@pytest.mark.parametrize("size", [(24, 24), (16, 40)])
def test_the_lattice_is_near_the_exact_sum(size):
    image, disk = scene(*size)
    energies = two_label_energies(np.roll(disk, 2, axis=0), 0.7)[None]
    lattice = DenseCrf(image, SEED_CRF).infer(energies)
    exact = DenseCrf(image, SEED_CRF.model_copy(update={"kernel": "exact"})).infer(energies)
    assert np.abs(lattice - exact).mean() < 0.005
    assert ((lattice[0, 1] > 0.5) != (exact[0, 1] > 0.5)).mean() < 0.005


@given(seed=st.integers(0, 1000), dimensions=st.integers(1, 5), points=st.integers(1, 40))
def test_the_lattice_keeps_order_and_is_linear(seed, dimensions, points):
    rng = np.random.default_rng(seed)
    lattice = PermutohedralLattice(rng.normal(0, 2, (points, dimensions)).astype(np.float32))
    values = rng.random((points, 3), np.float32)
    found = lattice.filtered(values)
    assert (found >= 0).all()
    np.testing.assert_allclose(lattice.filtered(2 * values), 2 * found, rtol=1e-4, atol=1e-6)
    together = lattice.filtered(values.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(together[:, 0], found.sum(axis=1), rtol=1e-4, atol=1e-5)


def test_points_that_are_far_apart_do_not_see_each_other_and_equal_ones_do():
    features = np.float32([[0, 0], [0, 0], [100, 100]])
    found = PermutohedralLattice(features).filtered(np.float32([[1], [0], [4]]))[:, 0]
    assert found[0] == found[1] > 0
    alone = PermutohedralLattice(features[2:]).filtered(np.float32([[4]]))[0, 0]
    assert found[2] == pytest.approx(alone)


def test_a_shifted_seed_moves_back_to_the_edges_of_the_image():
    image, disk = scene(64, 64)
    shifted = np.roll(disk, 5, axis=0)
    found = DenseCrf(image, SEED_CRF).infer(two_label_energies(shifted, 0.7)[None])[0, 1] > 0.5
    assert (shifted & disk).sum() / (shifted | disk).sum() < 0.75
    assert (found & disk).sum() / (found | disk).sum() > 0.99


def test_problems_that_share_an_image_do_not_change_each_other():
    image, disk = scene(20, 30)
    image.flags.writeable = False
    seeds = [disk, np.roll(disk, 3, axis=1), ~disk]
    energies = np.stack([two_label_energies(seed, 0.5) for seed in seeds])
    field = DenseCrf(image, MASK_CRF)
    together = field.infer(energies)
    for own, energy in zip(together, energies, strict=True):
        np.testing.assert_allclose(field.infer(energy[None])[0], own, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 333)])
@pytest.mark.parametrize("kernel", ["lattice", "exact"])
def test_any_size_of_image_gets_probabilities(size, kernel):
    image, disk = scene(*size)
    settings = CrfSettings(kernel=kernel, iterations=2)
    for seed in (disk, np.zeros(size, bool), np.ones(size, bool)):
        found = DenseCrf(image, settings).infer(two_label_energies(seed, 0.7)[None])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)


def test_one_label_everywhere_stays():
    image, _ = scene(12, 12)
    for seed in (np.zeros((12, 12), bool), np.ones((12, 12), bool)):
        found = DenseCrf(image, SEED_CRF).infer(two_label_energies(seed, 0.7)[None])
        np.testing.assert_array_equal(found[0, 1] > 0.5, seed)


def test_without_kernels_probabilities_are_those_of_the_energies():
    image, disk = scene(8, 8)
    energies = two_label_energies(disk, 0.7)
    settings = CrfSettings(near_weight=0, alike_weight=0)
    found = DenseCrf(image, settings).infer(energies[None])[0]
    np.testing.assert_allclose(found, np.exp(-energies), atol=1e-6)
    assert found[1].max() == pytest.approx(0.7 * 20 / (0.7 * 20 + 0.3))


def test_energies_that_do_not_fit_are_refused():
    field = DenseCrf(np.zeros((4, 5, 3), np.uint8), SEED_CRF)
    for shape in ((1, 2, 5, 4), (1, 0, 4, 5)):
        with pytest.raises(InputError, match=r"the image's size \(4, 5\)"):
            field.infer(np.zeros(shape, np.float32))
    with pytest.raises(InputError, match="not all finite"):
        field.infer(np.full((1, 2, 4, 5), np.nan, np.float32))


@pytest.mark.parametrize(("certainty", "labels"), [(0.0, 21), (1.0, 21), (0.7, 1)])
def test_a_certainty_that_is_none_is_refused(certainty, labels):
    with pytest.raises(InputError, match="expected one above 0 and below 1"):
        two_label_energies(np.zeros((2, 2), bool), certainty, labels)


def test_features_that_reach_too_far_are_refused():
    wide = np.array([[0] * 5, [1e6] * 5], np.float32)
    with pytest.raises(InputError, match="take larger standard deviations"):
        PermutohedralLattice(wide)
    with pytest.raises(InputError, match="not all finite"):
        PermutohedralLattice(np.full((1, 2), np.inf, np.float32))
