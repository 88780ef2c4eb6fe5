"""The miniature Grounding DINO: what it is asked, and what it should answer."""

import random
from dataclasses import replace

import torch
from PIL import Image
from transformers import GroundingDinoProcessor

from models.miniature.detector import network
from models.miniature.detector.prompts import ask, prompt
from models.miniature.detector.targets import Truth, match, share
from models.miniature.world import CLASSES


def test_the_detector_is_asked_in_the_words_of_its_processor(tmp_path):
    network.processor().save_pretrained(tmp_path)
    loaded = GroundingDinoProcessor.from_pretrained(tmp_path)
    text = prompt(range(len(CLASSES)))
    ids = loaded(images=Image.new("RGB", (64, 64)), text=text)["input_ids"]
    vocabulary = network.token_ids()
    expected = [101, *(i for name in CLASSES for i in (vocabulary[name], 1012)), 102]
    assert ids == expected
    assert text == "balloon. bus. cat. mushroom. fish. star. umbrella. " + (
        "house. boat. tree. apple. cactus. cup. rocket."
    )


def test_prompts_ask_for_absent_classes_too():
    rng = random.Random(0)  # noqa: S311
    class_ids = torch.tensor([[3, 5], [7, -1], [-1, -1]])
    asked = [ask(class_ids, rng) for _ in range(40)]
    absent = [p.asked[2][p.asked[2] >= 0].numel() for p in asked]
    assert max(absent) > 8
    assert min(absent) == 0
    assert all((p.ids[:, 0] == 101).all() for p in asked)


def test_every_wanted_object_gets_the_closest_prediction():
    boxes = torch.tensor([[[0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.3, 0.3]]])
    tokens = torch.zeros(1, 2, 48, dtype=torch.bool)
    tokens[0, 0, 1] = tokens[0, 1, 3] = True
    truth = Truth(boxes, torch.tensor([[True, True]]), tokens, torch.ones(1, 6, dtype=torch.bool))
    logits = torch.full((1, 3, 48), -2.0)
    predicted = torch.tensor([[[0.7, 0.7, 0.3, 0.3], [0.5, 0.5, 1.0, 1.0], [0.26, 0.25, 0.2, 0.2]]])
    assert match(truth, logits, predicted).tolist() == [[1, -1, 0]]
    logits[0, 1, 1] = 5.0
    nearly = replace(truth, wanted=torch.tensor([[False, True]]))
    assert match(nearly, logits, predicted).tolist() == [[1, -1, -1]]


def test_boxes_that_fit_an_object_well_may_share_it():
    tokens = torch.zeros(1, 2, 48, dtype=torch.bool)
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]]])
    truth = Truth(boxes, torch.tensor([[True, False]]), tokens, tokens[:, 0])
    sides = [(0.4, 0.4), (0.4, 0.36), (0.4, 0.25), (0.4, 0.1)]
    predicted = torch.tensor([[(0.5, 0.5, *side) for side in sides] + [(0.2, 0.2, 0.1, 0.1)]])
    thing_of = torch.tensor([[-1, -1, -1, 0, -1]])
    things, ignored = share(truth, predicted, thing_of)
    assert things.tolist() == [[0, 0, -1, 0, -1]]
    assert ignored.tolist() == [[False, False, True, False, False]]
