"""Boxes become instance masks, and instance masks a label map."""

import numpy as np
import pytest

from fakes import FakeDetector, FakePainter, FakeSegmenter
from models.protocols import CutMasks, PairRequest
from storage.codecs import decode_rle
from storage.errors import DataError
from storage.records import Box, Detection, MaskSample, Reason, Stage
from storage.vocabulary import load_vocabulary
from tasks.detections import DetectionRules, detect_objects
from tasks.masks import cut_masks, label_map
from tasks.pairs import PaintedSample
from tasks.rules import MaskRules

VOCABULARY = load_vocabulary("miniature")
DEFAULT = MaskRules()
BUS, CAT = (VOCABULARY.by_name(name).class_id for name in ("bus", "cat"))
BLANK = np.zeros((10, 20, 3), np.uint8)


def box(class_id, score):
    return Box(class_id=class_id, score=score, xyxy=(0.0, 0.0, 20.0, 10.0))


def rectangle(top, bottom, left, right):
    mask = np.zeros(BLANK.shape[:2], np.bool_)
    mask[top:bottom, left:right] = True
    return mask


class Scripted:
    """Gives the masks that it was made with to every image."""

    def __init__(self, *masks):
        self._masks = np.stack(masks)

    def segment(self, images, boxes):
        ious = np.linspace(0.5, 0.9, len(self._masks), dtype=np.float32)
        return [CutMasks(self._masks, ious) for _ in images]


def cut(boxes, masks, rules=DEFAULT):
    detection = Detection(key="a", boxes=boxes, counterfactual_boxes=())
    pair = PaintedSample("a", BLANK, BLANK)
    return cut_masks([pair], [detection], Scripted(*masks), rules)[0]


def test_painted_objects_become_the_label_map_of_what_was_painted():
    painted = FakePainter(VOCABULARY).paint([PairRequest("a bus and a cat", "a nothing", 3)])[0]
    pair = PaintedSample("a", painted.image, painted.counterfactual)
    detections = detect_objects(
        [pair], {"a": (CAT, BUS)}, VOCABULARY, FakeDetector(), DetectionRules()
    )
    sample = cut_masks([pair], detections, FakeSegmenter(), MaskRules())[0]
    labels = label_map(sample)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels > 0, (pair.image != pair.counterfactual).any(axis=2))
    columns = np.arange(labels.shape[1])
    assert (
        columns[(labels == BUS + 1).any(axis=0)].max()
        < columns[(labels == CAT + 1).any(axis=0)].min()
    )


def test_an_instance_keeps_what_the_models_said():
    mask = rectangle(2, 8, 3, 9)
    sample = cut((box(CAT, 0.75),), [mask])
    assert (sample.key, sample.height, sample.width) == ("a", 10, 20)
    instance = sample.instances[0]
    assert (instance.class_id, instance.score, instance.area) == (CAT, 0.75, 36)
    assert instance.predicted_iou == pytest.approx(0.5)
    assert instance.xyxy == (0, 0, 20, 10)
    np.testing.assert_array_equal(decode_rle(instance.rle, 10, 20), mask)


@pytest.mark.parametrize("cat_first", [True, False])
def test_where_masks_overlap_the_better_score_wins_whatever_the_order(cat_first):
    left, right = rectangle(0, 10, 0, 12), rectangle(0, 10, 8, 20)
    boxes, masks = [box(CAT, 0.9), box(BUS, 0.4)], [left, right]
    if not cat_first:
        boxes.reverse()
        masks.reverse()
    labels = label_map(cut(tuple(boxes), masks))
    assert (labels[:, :12] == CAT + 1).all()
    assert (labels[:, 12:] == BUS + 1).all()


def test_of_equal_scores_the_earlier_instance_wins():
    left, right = rectangle(0, 10, 0, 12), rectangle(0, 10, 8, 20)
    labels = label_map(cut((box(CAT, 0.5), box(BUS, 0.5)), [left, right]))
    assert (labels[:, 8:12] == CAT + 1).all()


def test_the_masks_of_instances_stay_whole_where_they_overlap():
    sample = cut((box(CAT, 0.9), box(BUS, 0.4)), [rectangle(0, 10, 0, 12), rectangle(0, 10, 8, 20)])
    assert [instance.area for instance in sample.instances] == [120, 120]


def test_labels_beyond_eight_bits_are_kept():
    sample = cut((box(1204, 0.9),), [rectangle(0, 5, 0, 5)])
    assert set(np.unique(label_map(sample))) == {0, 1205}


def test_a_class_with_too_few_pixels_rejects_the_sample():
    rejected = cut((box(CAT, 0.9),), [rectangle(0, 1, 0, 1)], MaskRules(min_area=0.01))
    assert (rejected.stage, rejected.reason) == (Stage.MASKS, Reason.MASK_TOO_SMALL)
    assert rejected.detail == f"class {CAT} covers 0.0050 of the image, expected at least 0.01"
    kept = cut((box(CAT, 0.9),), [rectangle(0, 1, 0, 1)], MaskRules(min_area=0.005))
    assert isinstance(kept, MaskSample)


def test_a_class_with_too_many_pixels_rejects_the_sample():
    rejected = cut((box(CAT, 0.9),), [rectangle(0, 10, 0, 19)])
    assert rejected.reason is Reason.MASK_TOO_LARGE
    assert "covers 0.9500 of the image, expected at most 0.9" in rejected.detail


def test_several_small_instances_of_a_class_count_together():
    masks = [rectangle(0, 1, column, column + 1) for column in range(4)]
    sample = cut(tuple(box(CAT, 0.9) for _ in masks), masks, MaskRules(min_area=0.02))
    assert len(sample.instances) == 4


def test_a_class_that_is_hidden_behind_another_is_too_small():
    mask = rectangle(0, 5, 0, 10)
    rejected = cut((box(CAT, 0.9), box(BUS, 0.4)), [mask, mask])
    assert rejected.reason is Reason.MASK_TOO_SMALL
    assert f"class {BUS} covers 0.0000" in rejected.detail


def test_an_empty_mask_is_left_out_and_its_class_missed():
    full, empty = rectangle(0, 5, 0, 10), rectangle(0, 0, 0, 0)
    sample = cut((box(CAT, 0.9), box(CAT, 0.8)), [full, empty])
    assert len(sample.instances) == 1
    assert cut((box(CAT, 0.9),), [empty]).detail == "all masks are empty"
    assert cut((box(CAT, 0.9), box(BUS, 0.8)), [full, empty]).reason is Reason.MASK_TOO_SMALL


def test_images_are_found_by_key_and_strangers_are_refused():
    pairs = [PaintedSample(key, BLANK, BLANK) for key in "ab"]
    detection = Detection(key="b", boxes=(box(CAT, 0.9),), counterfactual_boxes=())
    result = cut_masks(pairs, [detection], Scripted(rectangle(0, 5, 0, 5)), MaskRules())
    assert [sample.key for sample in result] == ["b"]
    with pytest.raises(DataError, match=r"detections of \['b'\] have no pair; 1 pairs"):
        cut_masks(pairs[:1], [detection], Scripted(rectangle(0, 5, 0, 5)), MaskRules())
