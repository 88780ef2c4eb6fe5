"""Values that are no numbers are never data: they are a reason, and it says what to do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fakes import FakeDetector, FakePainter, FakeSegmenter
from models.labelling.config import DetectorConfig, SegmenterConfig
from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.profiles import load_profile
from models.protocols import PairRequest
from models.registry import Role
from models.student.text_embeddings import embed_phrases
from models.weights import resolve_weights
from storage.errors import InputError
from storage.records import Box, Detection, Mention, Prompt, Reason, Stage
from storage.vocabulary import load_vocabulary
from tasks.detections import detect_objects
from tasks.masks import cut_masks
from tasks.pairs import PaintedSample, paint_pairs
from tasks.rules import DetectionRules, MaskRules, PairRules

VOCABULARY = load_vocabulary("miniature")
BUS = VOCABULARY.by_name("bus").class_id
NOT_NUMBERS = [float("nan"), float("inf"), float("-inf")]
WHITE = np.full((64, 64, 3), 200, np.uint8)


def spoilt(tmp_path, role, file, edit):
    """The shipped model with some of its weights changed."""
    whole = Path(resolve_weights(load_profile("miniature").models()[Role(role)].model).source)
    for each in whole.rglob("*"):
        if each.is_file():
            target = tmp_path / role / each.relative_to(whole)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(each.read_bytes())
    state = {name: tensor.clone() for name, tensor in load_file(tmp_path / role / file).items()}
    edit(state)
    save_file(state, tmp_path / role / file, {"format": "pt"})
    return str(tmp_path / role)


def painted(model, **changes):
    small = {"steps": 1, "height": 16, "width": 16, "batch_size": 2, "device": "cpu"}
    painter = DiffusionPairPainter(PainterConfig(model=model, **(small | changes)))
    prompts = [
        Prompt(
            key=f"{number:016x}",
            text=text,
            counterfactual_text="a nothing",
            mentions=(Mention(class_id=BUS, start=2, end=5),),
            writer="w",
        )
        for number, text in enumerate(["a bus", "a bus at night"])
    ]
    return paint_pairs(prompts, {p.key: 1 for p in prompts}, painter, PairRules(min_deviation=0))


def assert_told(results, stage, role):
    for result in results:
        assert (result.stage, result.reason) == (stage, Reason.NOT_FINITE)
        assert f"the {role}'s" in result.detail
        assert "dtype to float32 or bfloat16" in result.detail


VAE = "vae/diffusion_pytorch_model.safetensors"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize(
    ("file", "name"),
    [
        (VAE, "decoder.conv_in.bias"),
        (VAE, "decoder.conv_out.bias"),
        (UNET, "conv_out.bias"),
        (TEXT, "final_layer_norm.bias"),
    ],
)
def test_a_picture_that_is_no_number_anywhere_is_dropped_for_that(tmp_path, file, name, value):
    def edit(state):
        state[name][0] = value

    results = painted(spoilt(tmp_path, "painter", file, edit))
    assert_told(results, Stage.PAIRS, Role.PAINTER)


def test_a_picture_beside_one_that_is_no_number_keeps_every_bit():
    config = load_profile("miniature").painter.model_copy(
        update={"device": "cpu", "batch_size": 2, "steps": 2}
    )
    painter = DiffusionPairPainter(config)
    requests = [PairRequest("a bus", "a nothing", 1), PairRequest("a cat", "a nothing", 2)]
    whole = painter.paint(requests)
    assert all(pair.finite for pair in whole)

    def overflow(_module, inputs):
        latents = inputs[0].clone()
        latents[1] = torch.inf  # the second pair's positive
        return (latents, *inputs[1:])

    handle = painter.loaded.pipeline.vae.decoder.register_forward_pre_hook(overflow)
    found = painter.paint(requests)
    handle.remove()
    assert [pair.finite for pair in found] == [True, False]
    np.testing.assert_array_equal(found[0].image, whole[0].image)
    np.testing.assert_array_equal(found[1].counterfactual, whole[1].counterfactual)
    again = painter.paint(requests)
    assert all(pair.finite for pair in again)
    np.testing.assert_array_equal(again[1].image, whole[1].image)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.text_projection.bias", float("nan")),
        ("model.text_projection.bias", float("inf")),
        ("bbox_embed.0.layers.2.bias", float("nan")),
    ],
)
def test_boxes_that_are_no_numbers_are_a_reason(tmp_path, name, value):
    def edit(state):
        for each in state:
            if each.endswith(name):
                state[each][:] = value

    model = spoilt(tmp_path, "detector", "model.safetensors", edit)
    detector = GroundingDino(DetectorConfig(model=model, device="cpu"))
    pair = PaintedSample("a", WHITE, WHITE)
    results = detect_objects([pair], {"a": (BUS,)}, VOCABULARY, detector, DetectionRules())
    assert_told(results, Stage.DETECTIONS, Role.DETECTOR)


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize(
    "name",
    ["mask_decoder.iou_prediction_head.proj_out.bias", "mask_decoder.upscale_conv2.bias"],
)
def test_masks_that_are_no_numbers_are_a_reason(tmp_path, name, value):
    def edit(state):
        state[name][:] = value

    model = spoilt(tmp_path, "segmenter", "model.safetensors", edit)
    segmenter = Sam(SegmenterConfig(model=model, device="cpu"))
    box = Box(class_id=BUS, score=0.5, xyxy=(2.0, 2.0, 40.0, 40.0))
    detection = Detection(key="a", boxes=(box,), counterfactual_boxes=())
    pair = PaintedSample("a", WHITE, WHITE)
    results = cut_masks([pair], [detection], segmenter, MaskRules())
    assert_told(results, Stage.MASKS, Role.SEGMENTER)


class Scripted:
    """Another kind of model, which says nothing of numbers and gives some that are none."""

    def __init__(self, inner, change, *, only=None):
        self._inner, self._change, self._only = inner, change, only
        self._calls = 0

    def detect(self, images, phrases):
        self._calls += 1
        found = self._inner.detect(images, phrases)
        if self._only not in {None, self._calls}:
            return found
        return [replace(each, **self._change(each)) for each in found]

    def segment(self, images, boxes):
        found = self._inner.segment(images, boxes)
        return [replace(each, **self._change(each)) for each in found]


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize("field", ["xyxy", "scores", "best_scores"])
def test_any_detectors_values_are_asked_for(field, value):
    pair = FakePainter(VOCABULARY).paint([PairRequest("a bus", "a nothing", 1)])[0]
    sample = PaintedSample("a", pair.image, pair.counterfactual)
    detector = Scripted(
        FakeDetector(), lambda found: {field: np.full_like(getattr(found, field), value)}
    )
    results = detect_objects([sample], {"a": (BUS,)}, VOCABULARY, detector, DetectionRules())
    assert_told(results, Stage.DETECTIONS, Role.DETECTOR)


def test_the_counterfactuals_values_are_asked_for_too():
    pair = FakePainter(VOCABULARY).paint([PairRequest("a bus", "a nothing", 1)])[0]
    sample = PaintedSample("a", pair.image, pair.counterfactual)
    detector = Scripted(FakeDetector(), lambda _: {"finite": False}, only=2)
    results = detect_objects([sample], {"a": (BUS,)}, VOCABULARY, detector, DetectionRules())
    assert_told(results, Stage.DETECTIONS, Role.DETECTOR)


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_any_segmenters_values_are_asked_for(value):
    pair = FakePainter(VOCABULARY).paint([PairRequest("a bus", "a nothing", 1)])[0]
    sample = PaintedSample("a", pair.image, pair.counterfactual)
    found = detect_objects([sample], {"a": (BUS,)}, VOCABULARY, FakeDetector(), DetectionRules())
    segmenter = Scripted(
        FakeSegmenter(),
        lambda cut: {"predicted_ious": np.full_like(cut.predicted_ious, value)},
    )
    assert_told(cut_masks([sample], found, segmenter, MaskRules()), Stage.MASKS, Role.SEGMENTER)


@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_text_vectors_that_are_no_numbers_are_an_error(value):
    def embed(texts):
        return torch.full((len(texts), 4), value)

    with pytest.raises(InputError, match="text vectors of the student's CLIP are not finite"):
        embed_phrases(embed, [("cat",)], "single")
