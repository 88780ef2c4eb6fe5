"""The fakes must behave like the models that they stand for."""

import numpy as np
import pytest

from fakes import FakeDetector, FakePainter, FakeSegmenter, FakeWriter
from models.protocols import PairRequest, TextRequest
from models.writing.mentions import counterfactual_text, find_mentions
from storage.codecs import decode_image, encode_image
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("miniature")
CLASSES = (VOCABULARY[0], VOCABULARY[1])
PHRASES = tuple(record.detector_phrase for record in CLASSES)


@pytest.fixture
def request_pair():
    text = FakeWriter().write([TextRequest(CLASSES, 1, seed=3)])[0].texts[0]
    other = counterfactual_text(text, find_mentions(text, CLASSES))
    return PairRequest(text, other, seed=5)


def test_the_writer_names_every_class_in_as_many_different_texts_as_asked_for():
    first = FakeWriter().write([TextRequest(CLASSES, 20, seed=3)])[0].texts
    assert len(set(first)) == 20
    for text in first:
        assert {mention.class_id for mention in find_mentions(text, CLASSES)} == {0, 1}
    again = FakeWriter().write([TextRequest(CLASSES, 20, seed=3, round=1, avoid=first)])[0].texts
    assert not set(first) & set(again)


def test_what_is_painted_is_found_and_cut_and_the_counterfactual_is_empty(request_pair):
    pair = FakePainter(VOCABULARY).paint([request_pair])[0]
    found, missing = FakeDetector().detect([pair.image, pair.counterfactual], [PHRASES, PHRASES])
    assert sorted(found.phrases) == [0, 1]
    assert len(missing.scores) == 0
    cut = FakeSegmenter().segment([pair.image], [found.xyxy])[0]
    changed = (pair.image != pair.counterfactual).any(axis=2)
    np.testing.assert_array_equal(cut.masks.any(axis=0), changed)
    assert not cut.masks.all(axis=0).any()


def test_only_the_classes_asked_for_are_found(request_pair):
    pair = FakePainter(VOCABULARY).paint([request_pair])[0]
    found = FakeDetector().detect([pair.image], [("rocket", PHRASES[1])])[0]
    assert found.phrases.tolist() == [1]
    assert found.best_scores.tolist() == [0, pytest.approx(0.9)]


def test_jpeg_does_not_hide_what_was_painted(request_pair):
    pair = FakePainter(VOCABULARY, size=64).paint([request_pair])[0]
    stored = decode_image(encode_image(pair.image, "jpg"))
    assert sorted(FakeDetector().detect([stored], [PHRASES])[0].phrases) == [0, 1]


def test_a_pair_depends_on_its_request_alone(request_pair):
    other = PairRequest("a star", "a nothing", 9)
    alone = FakePainter(VOCABULARY).paint([request_pair])[0]
    together = FakePainter(VOCABULARY).paint([other, request_pair])[1]
    np.testing.assert_array_equal(alone.image, together.image)


def test_unsafe_and_blank_pairs_can_be_asked_for():
    painter = FakePainter(VOCABULARY)
    unsafe, blank = painter.paint([PairRequest("unsafe", "", 1), PairRequest("blank", "a", 1)])
    assert unsafe.unsafe
    assert not blank.unsafe
    assert blank.image.std() == 0 < blank.counterfactual.std()
