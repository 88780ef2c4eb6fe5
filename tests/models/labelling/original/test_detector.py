"""Grounding DINO of its authors' package beside that of transformers, on the same weights."""

import numpy as np
import pytest

pytest.importorskip("groundingdino", reason="the extra 'original' has an environment of its own")

from models.labelling.config import DetectorConfig
from models.labelling.detectors import GroundingDino
from models.labelling.original.config import OriginalDetectorConfig
from models.labelling.original.detector import OriginalGroundingDino
from models.miniature.scenes import held_out
from models.miniature.world import CLASSES
from original_folders import fitted_detector, save_detector
from original_parity import captions_of, scores_of, worst


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """The miniature's detector in both forms."""
    settings = {"nms_iou": 0.5, "device": "cpu", "batch_size": 32}
    ours = GroundingDino(DetectorConfig(model="weights:detector", **settings))
    network = ours._backend._network
    folder = save_detector(network, ours._backend.tokenizer, tmp_path_factory.mktemp("detector"))
    config = OriginalDetectorConfig(
        model=folder, architecture="own", short_side=64, long_side=64, **settings
    )
    with fitted_detector(network.config):
        yield ours, OriginalGroundingDino(config)


@pytest.fixture(scope="module")
def drawn():
    """96 drawn scenes, asked for one to seven classes, some of which are there."""
    rng = np.random.default_rng(7)
    scenes = held_out(48, 7, num_things=1) + held_out(48, 7, num_things=2)
    phrases = []
    for index, scene in enumerate(scenes):
        others = rng.permutation(CLASSES)[: index % 6].tolist()
        there = [CLASSES[thing.class_id] for thing in scene.scene.things]
        phrases.append(tuple(dict.fromkeys([*others, there[0]])))
    return [scene.picture for scene in scenes], phrases


def test_captions_have_the_same_tokens(miniature, drawn):
    ours, original = miniature
    _, phrases = drawn
    found = [[caption.token_ids for caption in captions_of(d, phrases)] for d in miniature]
    assert found[0] == found[1]
    network = original._backend._network
    seen = network.tokenizer([c.text for c in captions_of(ours, phrases)]).input_ids
    assert seen == found[0]
    assert ours._backend.max_tokens == original._backend.max_tokens == 48


def test_scores_and_boxes_of_the_trained_miniature_are_the_same(miniature, drawn):
    ours, original = miniature
    images, phrases = drawn
    scores, boxes = worst(
        scores_of(ours, images, phrases),
        scores_of(original, images, phrases),
        captions_of(ours, phrases),
    )
    assert scores <= 1e-5
    assert boxes <= 1e-5


def test_the_same_boxes_are_kept_and_they_are_of_the_same_phrases(miniature, drawn):
    ours, original = (detector.detect(*drawn) for detector in miniature)
    assert sum(len(found.scores) for found in ours) > 96
    for one, other in zip(ours, original, strict=True):
        np.testing.assert_array_equal(one.phrases, other.phrases)
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=64e-5)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        np.testing.assert_allclose(one.best_scores, other.best_scores, atol=1e-5)


def test_captions_of_other_images_in_the_batch_change_nothing(miniature, drawn):
    _, original = miniature
    images, phrases = (part[:9] for part in drawn)
    assert len({len(own) for own in phrases}) > 3  # captions of other lengths
    alone = [original.detect([i], [p])[0] for i, p in zip(images, phrases, strict=True)]
    for one, other in zip(original.detect(images, phrases), alone, strict=True):
        np.testing.assert_array_equal(one.xyxy, other.xyxy)
        np.testing.assert_array_equal(one.scores, other.scores)
