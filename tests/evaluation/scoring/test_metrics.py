"""Confusion, IoU and the threshold sweep."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from evaluation.scoring.metrics import Average, Confusion, ThresholdSweep
from storage.errors import DataError
from storage.records import IGNORE_LABEL


def random_maps(
    seed: int, num_classes: int, ignored: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(num_classes, size=(37, 23)).astype(np.uint16)
    prediction = np.where(
        rng.random(truth.shape) < 0.6, truth, rng.integers(num_classes, size=(37, 23))
    )
    truth[rng.random(truth.shape) < ignored] = IGNORE_LABEL
    return truth, prediction, rng.random(truth.shape).astype(np.float32)


@pytest.mark.parametrize("num_classes", [2, 21, 300])
def test_the_miou_equals_that_of_torchmetrics(num_classes: int) -> None:
    ours = Confusion(num_classes)
    theirs = MulticlassJaccardIndex(num_classes, average="none", ignore_index=IGNORE_LABEL)
    for seed in range(5):
        truth, prediction, _ = random_maps(seed, num_classes)
        ours.update(truth, prediction)
        theirs.update(torch.from_numpy(prediction), torch.from_numpy(truth.astype(np.int64)))
    assert ours.summary().ious == pytest.approx(theirs.compute().numpy(), abs=1e-6)


def test_the_miou_of_a_map_worked_out_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 2, IGNORE_LABEL]], dtype=np.uint16)
    prediction = np.array([[0, 1, 1], [1, 0, 2]])
    confusion = Confusion(5)
    confusion.update(truth, prediction)
    summary = confusion.summary()
    # 0: 1 of {0,0,0}; 1: 2 of 3; 2: never hit; 3 and 4 occur nowhere.
    assert summary.ious[:3] == pytest.approx([1 / 3, 2 / 3, 0])
    assert np.isnan(summary.ious[3:]).all()
    assert summary.miou == pytest.approx(1 / 3)
    assert summary.pixel_accuracy == pytest.approx(3 / 5)
    assert summary.true_pixels.tolist() == [2, 2, 1, 0, 0]


def test_a_class_that_is_predicted_but_never_true_counts_as_zero() -> None:
    confusion = Confusion(3)
    confusion.update(np.zeros((2, 2), np.uint16), np.array([[0, 0], [0, 2]]))
    assert confusion.summary().miou == pytest.approx((3 / 4 + 0) / 2)


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        (Average.OCCURRING, (2 / 3 + 1 + 0) / 3),
        (Average.TRUE, (2 / 3 + 1) / 2),
        (Average.ALL, (2 / 3 + 1 + 0 + 0) / 4),
    ],
)
def test_the_mean_is_taken_over_the_classes_asked_for(average: Average, expected: float) -> None:
    # 0: 2 of 3; 1: right; 2: predicted but never true; 3: nowhere.
    truth, best = np.array([[0, 0, 0, 1]], np.uint16), np.array([[0.1, 0.2, 0.9, 0.9]], np.float32)
    confusion = Confusion(4)
    confusion.update(truth, np.array([[0, 0, 2, 1]]))
    assert confusion.summary(average).miou == pytest.approx(expected)
    sweep = ThresholdSweep(4, (0.5,))
    sweep.update(truth, best, np.array([[3, 3, 2, 1]]))
    [summary] = sweep.summaries(average)
    assert summary.miou == pytest.approx(expected)


def test_class_255_is_a_class_like_any_other() -> None:
    truth = np.full((3, 3), 255, dtype=np.uint16)
    confusion = Confusion(300)
    confusion.update(truth, truth.astype(np.int64))
    assert confusion.summary().ious[255] == 1
    assert confusion.summary().true_pixels[255] == 9


def test_counts_beyond_32_bits_stay_exact() -> None:
    confusion = Confusion(2)
    confusion.matrix[1, 1] = 2**53
    confusion.update(np.ones((1, 1), np.uint16), np.ones((1, 1), np.int64))
    assert confusion.matrix[1, 1] == 2**53 + 1


def test_an_image_without_a_counted_pixel_leaves_everything_nan() -> None:
    confusion = Confusion(2)
    confusion.update(np.full((2, 2), IGNORE_LABEL, np.uint16), np.zeros((2, 2), np.int64))
    assert np.isnan(confusion.summary().miou)
    assert np.isnan(confusion.summary().pixel_accuracy)


def test_labels_out_of_range_are_refused_and_ignored_pixels_are_not_looked_at() -> None:
    confusion = Confusion(3)
    bad = np.array([[0, 7]])
    with pytest.raises(DataError, match="true label 7 is out of range, expected 0 to 2"):
        confusion.update(bad.astype(np.uint16), np.zeros((1, 2), np.int64))
    with pytest.raises(DataError, match="predicted class 7"):
        confusion.update(np.zeros((1, 2), np.uint16), bad)
    confusion.update(np.array([[0, IGNORE_LABEL]], np.uint16), bad)
    assert confusion.matrix.sum() == 1


@pytest.mark.parametrize("strict", [False, True])
def test_the_sweep_equals_one_confusion_for_each_threshold(strict: bool) -> None:
    thresholds = (0.0, 0.25, 0.5, 0.75, 0.95)
    sweep = ThresholdSweep(6, thresholds, strict=strict)
    confusions = [Confusion(6) for _ in thresholds]
    for seed in range(4):
        truth, label, best = random_maps(seed, 6)
        label = np.maximum(label, 1)
        best[:3] = 0.5
        sweep.update(truth, best, label)
        for threshold, confusion in zip(thresholds, confusions, strict=True):
            found = best > np.float32(threshold) if strict else best >= np.float32(threshold)
            confusion.update(truth, np.where(found, label, 0))
    for summary, confusion in zip(sweep.summaries(), confusions, strict=True):
        expected = confusion.summary()
        np.testing.assert_array_equal(summary.ious, expected.ious)
        assert summary.miou == expected.miou
        assert summary.pixel_accuracy == expected.pixel_accuracy
