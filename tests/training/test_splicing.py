"""Several samples in one image: where their labels are, its classes, and whether it has a twin."""

import numpy as np
import pytest
import torch

from models.profiles import load_profile
from storage.identity import digest
from storage.records import IGNORE_LABEL
from storage.vocabulary import load_vocabulary
from training.augmentation import LabelledPair
from training.config import AugmentationConfig, NegativesConfig, TrainingConfig
from training.data import Batches, BatchPlan, SampleFiles, find_shards
from training.splicing import SampleTile, draw_grid, draw_tiles, splice

GREY = (122, 116, 104)


def tile(class_id, size=(32, 48), *, twin=True, excluded=()):
    """A plain picture in the colour of its class, with an object in the middle."""
    labels = np.zeros(size, np.uint16)
    labels[size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] = class_id + 1
    image = np.full((*size, 3), 10 * (class_id + 1), np.uint8)
    image[labels > 0] = 200
    return SampleTile(
        LabelledPair(image, np.full_like(image, 7) if twin else None, labels),
        (class_id,),
        tuple(excluded),
    )


def test_tiles_lie_row_by_row_with_their_labels_and_classes():
    found = splice([tile(k) for k in range(6)], (2, 3), 1000, padding=GREY)
    assert found.pair.image.shape == found.pair.counterfactual.shape == (64, 144, 3)
    assert found.class_ids == (0, 1, 2, 3, 4, 5)
    for k in range(6):
        row, column = divmod(k, 3)
        place = slice(32 * row, 32 * row + 32), slice(48 * column, 48 * column + 48)
        np.testing.assert_array_equal(found.pair.labels[place], tile(k).pair.labels)
        np.testing.assert_array_equal(found.pair.image[place], tile(k).pair.image)
    assert (found.pair.counterfactual == 7).all()


def test_tiles_are_shrunk_to_what_a_view_can_show_and_labels_stay_with_the_picture():
    found = splice([tile(k % 9) for k in range(64)], (8, 8), 64, padding=GREY)
    assert found.pair.labels.shape == (64, 96)
    objects = (found.pair.image > 150).all(axis=2)
    assert ((found.pair.labels > 0) != objects).mean() < 0.15  # bilinear borders of 8 rows
    assert set(np.unique(found.pair.labels)) == {0, *range(1, 10)}


def test_a_tile_of_another_shape_is_fitted_in_and_what_is_around_it_is_ignored():
    found = splice([tile(0, (32, 32)), tile(1, (32, 64))], (1, 2), 1000, padding=GREY)
    assert found.pair.labels.shape == (32, 64)
    right = found.pair.labels[:, 32:]
    assert (right[:8] == IGNORE_LABEL).all()
    assert (right[24:] == IGNORE_LABEL).all()
    assert set(np.unique(right[8:24])) == {0, 2}
    assert (found.pair.image[:8, 32:] == GREY).all()


def test_one_tile_without_twin_leaves_the_whole_without():
    pair = splice([tile(0), tile(1, twin=False)], (1, 2), 1000, padding=GREY).pair
    assert pair.counterfactual is None


def test_background_of_a_tile_where_a_class_of_another_was_not_looked_for_is_ignored():
    found = splice([tile(0), tile(1, excluded=(0, 5))], (1, 2), 1000, padding=GREY)
    assert set(np.unique(found.pair.labels[:, :48])) == {0, 1}
    assert set(np.unique(found.pair.labels[:, 48:])) == {2, IGNORE_LABEL}
    assert found.excluded == (5,)  # class 0 is there, and may teach


def test_no_more_classes_than_an_image_has_names():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        tiles = draw_tiles(lambda after: tile(after % 14), (4, 4), 5, rng)
        assert len(tiles) == 16
        classes = {k for each in tiles for k in each.class_ids}
        assert 0 in classes
        assert len(classes) <= 5


def test_grids_are_drawn_by_their_weights_and_never_if_nothing_is_spliced():
    rng = np.random.default_rng(0)
    config = AugmentationConfig(splice=0.5, splice_grids={"1x2": 1, "3x2": 3})
    drawn = [draw_grid(config, rng) for _ in range(2000)]
    shares = [drawn.count(grid) / 2000 for grid in ((1, 1), (1, 2), (3, 2))]
    assert shares == pytest.approx([0.5, 0.125, 0.375], abs=0.03)
    assert {draw_grid(AugmentationConfig(), rng) for _ in range(50)} == {(1, 1)}


@pytest.mark.parametrize("grids", [{}, {"1x1": 1}, {"0x2": 1}, {"2": 1}, {"2x2": 0}, {"10x2": 1}])
def test_what_is_no_grid_is_refused(grids):
    with pytest.raises(ValueError, match="expected"):
        AugmentationConfig(splice_grids=grids)


def test_trainings_without_any_of_it_are_the_runs_they_were():
    profile = load_profile("miniature")

    def identity(**augmentation):
        own = {**profile.training, "dataset": "d", "out": "o", "vocabulary": profile.vocabulary}
        own["augmentation"] = {**profile.training["augmentation"], **augmentation}
        config = TrainingConfig.model_validate({**own, "student": profile.student})
        found = config.identity()
        assert found["augmentation"].pop("arithmetic") == "opencv"  # see test_earlier_views
        return digest(found)

    assert identity().startswith("f0f69ea1cd731616")
    assert identity(blur_sigma=5, splice_grids={"2x2": 1}, occlusion_size=0.5) == identity()
    changed = {identity(**{name: 0.5}) for name in ("splice", "blur", "occlusion", "perspective")}
    assert len(changed | {identity()}) == 5
    assert identity(blur=0.5) != identity(blur=0.5, blur_sigma=5)


def plan(samples, **augmentation):
    return Batches(
        samples,
        BatchPlan(
            side=64,
            classes_per_image=5,
            negatives=NegativesConfig(),
            augmentation=AugmentationConfig(min_scale=1, max_scale=1, flip=0, **augmentation),
            padding=(1, 2, 3),
            seed=0,
        ),
    )


def test_batches_of_spliced_samples_are_what_their_positions_say(tars):
    samples = SampleFiles(find_shards(str(tars)), load_vocabulary("miniature"))
    spliced = plan(samples, splice=0.5, splice_grids={"2x2": 1, "3x3": 1})
    batch, again = (
        spliced.batch(0, 10),
        plan(samples, splice=0.5, splice_grids={"2x2": 1, "3x3": 1}).batch(0, 10),
    )
    assert torch.equal(batch.image, again.image)
    joined = torch.cat([spliced.batch(0, 4).image, spliced.batch(4, 6).image])
    assert torch.equal(batch.image, joined)
    plain = plan(samples).batch(0, 10)
    same = [torch.equal(a, b) for a, b in zip(batch.image, plain.image, strict=True)]
    assert 0 < sum(same) < 10  # those that are not spliced are the views that they were
    shown = [len(set(own[own >= 0].tolist())) for own in batch.targets]
    assert max(shown) > 1
    assert batch.num_present == sum(shown)
    assert batch.active.all()
