"""Grounding DINO of the package's own width beside that of transformers, with random weights."""

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("groundingdino", reason="the extra 'original' has an environment of its own")

from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    SwinConfig,
)

from models.labelling.config import DetectorConfig
from models.labelling.detectors import GroundingDino
from models.labelling.original.config import OriginalDetectorConfig
from models.labelling.original.detector import OriginalGroundingDino
from models.processors import image_processor_class, load_whole_tokenizer
from models.weights import resolve_weights
from original_folders import save_detector
from original_parity import captions_of, scores_of, worst
from storage.errors import InputError

LOOSE = {"box_threshold": 0.0, "text_threshold": 0.0, "nms_iou": 1.0, "device": "cpu"}
NOISE = np.random.default_rng(3)
PICTURES = [
    np.asarray(
        Image.fromarray(NOISE.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
    )
    for size in ((128, 128), (90, 140), (300, 210), (64, 64))
]
ASKED = [("bus",), ("cat", "fish", "umbrella"), ("tree", "house"), ("cup", "apple")]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Random weights of the package's own width in both forms; nothing in it is replaced."""
    torch.manual_seed(0)
    tokenizer = load_whole_tokenizer(resolve_weights("weights:detector"), "BertTokenizer")
    swin = SwinConfig(
        image_size=224,
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = BertConfig(
        vocab_size=1030,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=text,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        num_queries=40,
    )
    network = GroundingDinoForObjectDetection(config).eval()
    for name, parameter in network.named_parameters():
        if "bbox_embed" in name:  # a fresh head gives every query the size of its proposal
            parameter.data = torch.randn_like(parameter) * 0.05
        if name == "model.decoder.layer_norm.weight":  # fresh scores are 0 or 1
            parameter.data *= 0.2
    hub, original = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("original")
    sizes = {"shortest_edge": 128, "longest_edge": 200}
    images = image_processor_class("GroundingDinoImageProcessor")(size=sizes)
    GroundingDinoProcessor(images, tokenizer).save_pretrained(hub)
    network.save_pretrained(hub)
    save_detector(network, tokenizer, original)
    sides = {"architecture": "own", "short_side": 128, "long_side": 200}
    return (
        GroundingDino(DetectorConfig(model=str(hub), **LOOSE)),
        OriginalGroundingDino(OriginalDetectorConfig(model=str(original), **sides, **LOOSE)),
    )


def test_random_weights_of_full_width_score_the_same(wide):
    for image, own in zip(PICTURES, ASKED, strict=True):
        found = [scores_of(detector, [image], [own]) for detector in wide]
        scores, boxes = worst(*found, captions_of(wide[0], [own]))
        assert scores <= 1e-5
        assert boxes <= 1e-5


def test_random_weights_of_full_width_keep_the_same_boxes(wide):
    ours, original = (detector.detect(PICTURES, ASKED) for detector in wide)
    for one, other, image in zip(ours, original, PICTURES, strict=True):
        assert len(one.scores) >= 40
        np.testing.assert_array_equal(one.phrases, other.phrases)
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=1e-5 * max(image.shape))


def test_a_long_picture_is_resized_as_the_package_does(wide):
    """One pixel longer than what transformers makes of it, where the long side is the limit."""
    released = {"short_side": 800, "long_side": 1333}
    detector = OriginalGroundingDino(wide[1].config.model_copy(update=released))
    assert detector._backend._pixels(Image.new("RGB", (1024, 300))).shape == (3, 391, 1334)
    assert detector._backend._pixels(Image.new("RGB", (512, 512))).shape == (3, 800, 800)


def test_a_picture_with_too_few_places_for_the_queries_is_refused(wide):
    detector = OriginalGroundingDino(wide[1].config.model_copy(update={"short_side": 32}))
    with pytest.raises(InputError, match="32 x 32 pixels has 22 places for 40 queries"):
        detector.detect(PICTURES[:1], ASKED[:1])
