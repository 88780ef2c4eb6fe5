"""COCO-Stuff as mmsegmentation's converter writes it, and from the pixel maps of the release."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig
from evaluation.scoring.results import Scores
from storage.errors import DataError, InputError
from storage.records import IGNORE_LABEL

# person, cow / banner, wood, unlabelled: places 0, 19 / 80, 170
CONVERTED = [[0, 19, 19], [80, 170, 255]]
RAW = [[0, 20, 20], [91, 181, 255]]
SCORED = [[0, 19, 19], [80, 170, IGNORE_LABEL]]


def write(root: Path, key: str, labels: Sequence[Sequence[int]], suffix: str) -> Path:
    images, annotations = (root / kind / "val2017" for kind in ("images", "annotations"))
    for folder in (images, annotations):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2), "grey").save(images / f"{key}.jpg")
    path = annotations / f"{key}{suffix}"
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)
    return path


def opened(root: Path) -> Benchmark:
    return open_benchmark(BenchmarkConfig(name="coco_stuff", root=root))


@pytest.mark.parametrize(("labels", "suffix"), [(CONVERTED, "_labelTrainIds.png"), (RAW, ".png")])
def test_both_layouts_score_to_the_value_computed_by_hand(
    tmp_path: Path,
    score_labels: Callable[..., Scores],
    ious: Callable[[Scores], dict[str, float]],
    labels: Sequence[Sequence[int]],
    suffix: str,
) -> None:
    write(tmp_path, "000000000139", labels, suffix)
    benchmark = opened(tmp_path)
    [sample] = benchmark
    assert sample.labels.tolist() == SCORED
    assert len(benchmark.classes.names) == 171
    scores = score_labels(benchmark, [[0, 19, 0], [80, 1, 2]])
    assert ious(scores) == {"person": 1 / 2, "cow": 1 / 2, "bicycle": 0, "banner": 1, "wood": 0}
    assert "unlabelled pixels ignored" in scores.protocol.truth
    assert scores.published == ()


def test_values_without_a_meaning_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "1", [[0, 11, 0], [0, 0, 0]], ".png")  # street sign, which COCO never marked
    with pytest.raises(DataError, match="holds the value 11, which COCO-Stuff does not use"):
        list(opened(tmp_path))
    write(tmp_path, "1", [[0, 200, 0], [0, 0, 0]], ".png")
    with pytest.raises(DataError, match="label 200, expected 0 to 181 or 255"):
        list(opened(tmp_path))


def test_maps_of_the_things_alone_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "1", [[0, 1, 0], [0, 0, 0]], "_instanceTrainIds.png")
    with pytest.raises(InputError, match="COCO-Object alone: score them as coco_object"):
        opened(tmp_path)


def test_half_of_a_pair_is_found_missing(tmp_path: Path) -> None:
    write(tmp_path, "000000000139", RAW, ".png")
    write(tmp_path, "000000000285", RAW, ".png").unlink()
    with pytest.raises(InputError, match=r"1 files of the split val.*000000000285\.png"):
        opened(tmp_path).check()
