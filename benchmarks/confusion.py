"""Counting one 512-pixel prediction, beside torchmetrics and three histograms as in mmsegmentation.

The limit is one call of numpy's bincount on keys that are ready.
"""

import numpy as np
import torch
from jaxtyping import Int32, Int64, UInt16
from torchmetrics.classification import MulticlassConfusionMatrix

from benchmarks.measurement import Row, compare
from benchmarks.results_file import write_results
from evaluation.scoring.metrics import Confusion
from storage.records import IGNORE_LABEL

SIDE = 512
CLASSES = (21, 81, 1204)
REPEATS = 5

Truth = UInt16[np.ndarray, "side side"]
Prediction = Int32[np.ndarray, "side side"]


def label_maps(num_classes: int) -> tuple[Truth, Prediction]:
    """Draw a truth with patches and an ignored border, and a prediction that is right for half."""
    rng = np.random.default_rng(0)
    patches = np.ones((32, 32), np.uint16)
    truth = np.kron(rng.integers(num_classes, size=(16, 16), dtype=np.uint16), patches)
    other = np.kron(rng.integers(num_classes, size=(16, 16), dtype=np.uint16), patches)
    prediction = np.where(rng.random((SIDE, SIDE)) < 0.5, np.roll(truth, 3, axis=1), other)
    truth[:16] = truth[-16:] = IGNORE_LABEL
    return truth, prediction.astype(np.int32)


def three_histograms(
    truth: Truth, prediction: Prediction, num_classes: int
) -> tuple[Int64[torch.Tensor, " classes"], Int64[torch.Tensor, " classes"]]:
    """Intersection and union of each class as mmsegmentation counts them."""
    found, label = torch.from_numpy(prediction), torch.from_numpy(truth.astype(np.int64))
    counted = label != IGNORE_LABEL
    found, label = found[counted], label[counted]
    hits, predicted, true = (
        torch.histc(values.float(), bins=num_classes, min=0, max=num_classes - 1)
        for values in (found[found == label], found, label)
    )
    return hits.long(), (predicted + true - hits).long()


def measure(num_classes: int) -> list[Row]:
    """Check that all count alike, then time them."""
    truth, prediction = label_maps(num_classes)
    ours = Confusion(num_classes)
    metric = MulticlassConfusionMatrix(num_classes, ignore_index=IGNORE_LABEL, validate_args=False)
    found, label = torch.from_numpy(prediction), torch.from_numpy(truth.astype(np.int64))
    keys = np.where(truth == IGNORE_LABEL, num_classes, truth).astype(np.int32) * num_classes
    keys = (keys + prediction).ravel()
    length = num_classes * (num_classes + 1)

    ours.update(truth, prediction)
    metric.update(found, label)
    hits, unions = three_histograms(truth, prediction, num_classes)
    limit = np.bincount(keys, minlength=length)[: num_classes**2]
    assert np.array_equal(ours.matrix, metric.compute().numpy())
    assert np.array_equal(ours.matrix.ravel(), limit)
    assert np.array_equal(np.diag(ours.matrix), hits)
    sums = ours.matrix.sum(axis=0) + ours.matrix.sum(axis=1)
    assert np.array_equal(sums - np.diag(ours.matrix), unions)

    rows = compare(
        {
            "ours": lambda: ours.update(truth, prediction),
            "torchmetrics": lambda: metric.update(found, label),
            "three histograms": lambda: three_histograms(truth, prediction, num_classes),
            "limit: bincount of keys": lambda: np.bincount(keys, minlength=length),
        },
        repeats=REPEATS,
    )
    return [{"classes": num_classes, **row} for row in rows]


def main() -> None:
    """Measure all class counts."""
    rows = [row for num_classes in CLASSES for row in measure(num_classes)]
    packages = ("magicseg-engine", "numpy", "torch", "torchmetrics")
    write_results("confusion", rows, packages, setting={"side": SIDE})


if __name__ == "__main__":
    main()
