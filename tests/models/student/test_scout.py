"""The scout on the weights that ship, and on images of any shape."""

import numpy as np
import pytest

from models.miniature.scenes import held_out
from models.profiles import load_profile
from models.protocols import ClassScout
from models.registry import Role, build, kind_of
from models.student.scout_config import ClipScoutConfig
from storage.errors import InputError
from storage.vocabulary import load_vocabulary

PHRASES = [record.embedding_phrases for record in load_vocabulary("miniature")]


@pytest.fixture(scope="module")
def scout():
    return build(load_profile("miniature").scouting)


@pytest.fixture(scope="module")
def scenes():
    found = held_out(24, 3, num_things=2, hard=0.0)
    return [scene for scene in found if min(scene.class_ids) >= 0]


def test_both_objects_of_a_scene_are_among_the_likeliest(scout, scenes):
    likeness = scout.likeness([scene.picture for scene in scenes], PHRASES)
    assert likeness.shape == (len(scenes), len(PHRASES))
    assert (np.abs(likeness) <= 1.001).all()
    order = np.argsort(-likeness, axis=1)[:, :5]
    seen = [
        set(scene.class_ids) <= set(own.tolist()) for scene, own in zip(scenes, order, strict=True)
    ]
    assert sum(seen) >= 0.8 * len(scenes)


def test_company_order_and_the_batch_size_change_nothing_that_is_kept(scout, scenes):
    pictures = [scene.picture for scene in scenes[:6]]
    together = scout.likeness(pictures, PHRASES)
    assert np.array_equal(together[::-1], scout.likeness(pictures[::-1], PHRASES))
    assert np.array_equal(together[2:3], scout.likeness(pictures[2:3], PHRASES))
    small = load_profile("miniature").scouting.model_copy(update={"batch_size": 2})
    assert np.allclose(together, build(small).likeness(pictures, PHRASES), atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_ranks_nearly_as_float32(scout, scenes, dtype):
    pictures = [scene.picture for scene in scenes[:4]]
    half = build(load_profile("miniature").scouting.model_copy(update={"dtype": dtype}))
    assert np.allclose(
        half.likeness(pictures, PHRASES), scout.likeness(pictures, PHRASES), atol=0.03
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 20), (100, 90)])
def test_an_image_may_have_any_shape(scout, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.isfinite(scout.likeness([image], PHRASES)).all()


def test_an_image_is_only_read(scout, scenes):
    picture = scenes[0].picture.copy()
    picture.flags.writeable = False
    before = picture.copy()
    scout.likeness([picture], PHRASES)
    assert np.array_equal(picture, before)


def test_other_classes_are_embedded_anew(scout, scenes):
    pictures = [scenes[0].picture]
    every = scout.likeness(pictures, PHRASES)
    assert np.allclose(scout.likeness(pictures, PHRASES[3:5]), every[:, 3:5], atol=1e-5)
    assert np.array_equal(scout.likeness(pictures, PHRASES), every)


def test_no_image_gives_no_row_and_a_class_needs_a_phrase(scout):
    assert scout.likeness([], PHRASES).shape == (0, len(PHRASES))
    with pytest.raises(InputError, match="classes without a phrase: 1"):
        scout.likeness([np.zeros((8, 8, 3), np.uint8)], [("cup",), ()])


def test_it_is_of_a_kind_whose_identity_leaves_the_machine_out(scout):
    assert isinstance(scout, ClassScout)
    config = load_profile("miniature").scouting
    assert kind_of(config).role is Role.SCOUT
    elsewhere = config.model_copy(update={"device": "cuda", "batch_size": 1})
    assert elsewhere.identity() == config.identity()
    assert config.model_copy(update={"windows": 2}).identity() != config.identity()
    assert "weights:clip" in config.check()


def test_weights_of_something_else_are_refused():
    with pytest.raises(InputError):
        build(ClipScoutConfig(model="weights:detector"))
