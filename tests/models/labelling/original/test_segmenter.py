"""SAM of its authors' package beside that of transformers, on the miniature's weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("segment_anything", reason="the extra 'original' has an environment of its own")

from segment_anything import SamPredictor, sam_model_registry
from torch.nn.modules.module import register_module_forward_hook
from transformers import SamModel

from models.labelling.config import SegmenterConfig
from models.labelling.original.checkpoints import load_checkpoint
from models.labelling.original.config import OriginalSegmenterConfig
from models.labelling.original.files import find_checkpoint
from models.labelling.original.segmenter import OriginalSam
from models.labelling.segmenters import Sam
from models.miniature.scenes import held_out
from models.miniature.world import boxes
from models.weights import resolve_weights
from original_folders import fitted_segmenter, save_segmenter
from storage.errors import InputError


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """The miniature's segmenter of transformers, and what makes the original one."""
    ours = SegmenterConfig(model="weights:segmenter", device="cpu")
    network = SamModel.from_pretrained(resolve_weights(ours.model).source)
    folder = save_segmenter(network, tmp_path_factory.mktemp("segmenter"))
    config = OriginalSegmenterConfig(model=folder, architecture="vit_b", device="cpu")
    with fitted_segmenter(network.config):
        yield ours, config


@pytest.fixture(scope="module")
def drawn():
    """48 drawn scenes with the boxes of their things; some are cut to other sizes."""
    scenes = held_out(24, 3, num_things=1) + held_out(24, 3, num_things=2)
    images = [scene.picture for scene in scenes]
    images[::5] = [np.ascontiguousarray(image[:48]) for image in images[::5]]
    images[1::5] = [np.ascontiguousarray(image[:, :40]) for image in images[1::5]]
    return images, [boxes(scene.scene).astype(np.float32) for scene in scenes]


def overlap(first, second):
    either = (first | second).sum()
    return (first & second).sum() / either if either else 1.0


@pytest.mark.parametrize("multimask", [False, True])
def test_masks_of_the_trained_miniature_are_the_same(miniature, drawn, multimask):
    changed = [config.model_copy(update={"multimask": multimask}) for config in miniature]
    ours, original = Sam(changed[0]).segment(*drawn), OriginalSam(changed[1]).segment(*drawn)
    for image, one, other in zip(drawn[0], ours, original, strict=True):
        assert other.masks.shape[1:] == image.shape[:2]
        assert one.finite
        assert other.finite
        np.testing.assert_allclose(one.predicted_ious, other.predicted_ious, atol=1e-5)
        overlaps = [overlap(*pair) for pair in zip(one.masks, other.masks, strict=True)]
        assert min(overlaps) >= 0.999
    assert sum(np.asarray(cut.masks).sum() for cut in original) > 1000


def test_logits_of_the_trained_miniature_are_the_same(miniature, drawn):
    found = []

    def note(module, _inputs, output):
        if type(module).__name__ in {"SamMaskDecoder", "MaskDecoder"}:
            found.append(output[0])

    with register_module_forward_hook(note):
        for kind, config in zip((Sam, OriginalSam), miniature, strict=True):
            kind(config).segment(drawn[0][:1], drawn[1][:1])
    ours, original = (logits.reshape(-1, *logits.shape[-2:]) for logits in found)
    assert original.abs().max() > 1
    torch.testing.assert_close(ours, original, atol=5e-5, rtol=0)


@pytest.mark.parametrize("multimask", [False, True])
def test_masks_are_those_of_the_predictor_that_the_package_has(miniature, drawn, multimask):
    segmenter = OriginalSam(miniature[1].model_copy(update={"multimask": multimask}))
    found = segmenter.segment(*drawn)
    network = sam_model_registry["vit_b"]()
    load_checkpoint(network, find_checkpoint(Path(miniature[1].model)))
    predictor = SamPredictor(network.eval())
    for image, corners, cut in zip(*drawn, found, strict=True):
        predictor.set_image(image)
        boxes_there = predictor.transform.apply_boxes_torch(
            torch.from_numpy(corners), image.shape[:2]
        )
        masks, ious, _ = predictor.predict_torch(
            None, None, boxes_there, multimask_output=multimask
        )
        best_ious, best = ious.max(dim=1)
        own = masks[torch.arange(len(best)), best].numpy()
        assert (np.asarray(cut.masks) != own).mean() < 1e-4
        np.testing.assert_allclose(cut.predicted_ious, best_ious.numpy(), atol=1e-5)


def test_boxes_in_parts_give_the_masks_that_they_give_at_once(miniature, drawn):
    image, box = drawn[0][-1], drawn[1][-1]
    many = np.concatenate([box, box / 2, box[::-1] * 0.9, box * 0.8])
    whole = OriginalSam(miniature[1]).segment([image], [many])[0]
    parts = OriginalSam(miniature[1].model_copy(update={"boxes_at_once": 3}))
    assert parts.config.identity() == miniature[1].identity()
    cut = parts.segment([image], [many])[0]
    assert len(cut.masks) == len(many) > 6
    np.testing.assert_array_equal(cut.masks, whole.masks)
    np.testing.assert_allclose(cut.predicted_ious, whole.predicted_ious, atol=1e-6)


def test_a_higher_threshold_leaves_a_smaller_mask(miniature, drawn):
    images, box = (part[-1:] for part in drawn)
    loose, strict = (
        np.asarray(OriginalSam(config).segment(images, box)[0].masks)
        for config in (
            miniature[1],
            miniature[1].model_copy(update={"mask_threshold": 3.0}),
        )
    )
    assert 0 < strict.sum() < loose.sum()
    assert not (strict & ~loose).any()


def test_an_image_without_boxes_is_refused(miniature, drawn):
    segmenter = OriginalSam(miniature[1])
    with pytest.raises(InputError, match="image 1 has no box"):
        segmenter.segment(drawn[0][:2], [drawn[1][0], np.zeros((0, 4), np.float32)])
    with pytest.raises(InputError, match="2 images came with boxes of 1"):
        segmenter.segment(drawn[0][:2], drawn[1][:1])


def test_a_checkpoint_of_another_size_is_refused(miniature):
    with pytest.raises(InputError, match=r"of shape .*set `architecture` to that of the check"):
        OriginalSam(miniature[1].model_copy(update={"architecture": "vit_l"}))
