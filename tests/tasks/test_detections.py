"""A sample passes when its classes are in the image and not in the counterfactual."""

import numpy as np
import pytest

from fakes import FakeDetector, FakePainter
from models.protocols import FoundBoxes, PairRequest
from storage.records import Detection, Reason, Rejected, Stage
from storage.vocabulary import load_vocabulary
from tasks.detections import detect_objects
from tasks.pairs import PaintedSample
from tasks.rules import DetectionRules

VOCABULARY = load_vocabulary("miniature")
DEFAULT = DetectionRules()
BUS, CAT, ROCKET = (VOCABULARY.by_name(name).class_id for name in ("bus", "cat", "rocket"))


def pair(key, text, counterfactual="a nothing"):
    painted = FakePainter(VOCABULARY).paint([PairRequest(text, counterfactual, 1)])[0]
    return PaintedSample(key, painted.image, painted.counterfactual)


def detect(*samples, rules=DEFAULT, detector=None):
    pairs = [own for own, _ in samples]
    classes = {own.key: ids for own, ids in samples}
    return detect_objects(pairs, classes, VOCABULARY, detector or FakeDetector(), rules)


def test_found_classes_become_boxes_under_their_class_ids():
    result = detect((pair("a", "a bus and a cat"), (CAT, BUS)))[0]
    assert isinstance(result, Detection)
    assert {box.class_id for box in result.boxes} == {BUS, CAT}
    assert result.counterfactual_boxes == ()
    bus = next(box for box in result.boxes if box.class_id == BUS)
    cat = next(box for box in result.boxes if box.class_id == CAT)
    assert bus.xyxy[2] <= cat.xyxy[0]  # painted from left to right, as the text names them


def test_a_sample_whose_class_is_missing_is_rejected_with_names_and_scores():
    result = detect((pair("a", "a bus"), (BUS, ROCKET)))[0]
    assert isinstance(result, Rejected)
    assert (result.stage, result.reason) == (Stage.DETECTIONS, Reason.CLASS_NOT_FOUND)
    assert result.detail == "bus found (best score 0.90), rocket not found (best score 0.00)"


def test_one_class_is_enough_if_the_rule_says_so_and_the_other_leaves_the_sample():
    rules = DetectionRules(require="any")
    kept, dropped = detect(
        (pair("a", "a bus"), (BUS, ROCKET)), (pair("b", "a cat"), (BUS, ROCKET)), rules=rules
    )
    assert [box.class_id for box in kept.boxes] == [BUS]
    assert dropped.reason is Reason.CLASS_NOT_FOUND


def test_a_class_in_the_counterfactual_rejects_the_sample():
    result = detect((pair("a", "a bus and a cat", "a nothing and a cat"), (BUS, CAT)))[0]
    assert result.reason is Reason.CLASS_IN_COUNTERFACTUAL
    assert result.detail == "cat (best score 0.90)"


def test_a_class_in_the_counterfactual_is_only_recorded_if_the_rule_says_so():
    rules = DetectionRules(counterfactual="record")
    result = detect((pair("a", "a bus", "a bus"), (BUS,)), rules=rules)[0]
    assert [box.class_id for box in result.counterfactual_boxes] == [BUS]
    assert result.counterfactual_boxes == result.boxes


def test_another_class_in_the_counterfactual_is_no_fault():
    assert isinstance(detect((pair("a", "a bus", "a cat"), (BUS,)))[0], Detection)


def test_every_pair_has_one_result_in_order():
    results = detect(
        (pair("a", "a bus"), (CAT,)),
        (pair("b", "a bus"), (BUS,)),
        (pair("c", "a bus", "a bus"), (BUS,)),
        (pair("d", "a cat"), (CAT,)),
    )
    assert [result.key for result in results] == list("abcd")
    assert [type(result) for result in results] == [Rejected, Detection, Rejected, Detection]
    assert detect() == []


class Scripted:
    """Gives the same boxes for every positive image and none for the others."""

    def __init__(self, *rows):
        self._rows = rows
        self.calls = []

    def detect(self, images, phrases):
        self.calls.append(len(images))
        rows = self._rows if len(self.calls) == 1 else ()
        found = FoundBoxes(
            np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[1] for row in rows], np.float32),
            np.array([row[2] for row in rows], np.int64),
            np.zeros(2, np.float32),
        )
        return [found] * len(images)


def test_the_last_bits_of_the_arithmetic_do_not_reach_the_records():
    noise = 1e-6
    results = [
        detect((pair("a", "a bus"), (BUS,)), detector=Scripted(*rows))[0]
        for rows in (
            [((1.23, 2, 3, 4), 0.5, 0), ((1, 2, 3, 5), 0.5 - noise, 0)],
            [((1, 2, 3, 5), 0.5 + noise, 0), ((1.23 + noise, 2, 3, 4), 0.5, 0)],
        )
    ]
    assert results[0] == results[1]
    assert [box.xyxy for box in results[0].boxes] == [(1, 2, 3, 5), (1.23, 2, 3, 4)]


def test_boxes_are_ordered_by_score():
    scripted = Scripted(((0, 0, 5, 5), 0.4, 1), ((1, 1, 4, 4), 0.8, 0), ((2, 2, 3, 3), 0.6, 1))
    result = detect((pair("a", "a bus"), (CAT, BUS)), detector=scripted)[0]
    assert [box.score for box in result.boxes] == [pytest.approx(s) for s in (0.8, 0.6, 0.4)]
    assert [box.class_id for box in result.boxes] == [CAT, BUS, BUS]


def test_counterfactuals_are_looked_at_only_where_the_image_passed():
    scripted = Scripted(((0, 0, 5, 5), 0.4, 0))
    detect((pair("a", "a bus"), (BUS,)), (pair("b", "a bus"), (BUS, CAT)), detector=scripted)
    assert scripted.calls == [2, 1]


class CrowdedDetector:
    """Finds the first phrase three times and the others once."""

    def detect(self, images, phrases):
        found = []
        for own in phrases:
            owners = np.array([0, 0, *range(len(own))])
            boxes = np.tile(np.float32([1, 1, 9, 9]), (len(owners), 1))
            scores = np.full(len(owners), 0.5, np.float32)
            found.append(FoundBoxes(boxes, scores, owners, np.full(len(own), 0.5, np.float32)))
        return found


@pytest.mark.parametrize(("most", "passes"), [(None, True), (3, True), (2, False)])
def test_a_class_with_more_boxes_than_allowed_rejects_the_sample(most, passes):
    rules = DetectionRules(counterfactual="record", max_boxes=most)
    sample = pair("a", "a bus and a cat"), (BUS, CAT)
    result = detect(sample, rules=rules, detector=CrowdedDetector())[0]
    assert isinstance(result, Detection) is passes
    if not passes:
        assert result.reason is Reason.TOO_MANY_BOXES
        assert result.detail == "bus 3 times, at most 2"


def test_the_rule_that_allows_any_number_of_boxes_is_no_part_of_older_keys():
    assert "max_boxes" not in DetectionRules().identity()
    assert DetectionRules(max_boxes=5).identity()["max_boxes"] == 5
