"""Grounding DINO of the package's own width beside that of transformers, with random weights."""

import json
import os
import shutil

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
from original_folders import TEXT, save_detector
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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hidden_dim = 64", "hidden_dim is 64, expected 256: the package fixes it"),
        ("nheads = '8'", "say nheads is '8', expected something like 8"),
        ("backbone = 'resnet50'", "say backbone is 'resnet50', expected something like 'swin_T"),
        ("backbone = 'swin_X'", "cannot be loaded"),
        ("enc_layers = 10**9", "expected lines of `name = value`"),
        ("enc_layers = 1000000000", "says 'enc_layers' is 1000000000, expected at most 1000"),
        ("enc_layers = 2", r"lacks \d+ tensors of the network, 'transformer\.encoder\."),
        ("num_queries = 41", r"of shape \(40, 256\), expected \(41, 256\)"),
        ("del_me = 1; import os", "expected lines of `name = value`"),
    ],
)
def test_settings_that_are_not_of_the_checkpoint_are_refused(wide, tmp_path, line, message):
    folder = tmp_path / "folder"
    shutil.copytree(wide[1].config.model, folder, copy_function=os.link)
    text = (folder / "settings.py").read_text()
    (folder / "settings.py").unlink()
    (folder / "settings.py").write_text(f"{text}\n{line}\n")
    with pytest.raises(InputError, match=message):
        OriginalGroundingDino(wide[1].config.model_copy(update={"model": str(folder)}))


def test_settings_that_lack_one_are_refused(wide, tmp_path):
    shutil.copytree(wide[1].config.model, tmp_path / "folder")
    file = tmp_path / "folder" / "settings.py"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if not line.startswith("pre_norm")))
    config = wide[1].config.model_copy(update={"model": str(tmp_path / "folder")})
    with pytest.raises(InputError, match="say pre_norm is 'missing', expected something"):
        OriginalGroundingDino(config)


def test_a_text_encoder_that_has_fewer_words_than_its_vocabulary_is_refused(wide, tmp_path):
    shutil.copytree(wide[1].config.model, tmp_path / "folder")
    file = tmp_path / "folder" / TEXT / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 1000}))
    config = wide[1].config.model_copy(update={"model": str(tmp_path / "folder")})
    with pytest.raises(InputError, match="have 1000 words, but their tokenizer has"):
        OriginalGroundingDino(config)
