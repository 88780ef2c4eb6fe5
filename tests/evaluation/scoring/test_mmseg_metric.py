"""Our mean IoU against that of mmsegmentation, whose convention we follow."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from evaluation.scoring.metrics import Confusion
from models.closed_sets.openmmlab import IoUMetric
from storage.records import IGNORE_LABEL


def random_maps(rng, num_classes, shown):
    """Maps in which some classes occur nowhere, and some in the prediction alone."""
    truth = rng.integers(shown, size=(41, 29))
    wild = rng.integers(max(shown, num_classes - 2), size=truth.shape)
    prediction = np.where(rng.random(truth.shape) < 0.7, truth, wild)
    truth[rng.random(truth.shape) < 0.2] = IGNORE_LABEL
    return truth.astype(np.uint16), prediction


@pytest.mark.parametrize(("num_classes", "shown"), [(2, 2), (21, 15), (81, 60)])
def test_our_miou_equals_those_of_mmsegmentation_and_torchmetrics(num_classes, shown):
    ours = Confusion(num_classes)
    mmseg = IoUMetric(ignore_index=IGNORE_LABEL)
    mmseg.dataset_meta = {"classes": [str(k) for k in range(num_classes)]}
    torchmetrics = MulticlassJaccardIndex(num_classes, ignore_index=IGNORE_LABEL, average="none")
    rng = np.random.default_rng(num_classes)
    counts = []
    for _ in range(4):
        truth, prediction = random_maps(rng, num_classes, shown)
        ours.update(truth, prediction)
        truth, prediction = torch.from_numpy(truth.astype(np.int64)), torch.from_numpy(prediction)
        counts.append(mmseg.intersect_and_union(prediction, truth, num_classes, mmseg.ignore_index))
        torchmetrics.update(prediction, truth)
    summary = ours.summary()
    sums = [sum(each) for each in zip(*counts, strict=True)]
    theirs = mmseg.total_area_to_metrics(*sums, ["mIoU"])
    assert summary.ious == pytest.approx(np.asarray(theirs["IoU"]), abs=1e-6, nan_ok=True)
    assert np.isnan(summary.ious).sum() == max(0, num_classes - max(shown, num_classes - 2))
    assert summary.miou == pytest.approx(np.nanmean(theirs["IoU"]), abs=1e-6)
    assert summary.pixel_accuracy == pytest.approx(float(theirs["aAcc"]), abs=1e-6)
    shown_ious = ~np.isnan(summary.ious)
    assert summary.ious[shown_ious] == pytest.approx(
        torchmetrics.compute().numpy()[shown_ious], abs=1e-6
    )
    rounded = mmseg.compute_metrics(counts)
    assert 100 * summary.miou == pytest.approx(rounded["mIoU"], abs=0.006)
