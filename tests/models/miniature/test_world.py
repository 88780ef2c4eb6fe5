"""The drawn world."""

import numpy as np
import pytest

from models.miniature.world import (
    BACKGROUNDS,
    CANVAS,
    CLASSES,
    COLOURS,
    Scene,
    Thing,
    boxes,
    masks,
    render,
    sample_scene,
)


def scenes(count, **options):
    rng = np.random.default_rng(7)
    return [sample_scene(rng, **options) for _ in range(count)]


def test_the_same_scene_gives_the_same_pixels():
    scene, again = scenes(1, num_things=2, hard=1.0) + scenes(1, num_things=2, hard=1.0)
    assert scene == again
    np.testing.assert_array_equal(render(scene), render(again))
    assert render(scene).dtype == np.uint8
    assert render(scene).shape == (CANVAS, CANVAS, 3)


def test_the_twin_differs_only_at_its_things():
    for scene in scenes(60, num_things=2, hard=1.0):
        changed = (render(scene) != render(scene, things=False)).any(axis=2)
        near = np.pad(masks(scene).any(axis=0), 1)
        grown = np.zeros_like(changed)
        for y in range(3):
            for x in range(3):
                grown |= near[y : y + CANVAS, x : x + CANVAS]
        assert not (changed & ~grown).any()


def test_nearly_every_pixel_of_a_mask_changes_with_its_thing():
    for scene in scenes(60, hard=0.5):
        changed = (render(scene) != render(scene, things=False)).any(axis=2)
        assert changed[masks(scene)[0]].mean() > 0.97


def test_the_later_thing_hides_the_earlier_one():
    behind, before = (Thing(5, colour, "large", 32.0, 32.0, 18.0) for colour in ("red", "blue"))
    both = masks(Scene("room", (behind, before), 1))
    alone = masks(Scene("room", (before,), 1))
    assert not (both[0] & both[1]).any()
    assert both[1].sum() == pytest.approx(alone[0].sum(), rel=0.15)
    assert both[0].sum() < 0.15 * both[1].sum()


def test_boxes_touch_the_outermost_pixels_of_the_masks():
    for scene in scenes(40, num_things=2, hard=0.7):
        for mask, box in zip(masks(scene), boxes(scene).astype(int), strict=True):
            left, top, right, bottom = box
            assert mask[top:bottom, left:right].sum() == mask.sum()
            assert mask[top].any()
            assert mask[bottom - 1].any()
            assert mask[:, left].any()
            assert mask[:, right - 1].any()


def test_a_thing_that_is_wholly_hidden_has_an_empty_box():
    small = Thing(5, "red", "small", 32.0, 33.0, 5.0)
    scene = Scene("wall", (small, Thing(10, "blue", "large", 32.0, 32.0, 20.0)), 3)
    assert boxes(scene)[0].tolist() == [0, 0, 0, 0]


def test_things_stay_inside_the_canvas():
    for scene in scenes(200, hard=1.0):
        mask = masks(scene)[0]
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert mask.sum() > 40
        assert edge.mean() < 0.1


def test_every_class_has_a_silhouette_of_its_own():
    things = [Thing(c, "red", "large", 32.0, 32.0, 20.0) for c in range(len(CLASSES))]
    shapes = np.stack([masks(Scene("room", (thing,), 1))[0] for thing in things])
    for first in range(len(CLASSES)):
        for second in range(first):
            union = (shapes[first] | shapes[second]).sum()
            assert (shapes[first] & shapes[second]).sum() / union < 0.8


@pytest.mark.parametrize("colour", COLOURS)
def test_the_colour_of_a_thing_dominates_its_pixels(colour):
    star = CLASSES.index("star")
    named = {c: Scene("room", (Thing(star, c, "large", 32.0, 32.0, 20.0),), 1) for c in COLOURS}
    inside = masks(named[colour])[0]
    middle = np.median(render(named[colour])[inside], axis=0)
    for other in set(COLOURS) - {colour}:
        assert np.abs(np.median(render(named[other])[inside], axis=0) - middle).max() > 40


def test_easy_scenes_hold_one_large_thing_near_the_centre_and_no_clutter():
    for scene in scenes(100):
        (thing,) = scene.things
        assert thing.size == "large"
        assert np.hypot(thing.x - 32, thing.y - 32) < 7
        assert scene.clutter == ()


def test_hard_scenes_show_everything():
    found = scenes(400, hard=1.0)
    assert {thing.class_id for s in found for thing in s.things} == set(range(len(CLASSES)))
    assert {thing.colour for s in found for thing in s.things} == set(COLOURS)
    assert {thing.size for s in found for thing in s.things} == {"small", "large"}
    assert {s.background for s in found} == set(BACKGROUNDS)
    clutter = {name for s in found for name in s.clutter}
    assert clutter == {"sun", "moon", "cloud", "fence", "window"}


def test_excluded_pairs_of_class_and_background_never_occur():
    exclude = {(c, b) for c in range(7) for b in BACKGROUNDS[:3]}
    for scene in scenes(300, num_things=2, exclude=exclude):
        assert not {(thing.class_id, scene.background) for thing in scene.things} & exclude


def test_class_ids_of_the_same_number_as_things_are_exactly_the_classes():
    for scene in scenes(20, num_things=2, class_ids=[3, 11], background="night"):
        assert {thing.class_id for thing in scene.things} == {3, 11}
        assert scene.background == "night"


def test_a_scene_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="exclude less"):
        scenes(1, class_ids=[2], exclude={(2, b) for b in BACKGROUNDS})
    with pytest.raises(ValueError, match="num_things is 3"):
        scenes(1, num_things=3)
