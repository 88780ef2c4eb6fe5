"""What SAM on a folder of the hub's layout must do; the folder has random weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import SamModel, SamProcessor

from models.labelling.config import SegmenterConfig
from models.labelling.segmenters import Sam
from storage.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(build_sam, tmp_path_factory):
    return build_sam(tmp_path_factory.mktemp("sam"))


def config(model, **changes):
    return SegmenterConfig(model=model, device="cpu", **({"batch_size": 2} | changes))


def picture(seed, height, width):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


IMAGES = [picture(0, 64, 64), picture(1, 48, 80), picture(2, 100, 40), picture(3, 64, 64)]
BOXES = [
    np.array([[4, 4, 30, 30]], np.float32),
    np.array([[10, 5, 70, 40], [0, 0, 20, 20], [30, 30, 79, 47]], np.float32),
    np.array([[2, 50, 38, 90], [5, 5, 20, 95]], np.float32),
    np.array([[0, 0, 64, 64]], np.float32),
]


def as_trained(model):
    """The decoder's norms as in segment-anything: torch's own small number."""
    for module in model.mask_decoder.transformer.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = torch.nn.LayerNorm(1).eps
    return model


@pytest.fixture(scope="module")
def cuts(checkpoint):
    return Sam(config(checkpoint)).segment(IMAGES, BOXES)


def test_every_box_gets_a_mask_at_the_size_of_its_image(cuts):
    for image, boxes, cut in zip(IMAGES, BOXES, cuts, strict=True):
        assert cut.masks.shape == (len(boxes), *image.shape[:2])
        assert all(mask.dtype == np.bool_ for mask in cut.masks)
        assert cut.predicted_ious.shape == (len(boxes),)
        assert cut.predicted_ious.dtype == np.float32


def test_the_masks_are_neither_empty_nor_full_and_differ_by_box(cuts):
    shares = [mask.mean() for cut in cuts for mask in cut.masks]
    assert 0 < min(shares) < max(shares) < 1
    assert not np.array_equal(cuts[1].masks[0], cuts[1].masks[1])


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_neither_the_batch_nor_other_boxes_change_a_mask(checkpoint, cuts, batch_size):
    others = Sam(config(checkpoint, batch_size=batch_size)).segment(IMAGES, BOXES)
    for cut, other in zip(cuts, others, strict=True):
        assert (np.asarray(cut.masks) != other.masks).mean() < 1e-3
        np.testing.assert_allclose(cut.predicted_ious, other.predicted_ious, atol=1e-5)


def test_a_box_alone_gives_the_mask_it_gives_in_company(checkpoint, cuts):
    alone = Sam(config(checkpoint)).segment([IMAGES[1]], [BOXES[1][1:2]])[0]
    assert (alone.masks[0] != cuts[1].masks[1]).mean() < 1e-3


def test_the_mask_is_what_the_plain_processor_and_model_give(checkpoint, cuts):
    processor = SamProcessor.from_pretrained(checkpoint)
    model = SamModel.from_pretrained(checkpoint)
    inputs = processor(
        images=Image.fromarray(IMAGES[2]), input_boxes=[BOXES[2].tolist()], return_tensors="pt"
    )
    with torch.inference_mode():
        outputs = model(
            pixel_values=inputs["pixel_values"],
            input_boxes=inputs["input_boxes"].float(),
            multimask_output=False,
        )
    masks = processor.post_process_masks(
        outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )[0]
    assert (masks[:, 0].numpy() != np.asarray(cuts[2].masks)).mean() < 1e-3


def test_of_several_proposals_the_one_with_the_best_predicted_iou_is_taken(checkpoint, cuts):
    several = Sam(config(checkpoint, multimask=True)).segment(IMAGES, BOXES)
    model = as_trained(SamModel.from_pretrained(checkpoint))
    inputs = SamProcessor.from_pretrained(checkpoint)(
        images=Image.fromarray(IMAGES[1]), input_boxes=[BOXES[1].tolist()], return_tensors="pt"
    )
    with torch.inference_mode():
        outputs = model(
            pixel_values=inputs["pixel_values"],
            input_boxes=inputs["input_boxes"].float(),
            multimask_output=True,
        )
    best = outputs.iou_scores[0].max(dim=1).values.numpy()
    np.testing.assert_allclose(several[1].predicted_ious, best, atol=1e-5)
    assert not np.array_equal(several[1].masks, cuts[1].masks)


def test_a_higher_threshold_leaves_a_smaller_mask(checkpoint, cuts):
    strict = Sam(config(checkpoint, mask_threshold=0.3)).segment(IMAGES[:1], BOXES[:1])[0]
    assert strict.masks.sum() < cuts[0].masks.sum()
    assert not (strict.masks & ~cuts[0].masks).any()


def test_an_image_without_boxes_is_refused(checkpoint):
    sam = Sam(config(checkpoint))
    with pytest.raises(InputError, match="image 1 has no box"):
        sam.segment(IMAGES[:2], [BOXES[0], np.zeros((0, 4), np.float32)])
    with pytest.raises(InputError, match="2 images came with boxes of 1"):
        sam.segment(IMAGES[:2], BOXES[:1])


def test_a_folder_of_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam2"}))
    with pytest.raises(InputError, match="of type 'sam2', expected 'sam'"):
        Sam(config(str(tmp_path)))


def test_a_checkpoint_that_lacks_parameters_is_refused(build_sam, tmp_path):
    model = build_sam(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["mask_decoder.iou_token.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 parameters .*mask_decoder\.iou_token\.weight"):
        Sam(config(model))


def test_half_precision_cuts_nearly_the_same(checkpoint, cuts):
    half = Sam(config(checkpoint, dtype="bfloat16")).segment(IMAGES[:1], BOXES[:1])[0]
    assert (np.asarray(half.masks) != np.asarray(cuts[0].masks)).mean() < 0.05


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_does_not_round_the_corners_of_boxes(checkpoint, kind):
    half = Sam(config(checkpoint, dtype=kind))
    waves = []
    shared = half._network.prompt_encoder.shared_embedding
    shared.register_forward_hook(lambda _module, _places, found: waves.append(found.float()))
    box = np.array([[3, 3, 60.2, 61.3]], np.float32)  # bfloat16 knows 60.25 and 61.25
    half.segment(IMAGES[:1], [box])
    corners = (torch.tensor(box).reshape(1, 1, 2, 2) + 0.5) / 64 * 2 - 1
    whole = Sam(config(checkpoint))._network.prompt_encoder.shared_embedding.positional_embedding
    whole = whole.to(getattr(torch, kind)).float()  # the weights come in half precision
    angles = 2 * np.pi * corners @ whole.detach()
    expected = torch.cat([angles.sin(), angles.cos()], dim=-1)
    error = (waves[-1] - expected).abs().max().item()
    assert error < (0.005 if kind == "bfloat16" else 0.001)


def test_tf32_is_float32_on_a_cpu_and_another_recipe(checkpoint, cuts):
    rounded = config(checkpoint, dtype="tf32")
    found = Sam(rounded).segment(IMAGES, BOXES)
    assert all(np.array_equal(own.masks, cut.masks) for own, cut in zip(found, cuts, strict=True))
    assert rounded.identity() != config(checkpoint).identity()
