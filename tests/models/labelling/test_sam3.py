"""What SAM 3 on a folder of the hub's layout must do; the folder has random weights."""

import importlib.metadata
import importlib.util
import json
import logging
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from models.labelling.sam3 import Sam3
from models.labelling.sam3_config import Sam3Config
from models.processors import image_processor_class
from models.protocols import Labeller
from models.registry import build
from storage.errors import InputError

installed = pytest.mark.skipif(
    not hasattr(transformers, "Sam3Model"), reason="the installed transformers has no SAM 3"
)


@pytest.fixture(scope="module", params=["sam3", "sam3_lite_text"])
def any_checkpoint(request, build_sam3, tmp_path_factory):
    light = request.param == "sam3_lite_text"
    return build_sam3(tmp_path_factory.mktemp(request.param), light=light)


@pytest.fixture(scope="module")
def checkpoint(build_sam3, tmp_path_factory):
    return build_sam3(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def copied(checkpoint, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def config(model, **changes):
    loose = {"score_threshold": 0.2, "batch_size": 2}
    return Sam3Config(model=str(model), device="cpu", **(loose | changes))


def picture(seed, height, width):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


IMAGES = [picture(0, 64, 64), picture(1, 48, 80), picture(2, 100, 40)]
PHRASES = [("cat", "School bus"), ("fish",), ("bus", "cat", "fish")]


@pytest.fixture(scope="module")
def found(checkpoint):
    return Sam3(config(checkpoint)).label(IMAGES, PHRASES)


def as_rows(boxes):
    rows = np.column_stack([boxes.phrases, boxes.scores, boxes.xyxy])
    return rows[np.lexsort(rows.T[::-1])]


@pytest.fixture
def processor_module(monkeypatch):
    """The library's own steps before and after the network; they look for torchvision, and what is
    used here needs none of it."""
    if importlib.util.find_spec("torchvision") is None:
        boxes = types.ModuleType("torchvision.ops.boxes")
        boxes.batched_nms = None
        for name in ("torchvision", "torchvision.ops"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, "torchvision.ops.boxes", boxes)
    name = "transformers.models.sam3.image_processing_sam3"
    yield importlib.import_module(name)
    sys.modules.pop(name)


def library_pixels(image):
    """Pixels as the library prepares them: torch's resizing of bytes with smoothing."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(pixels, (56, 56), mode="bilinear", antialias=True)
    return (small.float() - 127.5) / 127.5


def library_pass(folder):
    """The library's own network, and its tokens as its processor makes them."""
    light = "sam3_lite_text" in (Path(folder) / "config.json").read_text()
    kind = transformers.Sam3LiteTextModel if light else transformers.Sam3Model
    network = kind.from_pretrained(folder).eval()
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)

    def outputs(pixels, phrase):
        tokens = tokenizer([phrase], return_tensors="pt", padding="max_length", max_length=32)
        with torch.inference_mode():
            return network(pixel_values=pixels, **tokens)

    return outputs


@installed
def test_boxes_scores_and_masks_are_those_of_the_library(any_checkpoint, processor_module):
    own = Sam3(config(any_checkpoint)).label(IMAGES, PHRASES)
    ask = library_pass(any_checkpoint)
    prepare = image_processor_class("ViTImageProcessor").from_pretrained(any_checkpoint)
    after = processor_module.Sam3ImageProcessor.post_process_instance_segmentation
    seen = 0
    for image, phrases, labelled in zip(IMAGES, PHRASES, own, strict=True):
        pixels = prepare(images=[Image.fromarray(image)], return_tensors="pt")["pixel_values"]
        for index, phrase in enumerate(phrases):
            outputs = ask(pixels, phrase)
            expected = after(
                None, outputs, threshold=0.2, mask_threshold=0.5, target_sizes=[image.shape[:2]]
            )[0]
            order = expected["scores"].argsort(descending=True, stable=True)
            mine = labelled.boxes.phrases == index
            seen += mine.sum()
            torch.testing.assert_close(
                torch.from_numpy(labelled.boxes.scores[mine]),
                expected["scores"][order],
                atol=1e-5,
                rtol=0,
            )
            height, width = image.shape[:2]
            limit = torch.tensor([width, height, width, height])
            corners = expected["boxes"][order].clamp(min=0).minimum(limit)
            np.testing.assert_allclose(labelled.boxes.xyxy[mine], corners.numpy(), atol=1e-3)
            masks = expected["masks"][order].bool().numpy()
            assert (labelled.cuts.masks[mine] != masks).mean() < 1e-3
            best = (outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid()).max()
            assert labelled.boxes.best_scores[index] == pytest.approx(best.item(), abs=1e-5)
    assert seen > 6


@installed
def test_pixels_are_those_of_the_librarys_processor_to_a_level(checkpoint):
    prepare = image_processor_class("ViTImageProcessor").from_pretrained(checkpoint)
    for image in [*IMAGES, picture(5, 300, 200), picture(6, 31, 97)]:
        own = prepare(images=[Image.fromarray(image)], return_tensors="pt")["pixel_values"]
        levels = (torch.as_tensor(own) - library_pixels(image)).abs() * 127.5
        assert levels.max() <= 1 + 1e-3
        assert (levels > 0.5).float().mean() < 0.1


@installed
def test_an_image_has_boxes_and_masks_of_its_size_best_first(found):
    for image, phrases, own in zip(IMAGES, PHRASES, found, strict=True):
        height, width = image.shape[:2]
        boxes, cuts = own.boxes, own.cuts
        assert boxes.xyxy.dtype == np.float32
        assert (boxes.xyxy >= 0).all()
        assert (boxes.xyxy <= [width, height, width, height]).all()
        assert (np.diff(boxes.scores) <= 0).all()
        assert cuts.masks.shape == (len(boxes.scores), height, width)
        np.testing.assert_array_equal(cuts.predicted_ious, boxes.scores)
        assert len(boxes.best_scores) == len(phrases)
        assert set(boxes.phrases) <= set(range(len(phrases)))
    assert len({len(own.boxes.scores) for own in found}) > 1
    shares = [mask.mean() for own in found for mask in own.cuts.masks]
    assert min(shares) < max(shares) < 1


@installed
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_neither_the_batch_nor_other_images_and_phrases_change_anything(
    checkpoint, found, batch_size
):
    others = Sam3(config(checkpoint, batch_size=batch_size)).label(IMAGES, PHRASES)
    for own, other in zip(found, others, strict=True):
        np.testing.assert_allclose(as_rows(own.boxes), as_rows(other.boxes), atol=1e-3)
        assert (own.cuts.masks != other.cuts.masks).mean() < 1e-3


@installed
def test_an_image_is_encoded_once_whatever_is_asked_of_it(checkpoint):
    labeller = Sam3(config(checkpoint, batch_size=4))
    encoded = []
    backbone = labeller._network._network.vision_encoder.backbone
    backbone.register_forward_hook(lambda _module, given, _found: encoded.append(len(given[0])))
    labeller.label(IMAGES, PHRASES)
    assert encoded == [3]


@installed
def test_detection_finds_the_boxes_of_labelling(checkpoint, found):
    labeller = build(config(checkpoint))
    assert isinstance(labeller, Labeller)
    for own, boxes in zip(found, labeller.detect(IMAGES, PHRASES), strict=True):
        np.testing.assert_array_equal(own.boxes.xyxy, boxes.xyxy)
        np.testing.assert_array_equal(own.boxes.scores, boxes.scores)
        np.testing.assert_array_equal(own.boxes.phrases, boxes.phrases)
    assert labeller.label([], []) == []


@installed
def test_what_is_not_found_has_its_best_score(checkpoint, found):
    strict = Sam3(config(checkpoint, score_threshold=0.99)).label(IMAGES, PHRASES)
    for own, strict_own in zip(found, strict, strict=True):
        assert len(strict_own.boxes.scores) == len(strict_own.cuts.masks) == 0
        np.testing.assert_array_equal(own.boxes.best_scores, strict_own.boxes.best_scores)
        assert (own.boxes.best_scores > 0.2).any()


@installed
def test_a_phrase_that_comes_twice_is_found_twice(checkpoint):
    [own] = Sam3(config(checkpoint)).detect(IMAGES[:1], [("cat", "cat")])
    first, second = (own.xyxy[own.phrases == index] for index in (0, 1))
    assert len(first) > 0
    np.testing.assert_array_equal(first, second)


@installed
def test_a_higher_mask_threshold_leaves_smaller_masks(checkpoint, found):
    strict = Sam3(config(checkpoint, mask_threshold=0.7)).label(IMAGES, PHRASES)
    for own, strict_own in zip(found, strict, strict=True):
        assert strict_own.cuts.masks.sum() < own.cuts.masks.sum()
        assert not (strict_own.cuts.masks & ~own.cuts.masks).any()


@installed
def test_what_cannot_be_asked_is_refused(checkpoint):
    labeller = Sam3(config(checkpoint))
    with pytest.raises(InputError, match="2 images came with phrases of 1"):
        labeller.label(IMAGES[:2], PHRASES[:1])
    with pytest.raises(InputError, match=r"phrase ' ' has no words"):
        labeller.detect(IMAGES[:1], [(" ",)])
    with pytest.raises(InputError, match="has 42 tokens, expected at most 32"):
        labeller.detect(IMAGES[:1], [("a" * 40,)])


@installed
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_does_not_round_boxes(any_checkpoint, dtype):
    whole = Sam3(config(any_checkpoint, score_threshold=0)).label(IMAGES, PHRASES)
    half = Sam3(config(any_checkpoint, score_threshold=0, dtype=dtype)).label(IMAGES, PHRASES)
    for own, other in zip(whole, half, strict=True):
        assert other.boxes.xyxy.dtype == np.float32
        np.testing.assert_allclose(own.boxes.best_scores, other.boxes.best_scores, atol=0.03)
        coarse = torch.from_numpy(other.boxes.xyxy).to(getattr(torch, dtype)).float().numpy()
        assert (coarse != other.boxes.xyxy).mean() > 0.5  # more digits than half precision has
        assert np.abs(own.cuts.masks.mean() - other.cuts.masks.mean()) < 0.05
    assert config(any_checkpoint, dtype=dtype).identity() != config(any_checkpoint).identity()


@installed
def test_numbers_that_are_none_are_told_and_make_no_boxes(copied):
    tensors = load_file(copied / "model.safetensors")
    tensors["dot_product_scoring.text_proj.bias"].fill_(float("nan"))
    save_file(tensors, copied / "model.safetensors", {"format": "pt"})
    for own in Sam3(config(copied)).label(IMAGES, PHRASES):
        assert not own.boxes.finite
        assert len(own.boxes.scores) == len(own.cuts.masks) == 0
    tensors["dot_product_scoring.text_proj.bias"].zero_()
    tensors["mask_decoder.instance_projection.bias"].fill_(float("inf"))
    save_file(tensors, copied / "model.safetensors", {"format": "pt"})
    labelled = Sam3(config(copied)).label(IMAGES, PHRASES)
    assert all(own.boxes.finite and not own.cuts.finite for own in labelled)


@installed
@pytest.mark.parametrize("text_names", ["text_encoder.text_model.", "text_encoder."])
def test_metas_own_layout_with_the_tracker_beside_the_detector_gives_the_same(
    copied, found, text_names, caplog
):
    """One checkpoint for pictures and videos, under the names of two releases of transformers."""
    tensors = load_file(copied / "model.safetensors")
    renamed = {
        f"detector_model.{name.replace('text_encoder.text_model.', text_names)}": tensor
        for name, tensor in tensors.items()
    }
    tracker = {"tracker_model.memory.weight": torch.ones(2), "tracker_neck.weight": torch.ones(2)}
    save_file(renamed | tracker, copied / "model.safetensors", {"format": "pt"})
    own = json.loads((copied / "config.json").read_text())
    whole = {"model_type": "sam3_video", "detector_config": own, "tracker_config": {}}
    (copied / "config.json").write_text(json.dumps(whole))
    steps = json.loads((copied / "preprocessor_config.json").read_text())
    (copied / "preprocessor_config.json").unlink()
    steps["image_processor_type"] = "Sam3ImageProcessorFast"
    (copied / "processor_config.json").write_text(json.dumps({"image_processor": steps}))
    assert str(copied) in config(copied).check()
    labelled = Sam3(config(copied)).label(IMAGES, PHRASES)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    for mine, other in zip(found, labelled, strict=True):
        np.testing.assert_array_equal(mine.boxes.xyxy, other.boxes.xyxy)
        np.testing.assert_array_equal(mine.cuts.masks, other.cuts.masks)


@installed
def test_a_checkpoint_that_lacks_a_tensor_is_refused(copied):
    tensors = load_file(copied / "model.safetensors")
    del tensors["detr_decoder.presence_token.weight"]
    save_file(tensors, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 parameters .*detr_decoder\.presence_token"):
        Sam3(config(copied))


@installed
@pytest.mark.parametrize("name", ["vocab.json", "preprocessor_config.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused_before_a_run(copied, name):
    for each in {name, "tokenizer.json"} if name == "vocab.json" else {name}:
        (copied / each).unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        config(copied).check()
    with pytest.raises(InputError, match="cannot be loaded"):
        Sam3(config(copied))


def folder_of(kind, place):
    (place / "config.json").write_text(json.dumps({"model_type": kind}))
    (place / "model.safetensors").write_bytes(b"\0")
    (place / "preprocessor_config.json").write_text("{}")
    (place / "tokenizer.json").write_text("{}")
    return config(place)


def test_a_folder_of_another_architecture_is_refused(tmp_path):
    wrong = folder_of("sam2", tmp_path)
    expected = "of type 'sam2', expected 'sam3' or 'sam3_video' or 'sam3_lite_text'"
    for asked in (wrong.check, lambda: Sam3(wrong)):
        with pytest.raises(InputError, match=expected):
            asked()


@pytest.mark.parametrize(
    ("kind", "release", "needed"),
    [
        ("sam3", "4.57.1", "5.0"),
        ("sam3_video", "4.57.1", "5.0"),
        ("sam3_lite_text", "5.5.3", "5.6"),
    ],
)
def test_an_older_transformers_is_refused_with_the_release_that_has_it(
    tmp_path, monkeypatch, kind, release, needed
):
    monkeypatch.setattr(importlib.metadata, "version", lambda _package: release)
    old = folder_of(kind, tmp_path)
    expected = rf"transformers {release} has no Sam3\w*Model, .*expected transformers {needed} or"
    for asked in (old.check, lambda: Sam3(old)):
        with pytest.raises(InputError, match=expected):
            asked()
    monkeypatch.setattr(importlib.metadata, "version", lambda _package: f"{needed}.0rc1")
    assert str(tmp_path) in old.check()
