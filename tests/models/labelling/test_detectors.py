"""What Grounding DINO on a folder of the hub's layout must do; the folder has random weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from models.labelling.boxes import suppress
from models.labelling.config import DetectorConfig
from models.labelling.detectors import GroundingDino
from storage.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(build_detector, tmp_path_factory):
    return build_detector(tmp_path_factory.mktemp("detector"))


def config(model, **changes):
    loose = {"box_threshold": 0.0, "text_threshold": 0.0, "nms_iou": 1.0, "batch_size": 2}
    return DetectorConfig(model=model, device="cpu", **(loose | changes))


def picture(seed, height, width):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


IMAGES = [picture(0, 64, 64), picture(1, 64, 64), picture(2, 40, 80), picture(3, 64, 64)]
PHRASES = [("bus",), ("mushroom", "school bus", "tree"), ("cat", "fish"), ("a b c", "cat")]


@pytest.fixture(scope="module")
def found(checkpoint):
    return GroundingDino(config(checkpoint)).detect(IMAGES, PHRASES)


def raw_scores(checkpoint, image, text, spans):
    """Scores and corners by the plain processor and network, for token spans written by hand."""
    processor = GroundingDinoProcessor.from_pretrained(checkpoint)
    model = GroundingDinoForObjectDetection.from_pretrained(checkpoint).eval()
    inputs = processor(images=Image.fromarray(image), text=text, return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    scores = outputs.logits[0].sigmoid()
    tokens = [scores[:, first:last].numpy() for first, last in spans]
    centre, extent = outputs.pred_boxes[0, :, :2], outputs.pred_boxes[0, :, 2:]
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1).clamp(0, 1).numpy()
    height, width = image.shape[:2]
    boxes = boxes * np.array([width, height, width, height])
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # a box beyond the border has no area
    return [own[inside] for own in tokens], boxes[inside]


def as_rows(boxes, scores, phrases):
    rows = np.column_stack([scores, phrases, boxes])
    return rows[np.lexsort(rows.T[::-1])]


def test_boxes_are_corners_in_the_image_best_first(found):
    for image, own, result in zip(IMAGES, PHRASES, found, strict=True):
        height, width = image.shape[:2]
        assert result.xyxy.shape == (len(result.scores), 4)
        assert len(result.scores) > 0
        assert (result.xyxy >= 0).all()
        assert (result.xyxy <= [width, height, width, height]).all()
        assert (result.xyxy[:, 2:] > result.xyxy[:, :2]).all()
        assert (np.diff(result.scores) <= 0).all()
        assert set(result.phrases) <= set(range(len(own)))
        assert result.best_scores.shape == (len(own),)


def test_a_query_goes_to_its_best_phrase_by_the_mean_over_its_tokens(checkpoint, found):
    # [CLS] mush ##room . school bus . tree . [SEP]
    spans = [(1, 3), (4, 6), (7, 8)]
    text = "mushroom. school bus. tree."
    tokens, boxes = raw_scores(checkpoint, IMAGES[1], text, spans)
    scores = np.stack([own.mean(axis=1) for own in tokens], axis=1)
    expected = as_rows(boxes, scores.max(axis=1), scores.argmax(axis=1))
    got = as_rows(found[1].xyxy, found[1].scores, found[1].phrases)
    np.testing.assert_allclose(got, expected, atol=1e-3)
    assert (found[1].best_scores >= scores.max(axis=0) - 1e-5).all()


def test_the_best_token_can_stand_for_a_phrase(checkpoint):
    tokens, _ = raw_scores(checkpoint, IMAGES[0], "school bus.", [(1, 3)])
    detector = GroundingDino(config(checkpoint, phrase_score="max"))
    result = detector.detect(IMAGES[:1], [("school bus",)])[0]
    np.testing.assert_allclose(np.sort(result.scores), np.sort(tokens[0].max(axis=1)), atol=1e-5)
    assert np.abs(tokens[0].max(axis=1) - tokens[0].mean(axis=1)).max() > 0.1


def test_both_thresholds_hold(checkpoint):
    tokens, boxes = raw_scores(checkpoint, IMAGES[0], "school bus.", [(1, 3)])
    best, mean = tokens[0].max(axis=1), tokens[0].mean(axis=1)
    for changes, passing in (
        ({"box_threshold": float(np.median(best))}, best > np.median(best)),
        ({"text_threshold": float(np.median(mean))}, mean > np.median(mean)),
    ):
        result = GroundingDino(config(checkpoint, **changes)).detect(IMAGES[:1], [("school bus",)])
        expected = as_rows(boxes[passing], mean[passing], np.zeros(passing.sum()))
        got = as_rows(result[0].xyxy, result[0].scores, result[0].phrases)
        np.testing.assert_allclose(got, expected, atol=1e-3)
        assert 0 < passing.sum() < len(passing)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_captions_of_other_images_in_the_batch_change_nothing(checkpoint, found, batch_size):
    others = GroundingDino(config(checkpoint, batch_size=batch_size)).detect(IMAGES, PHRASES)
    for result, other in zip(found, others, strict=True):
        np.testing.assert_allclose(
            as_rows(result.xyxy, result.scores, result.phrases),
            as_rows(other.xyxy, other.scores, other.phrases),
            atol=1e-3,
        )


def test_phrases_that_do_not_fit_into_one_caption_are_spread_over_several(checkpoint):
    phrases = ("a b c a b c", "school bus", "mushroom", "a b c b c", "cat", "a c a c a c", "fish")
    result = GroundingDino(config(checkpoint)).detect([IMAGES[0]], [phrases])[0]
    assert 16 < len(result.scores) <= 2 * 16  # every query of two passes has a best phrase
    assert (result.best_scores > 0).all()
    alone = GroundingDino(config(checkpoint)).detect([IMAGES[0]], [phrases[:5]])[0]
    np.testing.assert_allclose(result.best_scores[:5], alone.best_scores, atol=1e-5)


def test_a_phrase_longer_than_the_network_reads_is_refused(checkpoint):
    with pytest.raises(InputError, match="has 31 tokens, expected at most 22"):
        GroundingDino(config(checkpoint)).detect([IMAGES[0]], [("a b c " * 10,)])


def test_an_image_without_phrases_has_no_boxes(checkpoint, found):
    results = GroundingDino(config(checkpoint)).detect(IMAGES[:2], [(), PHRASES[1]])
    assert results[0].xyxy.shape == (0, 4)
    assert len(results[0].scores) == len(results[0].phrases) == len(results[0].best_scores) == 0
    np.testing.assert_allclose(results[1].scores, found[1].scores, atol=1e-5)


def test_case_and_full_stops_do_not_matter(checkpoint, found):
    results = GroundingDino(config(checkpoint)).detect(IMAGES[:1], [(" Bus. ",)])
    np.testing.assert_allclose(results[0].scores, found[0].scores, atol=1e-5)


@pytest.mark.parametrize("phrase", ["", " . "])
def test_an_empty_phrase_is_refused(checkpoint, phrase):
    with pytest.raises(InputError, match="has no words"):
        GroundingDino(config(checkpoint)).detect(IMAGES[:1], [("bus", phrase)])


def test_lists_of_other_lengths_are_refused(checkpoint):
    with pytest.raises(InputError, match="2 images came with phrases of 1"):
        GroundingDino(config(checkpoint)).detect(IMAGES[:2], [("bus",)])


def test_suppression_leaves_one_box_of_two_that_overlap_too_much(checkpoint):
    result = GroundingDino(config(checkpoint, nms_iou=0.1)).detect(IMAGES[:1], [("bus",)])[0]
    free = GroundingDino(config(checkpoint)).detect(IMAGES[:1], [("bus",)])[0]
    assert 0 < len(result.scores) < len(free.scores)
    assert result.scores[0] == free.scores[0]


def test_suppression_keeps_the_better_box_and_boxes_at_the_limit():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 9], [20, 20, 30, 30]], np.float32)
    scores = np.array([0.5, 0.9, 0.8, 0.1], np.float32)
    assert suppress(boxes, scores, 0.5) == [1, 0, 3]
    assert suppress(boxes, scores, 0.49) == [1, 3]
    assert suppress(boxes, scores, 0.95) == [1, 2, 0, 3]
    assert suppress(boxes[:0], scores[:0], 0.5) == []


def test_a_phrase_that_is_asked_for_twice_gets_every_box_twice(checkpoint, found):
    result = GroundingDino(config(checkpoint)).detect(IMAGES[:1], [("bus", "cat", "Bus.")])[0]
    first, second = (np.flatnonzero(result.phrases == index) for index in (0, 2))
    assert len(first) == len(second) > 0
    np.testing.assert_array_equal(result.xyxy[first], result.xyxy[second])
    assert result.best_scores[0] == result.best_scores[2] > 0


def test_phrases_do_not_suppress_each_other(checkpoint):
    """Two names of one thing keep a box each: the masks decide, not the detector."""
    detector = GroundingDino(config(checkpoint, nms_iou=0.0001))
    result = detector.detect(IMAGES[3:], [("a b c", "cat")])[0]
    alone = [detector.detect(IMAGES[3:], [(phrase,)])[0] for phrase in ("a b c", "cat")]
    assert len(result.scores) >= len(set(result.phrases)) == 2
    assert all(len(own.scores) for own in alone)


MANY = ("a b c a b c", "school bus", "mushroom", "a b c b c", "cat", "a c a c a c", "fish", "bus")


class Counted:
    """How many images go through a detector's image tower."""

    def __init__(self, detector):
        self.images = []
        tower = detector._backend._network.model.backbone.conv_encoder
        tower.register_forward_hook(lambda _tower, given, _made: self.images.append(len(given[0])))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_an_image_is_looked_at_once_for_all_of_its_captions(checkpoint, batch_size):
    detector = GroundingDino(config(checkpoint, batch_size=batch_size))
    counted = Counted(detector)
    detector.detect(IMAGES, [MANY, ("bus",), MANY, MANY])
    assert sum(counted.images) == len(IMAGES)
    assert max(counted.images) <= batch_size
    counted.images.clear()
    detector.detect(IMAGES[:2], [(), ()])
    assert counted.images == []


def test_captions_say_what_they_say_with_an_image_of_their_own(checkpoint):
    detector = GroundingDino(config(checkpoint))
    backend = detector._backend
    captions = [*detector._captions.of(0, MANY), *detector._captions.of(1, ("bus",))]
    assert len(captions) == 3
    rows = [caption.image for caption in captions]
    seen = backend.encode(IMAGES[:2])
    shared = backend.score([seen[row] for row in rows], captions)
    alone = backend.score(backend.encode([IMAGES[row] for row in rows]), captions)
    for one, other in zip(shared, alone, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_a_batch_says_to_the_bit_what_the_library_says_of_it(checkpoint):
    detector = GroundingDino(config(checkpoint))
    captions = [next(detector._captions.of(row, PHRASES[row])) for row in (0, 1)]
    processor = GroundingDinoProcessor.from_pretrained(checkpoint)
    inputs = processor(
        images=[Image.fromarray(image) for image in IMAGES[:2]],
        text=[caption.text for caption in captions],
        padding=True,
        return_tensors="pt",
    )
    model = GroundingDinoForObjectDetection.from_pretrained(checkpoint).eval()
    with torch.inference_mode():
        outputs = model(**inputs)
    found = detector._backend.score(detector._backend.encode(IMAGES[:2]), captions)
    for row, own in enumerate(found):
        np.testing.assert_array_equal(own.scores, outputs.logits[row].sigmoid().numpy())
        np.testing.assert_array_equal(own.boxes, outputs.pred_boxes[row].numpy())


def test_a_folder_of_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "owlvit"}))
    with pytest.raises(InputError, match="of type 'owlvit', expected 'grounding-dino'"):
        GroundingDino(config(str(tmp_path)))
