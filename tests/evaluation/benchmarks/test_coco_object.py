"""COCO-Object as GroupViT's converter writes it, and from COCO-Stuff's pixel maps."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig
from evaluation.scoring.results import Scores, published_results
from storage.errors import DataError, InputError

CONVERTED = [[0, 0, 1, 1], [12, 80, 80, 0]]
# person, stop sign and toothbrush; grass and another stuff; unlabelled
RAW = [[91, 181, 0, 0], [12, 89, 89, 255]]


def write(root: Path, key: str, labels: Sequence[Sequence[int]], suffix: str) -> Path:
    images, annotations = (root / kind / "val2017" for kind in ("images", "annotations"))
    for folder in (images, annotations):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 2), "grey").save(images / f"{key}.jpg")
    path = annotations / f"{key}{suffix}"
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)
    return path


def opened(root: Path, **options: object) -> Benchmark:
    config = {"name": "coco_object", "root": root, **options}
    return open_benchmark(BenchmarkConfig.model_validate(config))


@pytest.mark.parametrize(
    ("labels", "suffix"), [(CONVERTED, "_instanceTrainIds.png"), (RAW, ".png")]
)
def test_both_layouts_score_to_the_value_computed_by_hand(
    tmp_path: Path,
    score_labels: Callable[..., Scores],
    ious: Callable[[Scores], dict[str, float]],
    labels: Sequence[Sequence[int]],
    suffix: str,
) -> None:
    write(tmp_path, "000000000139", labels, suffix)
    write(tmp_path, "000000000285", np.full((2, 4), labels[0][0]).tolist(), suffix)
    benchmark = opened(tmp_path)
    assert [sample.key for sample in benchmark] == ["000000000139", "000000000285"]
    assert next(iter(benchmark)).labels.tolist() == CONVERTED
    scores = score_labels(benchmark, [[0, 1, 1, 1], [12, 80, 0, 2]], np.zeros((2, 4)).tolist())
    # Background: 11 true pixels, 10 predicted, 9 of them right; no pixel is ignored.
    assert ious(scores) == {
        "background": 9 / 12,
        "person": 2 / 3,
        "bicycle": 0,
        "stop sign": 1,
        "toothbrush": 1 / 2,
    }
    assert scores.miou == pytest.approx((9 / 12 + 2 / 3 + 0 + 1 + 1 / 2) / 5)
    assert sum(row.true_pixels for row in scores.classes) == 16
    assert suffix in scores.protocol.truth


def test_converted_maps_are_read_where_both_are_there(tmp_path: Path) -> None:
    write(tmp_path, "000000000139", RAW, ".png")
    write(tmp_path, "000000000139", np.full((2, 4), 3).tolist(), "_instanceTrainIds.png")
    write(tmp_path, "000000000139", np.full((2, 4), 170).tolist(), "_labelTrainIds.png")
    [sample] = opened(tmp_path)
    assert np.unique(sample.labels).tolist() == [3]


def test_half_of_a_pair_is_found_missing(tmp_path: Path) -> None:
    path = write(tmp_path, "000000000139", CONVERTED, "_instanceTrainIds.png")
    write(tmp_path, "000000000285", CONVERTED, "_instanceTrainIds.png")
    path.unlink()
    (tmp_path / "images" / "val2017" / "000000000285.jpg").unlink()
    benchmark = opened(tmp_path)
    assert [missing.name for missing in benchmark.missing_files()] == [
        "000000000139_instanceTrainIds.png",
        "000000000285.jpg",
    ]
    with pytest.raises(InputError, match=r"2 files of the split val.*stuffthingmaps_trainval2017"):
        benchmark.check()


def test_missing_folders_are_named_with_the_place_where_they_are_had(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images/val2017 is missing; COCO-Object is made of"):
        opened(tmp_path)
    path = write(tmp_path, "000000000139", RAW, ".png")
    with pytest.raises(InputError, match="images/train2017 is missing"):
        opened(tmp_path, split="train")
    path.unlink()
    with pytest.raises(InputError, match="holds no label map <id>_instanceTrainIds"):
        opened(tmp_path)


def test_255_is_unlabelled_in_pixel_maps_and_nothing_in_converted_ones(tmp_path: Path) -> None:
    write(tmp_path / "raw", "1", np.full((2, 4), 255).tolist(), ".png")
    [sample] = opened(tmp_path / "raw")
    assert not sample.labels.any()
    write(tmp_path / "converted", "1", np.full((2, 4), 255).tolist(), "_instanceTrainIds.png")
    with pytest.raises(DataError, match=r"holds the label 255, expected 0 to 80:"):
        list(opened(tmp_path / "converted"))


@pytest.mark.parametrize("value", [11, 90, 182, 254])
def test_a_value_that_coco_stuff_does_not_use_is_refused(tmp_path: Path, value: int) -> None:
    write(tmp_path, "1", np.full((2, 4), value).tolist(), ".png")
    with pytest.raises(DataError, match=rf"1\.png holds the value {value}, which COCO-Stuff does"):
        list(opened(tmp_path))


def test_published_numbers_are_for_all_5000_images_of_val2017(tmp_path: Path) -> None:
    folders = [tmp_path / kind / "val2017" for kind in ("images", "annotations")]
    for folder, suffix in zip(folders, (".jpg", ".png"), strict=True):
        folder.mkdir(parents=True)
        for number in range(5000):
            (folder / f"{number:012}{suffix}").touch()
    assert opened(tmp_path).published_as == "COCO"
    assert {row.method for row in published_results("COCO")} >= {"MagicSeg-380k-1205c"}
    assert opened(tmp_path, limit=100).published_as == ""
    (folders[0] / f"{0:012}.jpg").unlink()
    (folders[1] / f"{0:012}.png").unlink()
    assert opened(tmp_path).published_as == ""


@pytest.mark.parametrize("ending", [".jpeg", ".JPG", ".png"])
def test_images_may_have_another_ending(tmp_path: Path, ending: str) -> None:
    write(tmp_path, "1", CONVERTED, "_instanceTrainIds.png")
    image = tmp_path / "images" / "val2017" / "1.jpg"
    Image.new("RGB", (4, 2)).save(image.with_suffix(ending))
    image.unlink()
    [sample] = opened(tmp_path)
    assert sample.labels.tolist() == CONVERTED


def test_what_lies_in_place_of_the_benchmark_is_named(tmp_path: Path) -> None:
    root = tmp_path / "coco_stuff164k"
    path = write(root, "1", RAW, ".png")
    with pytest.raises(InputError, match=rf"is missing; {root} is laid out as the benchmark"):
        opened(tmp_path)
    nested = path.parent / "val2017"
    nested.mkdir()
    path.rename(nested / path.name)
    with pytest.raises(InputError, match=r"annotations/val2017/val2017 holds some: move them to"):
        opened(root)
    (path.parent / "1_labelTrainIds.png").touch()
    with pytest.raises(InputError, match=r"_labelTrainIds\.png, which number all 171 classes"):
        opened(root)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_pixel_maps_of_any_depth_are_read(tmp_path: Path, depth: type) -> None:
    path = write(tmp_path, "1", RAW, ".png")
    Image.fromarray(np.asarray(RAW, depth)).save(path)
    [sample] = opened(tmp_path)
    assert sample.labels.tolist() == CONVERTED
    Image.fromarray(np.full((2, 4), 300, np.uint16)).save(path)
    with pytest.raises(DataError, match="holds the value 300, which COCO-Stuff does not use"):
        list(opened(tmp_path))
