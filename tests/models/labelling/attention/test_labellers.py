"""Planted attention gives the masks that are computed by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from models.attention_maps import AttentionMaps, MapsWanted, TokenMaps
from models.labellers import build_labeller, cutting_part, finding_part, maps_wanted, parts_of
from models.labelling.attention.config import DatasetDiffusionConfig, DiffuMaskConfig
from models.labelling.attention.labellers import DatasetDiffusion, DiffuMask
from models.profiles import load_profile
from models.protocols import AttentionLabeller, RecordedScene
from models.registry import Role
from storage.errors import InputError

SIDE = 8
GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)
LEFT = np.zeros((SIDE, SIDE), np.bool_)
LEFT[2:6, 1:3] = True
RIGHT = np.zeros((SIDE, SIDE), np.bool_)
RIGHT[2:6, 5:7] = True


def tokens(*planted, high=0.8, low=0.02):
    """One token a mask, with the class's position; probabilities are high in the mask."""
    maps = [np.where(mask, high, low) for _, mask in planted]
    stacked = np.array(maps, np.float32).reshape(-1, SIDE, SIDE)
    return TokenMaps(tuple(position for position, _ in planted), {SIDE: stacked})


def scene(prompt, mentions=None, twin=None, names=("cat", "bus"), cells=None, present=None):
    grid = (0, 0) if cells is None else (SIDE, SIDE)
    maps = AttentionMaps(mentions or prompt, prompt, twin or tokens(), cells, grid)
    return RecordedScene(GREY, maps, names, present)


def diffumask(**changes):
    settings = {"cross_resolutions": {SIDE: 1.0}, "min_presence": 0.3, "threshold": 0.5}
    return DiffuMask(DiffuMaskConfig(**settings | changes))


def dataset_diffusion(**changes):
    settings = {"cross_resolution": SIDE, "cell_resolution": SIDE, "min_presence": 0.3}
    return DatasetDiffusion(DatasetDiffusionConfig(**settings | changes))


@pytest.mark.parametrize("labeller", [diffumask(), dataset_diffusion(power=0)])
def test_planted_maps_are_the_masks(labeller):
    assert isinstance(labeller, AttentionLabeller)
    cells = np.eye(SIDE**2, dtype=np.float32)
    [found] = labeller.label_scenes([scene(tokens((0, LEFT), (1, RIGHT)), cells=cells)])
    assert np.array_equal(found.cuts.masks[0], LEFT)
    assert np.array_equal(found.cuts.masks[1], RIGHT)
    assert found.boxes.xyxy.tolist() == [[1, 2, 3, 6], [5, 2, 7, 6]]
    assert found.boxes.phrases.tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes.scores, 0.8, rtol=1e-6)
    assert found.cuts.predicted_ious.tolist() == [1, 1]


def test_a_class_that_nobody_looked_for_is_not_found_and_says_how_little_it_was():
    weak = tokens((1, RIGHT), high=0.2)
    prompt = TokenMaps(
        (0, 1), {SIDE: np.concatenate([tokens((0, LEFT)).maps[SIDE], weak.maps[SIDE]])}
    )
    [found] = diffumask().label_scenes([scene(prompt)])
    assert found.boxes.phrases.tolist() == [0]
    np.testing.assert_allclose(found.boxes.best_scores, [0.8, 0.2], rtol=1e-6)


def test_what_is_known_to_be_there_is_cut_however_weak_it_is_and_nothing_else():
    weak = tokens((0, LEFT), (1, RIGHT), high=0.2)
    [found] = diffumask().label_scenes([scene(weak, present=frozenset({1}))])
    assert found.boxes.phrases.tolist() == [1]
    assert np.array_equal(found.cuts.masks[0], RIGHT)


def test_a_known_class_without_a_map_has_an_empty_mask():
    [found] = diffumask().label_scenes([scene(tokens((0, LEFT)), present=frozenset({0, 1}))])
    assert found.boxes.phrases.tolist() == [0, 1]
    assert not found.cuts.masks[1].any()
    assert found.boxes.xyxy[1].tolist() == [0, 0, 0, 0]


def test_all_tokens_of_a_class_count():
    upper, lower = LEFT.copy(), LEFT.copy()
    upper[4:], lower[:4] = False, False
    both = scene(tokens((0, upper), (0, lower)), names=("cat",))
    [found] = diffumask(threshold=0.45).label_scenes([both])
    assert np.array_equal(found.cuts.masks[0], LEFT)


def test_where_two_classes_meet_the_higher_map_has_the_pixel():
    wide = np.zeros((SIDE, SIDE), np.bool_)
    wide[2:6, 1:7] = True
    maps = np.stack([np.where(wide, 0.5, 0.02), np.where(RIGHT, 0.8, 0.02)]).astype(np.float32)
    maps[0][LEFT] = 0.8
    [found] = diffumask().label_scenes([scene(TokenMaps((0, 1), {SIDE: maps}))])
    assert not (found.cuts.masks[0] & found.cuts.masks[1]).any()
    assert np.array_equal(found.cuts.masks[0], wide & ~RIGHT)
    assert np.array_equal(found.cuts.masks[1], RIGHT)


def test_self_attention_carries_a_map_to_the_rest_of_the_object():
    start = np.zeros((SIDE, SIDE), np.bool_)
    start[2, 1] = True
    cells = np.eye(SIDE**2, dtype=np.float32)
    own = np.flatnonzero(LEFT.ravel())
    cells[np.ix_(own, own)] = 1 / len(own)
    one = scene(tokens((0, start)), names=("cat",), cells=cells)
    [found] = dataset_diffusion(power=1).label_scenes([one])
    assert np.array_equal(found.cuts.masks[0], LEFT)
    [without] = dataset_diffusion(power=0).label_scenes([one])
    assert np.array_equal(without.cuts.masks[0], start)


def test_pixels_between_the_thresholds_are_uncertain():
    maps = np.where(LEFT, 0.8, 0.0).astype(np.float32)
    maps[2:6, 3] = 0.44  # 0.55 of the greatest
    own = scene(TokenMaps((0,), {SIDE: maps[None]}), names=("cat",))
    [found] = dataset_diffusion(power=0, cell_resolution=None).label_scenes([own])
    band = np.zeros((SIDE, SIDE), np.bool_)
    band[2:6, 3] = True
    assert np.array_equal(found.cuts.masks[0], LEFT)
    assert np.array_equal(found.uncertain, band)


def test_counterfactuals_are_judged_by_the_class_prompt_alone():
    shown = scene(tokens((0, LEFT), (1, RIGHT)), twin=tokens((0, LEFT), high=0.6))
    [found] = diffumask().find_in_twins([shown])
    assert found.phrases.tolist() == [0]
    assert found.xyxy.tolist() == [[1, 2, 3, 6]]
    np.testing.assert_allclose(found.best_scores, [0.6, 0.0], rtol=1e-6)


@pytest.mark.parametrize("maps", [np.zeros((1, SIDE, SIDE)), np.full((1, SIDE, SIDE), np.nan)])
def test_maps_that_say_nothing_find_nothing(maps):
    empty = TokenMaps((0,), {SIDE: maps.astype(np.float32)})
    for labeller in (diffumask(), dataset_diffusion(cell_resolution=None, power=0)):
        [found] = labeller.label_scenes([scene(empty, names=("cat",))])
        assert not len(found.boxes.phrases)
        assert not len(labeller.find_in_twins([scene(empty, twin=empty, names=("cat",))])[0].xyxy)


@pytest.mark.parametrize("refine", ["grabcut", "crf"])
def test_masks_move_to_the_edges_of_the_image(refine):
    side = 64
    image = np.full((side, side, 3), 200, np.uint8)
    image[16:48, 16:48] = (200, 30, 30)
    exact = image[..., 1] == 30
    coarse = np.zeros((8, 8), np.bool_)
    coarse[2:6, 1:6] = True  # too far to the left
    maps = np.where(coarse, 0.8, 0.02).astype(np.float32)[None]
    own = RecordedScene(
        image,
        AttentionMaps(*[TokenMaps((0,), {8: maps})] * 3, None),
        ("cat",),
    )
    plain, fitted = (
        DiffuMask(
            DiffuMaskConfig(cross_resolutions={8: 1.0}, min_presence=0.3, threshold=0.5, refine=way)
        ).label_scenes([own])[0]
        for way in ("none", refine)
    )
    assert np.array_equal(fitted.cuts.masks[0], exact)
    assert not np.array_equal(plain.cuts.masks[0], exact)


DETECTOR = {"kind": "grounding-dino", "model": "weights:detector"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "neither given, expected one of them"),
        ({"detector": DETECTOR, "min_presence": 0.1}, "both given, expected one of them"),
        ({"min_presence": 0}, "greater than 0"),
        ({"detector": DETECTOR, "cross_resolutions": {}}, "at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        DiffuMaskConfig.model_validate(settings)


def test_thresholds_are_in_order():
    with pytest.raises(ValidationError, match=r"uncertain is 0.7, expected at most foreground"):
        DatasetDiffusionConfig(min_presence=0.1, uncertain=0.7)


def test_what_is_recorded_depends_on_what_is_read():
    assert maps_wanted(load_profile("miniature").labeller) is None
    own = DiffuMaskConfig.model_validate({"detector": DETECTOR})
    wanted = MapsWanted(mentions=True, class_prompt=False, cross=(8, 16, 32, 64))
    assert maps_wanted(own) == wanted
    other = DatasetDiffusionConfig(min_presence=0.1)
    assert maps_wanted(other) == MapsWanted(
        mentions=False, class_prompt=True, cross=(16,), cells=32
    )
    assert not wanted.holds(maps_wanted(other))
    assert maps_wanted(other).holds(maps_wanted(other))


def test_a_detector_finds_where_there_is_one_and_attention_cuts():
    own = DiffuMaskConfig.model_validate({"detector": DETECTOR})
    assert (finding_part(own), cutting_part(own)) == (own.detector, own)
    assert list(parts_of(own)) == [Role.DETECTOR, Role.LABELLER]
    alone = DiffuMaskConfig(min_presence=0.1)
    assert (finding_part(alone), cutting_part(alone)) == (alone, None)


def test_the_device_is_no_part_of_the_identity_and_unused_settings_are_not():
    one = DiffuMaskConfig(min_presence=0.1)
    assert one.identity() == one.model_copy(update={"device": "cuda", "batch_size": 3}).identity()
    assert "walk_power" not in one.identity()
    assert one.check()


def test_a_labeller_that_reads_attention_labels_no_other_pictures():
    with pytest.raises(InputError, match="'diffumask' reads its painter's attention, expected"):
        build_labeller(DiffuMaskConfig(min_presence=0.1))


def test_affinities_that_are_not_there_are_told(tmp_path):
    own = DiffuMaskConfig(min_presence=0.1, affinity=str(tmp_path))
    for ask in (own.check, own.identity, lambda: DiffuMask(own)):
        with pytest.raises(InputError, match="holds no network of affinities"):
            ask()
