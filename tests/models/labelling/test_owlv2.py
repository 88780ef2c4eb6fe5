"""What OWLv2 on a folder of the hub's layout must do; the folder has random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizerFast, Owlv2ForObjectDetection, Owlv2Processor

from models.labelling.config import Owlv2Config
from models.processors import image_processor_class
from models.registry import build
from storage.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(build_owlv2, tmp_path_factory):
    return build_owlv2(tmp_path_factory.mktemp("owlv2"))


def detector(model, **changes):
    loose = {"threshold": 0.0, "nms_iou": 1.0, "batch_size": 2, "text": "{}"}
    return build(Owlv2Config(model=model, device="cpu", **(loose | changes)))


def picture(seed, height, width):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


IMAGES = [picture(0, 64, 64), picture(1, 48, 80), picture(2, 100, 40)]
PHRASES = [("a b",), ("c", "b c", "a"), ("b", "d e f")]


@pytest.fixture(scope="module")
def found(checkpoint):
    return detector(checkpoint).detect(IMAGES, PHRASES)


def as_rows(boxes, scores, phrases):
    rows = np.column_stack([scores, phrases, boxes])
    return rows[np.lexsort(rows.T[::-1])]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_it_says_what_the_librarys_own_pipeline_says(checkpoint, found, index):
    images = image_processor_class("Owlv2ImageProcessor").from_pretrained(checkpoint)
    processor = Owlv2Processor(images, CLIPTokenizerFast.from_pretrained(checkpoint))
    model = Owlv2ForObjectDetection.from_pretrained(checkpoint).eval()
    image = Image.fromarray(IMAGES[index])
    inputs = processor(
        text=[list(PHRASES[index])],
        images=image,
        return_tensors="pt",
        padding="max_length",
        max_length=12,
    )
    with torch.inference_mode():
        outputs = model(**inputs)
    sizes = [(image.height, image.width)]
    [own] = images.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
    boxes = own["boxes"].numpy().clip(0, [image.width, image.height] * 2)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # what lies in the padding has no area
    assert inside.sum() > 0
    expected = as_rows(boxes[inside], own["scores"][inside], own["labels"][inside])
    got = as_rows(found[index].xyxy, found[index].scores, found[index].phrases)
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_boxes_of_what_lies_in_the_padding_are_none(found):
    for image, own in zip(IMAGES, found, strict=True):
        height, width = image.shape[:2]
        assert (own.xyxy[:, 2:] > own.xyxy[:, :2]).all()
        assert (own.xyxy <= [width, height] * 2).all()
    assert len(found[0].scores) > len(found[1].scores)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_other_images_with_more_phrases_in_the_batch_change_nothing(checkpoint, found, batch_size):
    for one, other in zip(
        found, detector(checkpoint, batch_size=batch_size).detect(IMAGES, PHRASES), strict=True
    ):
        np.testing.assert_allclose(
            as_rows(one.xyxy, one.scores, one.phrases),
            as_rows(other.xyxy, other.scores, other.phrases),
            atol=1e-3,
        )
        np.testing.assert_allclose(one.best_scores, other.best_scores, atol=1e-5)


def test_the_threshold_and_suppression_hold(checkpoint, found):
    middle = float(np.median(found[1].scores))
    strict = detector(checkpoint, threshold=middle).detect(IMAGES[1:2], PHRASES[1:2])[0]
    assert len(strict.scores) == (found[1].scores > middle).sum()
    np.testing.assert_allclose(strict.best_scores, found[1].best_scores, atol=1e-5)
    apart = detector(checkpoint, nms_iou=0.01).detect(IMAGES[1:2], PHRASES[1:2])[0]
    assert 0 < len(apart.scores) < len(found[1].scores)


def test_an_image_without_phrases_has_no_boxes_and_twins_have_the_same(checkpoint, found):
    none, twins = detector(checkpoint).detect(IMAGES[1:], [(), ("b", "d e f", "B.")])
    assert none.xyxy.shape == (0, 4)
    assert len(none.best_scores) == 0
    first, last = (np.flatnonzero(twins.phrases == index) for index in (0, 2))
    np.testing.assert_array_equal(twins.xyxy[first], twins.xyxy[last])
    np.testing.assert_allclose(twins.best_scores[:2], found[2].best_scores, atol=1e-5)


def test_a_phrase_is_asked_for_in_the_text_that_is_set(checkpoint):
    plain = detector(checkpoint).detect(IMAGES[:1], [("a a b",)])[0]
    framed = detector(checkpoint, text="a {}").detect(IMAGES[:1], [("a b",)])[0]
    np.testing.assert_allclose(plain.scores, framed.scores, atol=1e-6)
    assert Owlv2Config(model=checkpoint, text="{}").identity()["text"] == "{}"
    with pytest.raises(ValidationError, match="pattern"):
        Owlv2Config(model=checkpoint, text="a photo")


def test_phrases_that_cannot_be_asked_for_are_refused(checkpoint):
    with pytest.raises(InputError, match=r"has 16 tokens, expected at most 12: set `text`"):
        detector(checkpoint, text="a a {}").detect(IMAGES[:1], [("a b " * 6,)])
    with pytest.raises(InputError, match="has no words"):
        detector(checkpoint).detect(IMAGES[:1], [(" . ",)])
    with pytest.raises(InputError, match="2 images came with phrases of 1"):
        detector(checkpoint).detect(IMAGES[:2], [("a",)])


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_does_not_round_boxes(checkpoint, found, kind):
    half = detector(checkpoint, dtype=kind).detect(IMAGES[:1], PHRASES[:1])[0]
    places = torch.from_numpy(half.xyxy) / 64
    rounded = places.to(getattr(torch, kind)).float()
    inside = (places > 0) & (places < 1)
    assert (places != rounded)[inside].float().mean() > 0.5
    np.testing.assert_allclose(half.best_scores, found[0].best_scores, atol=0.02)


def test_a_folder_of_another_architecture_or_without_a_tensor_is_refused(checkpoint, tmp_path):
    for file in Path(checkpoint).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["box_head.dense0.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 parameters .*box_head\.dense0\.weight"):
        detector(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "owlvit"}))
    with pytest.raises(InputError, match="of type 'owlvit', expected 'owlv2'"):
        detector(str(tmp_path))
