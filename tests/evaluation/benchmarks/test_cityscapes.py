"""Cityscapes in the folders of the release, with either kind of label file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig
from evaluation.scoring.examination import require_sound
from evaluation.scoring.results import Scores
from hostile import cut
from storage.class_sets import annotation_ids, load_benchmark
from storage.errors import DataError, InputError
from storage.records import IGNORE_LABEL

VOID = IGNORE_LABEL
IDS = "_gtFine_labelIds.png"
TRAIN_IDS = "_gtFine_labelTrainIds.png"
# road, person, rider, car / bicycle, caravan (void), license plate's neighbour train, ego vehicle
RELEASED = [[7, 24, 25, 26], [33, 29, 31, 1]]
TRAINED = [[0, 11, 12, 13], [18, 255, 16, 255]]
SCORED = [[0, 11, 12, 13], [18, VOID, 16, VOID]]


def write(root: Path, key: str, labels: Sequence[Sequence[int]], suffix: str = IDS) -> Path:
    city = key.partition("_")[0]
    images, annotations = root / "leftImg8bit/val" / city, root / "gtFine/val" / city
    for folder in (images, annotations):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 2), "grey").save(images / f"{key}_leftImg8bit.png")
    path = annotations / f"{key}{suffix}"
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)
    return path


def opened(root: Path, **options: object) -> Benchmark:
    config = {"name": "cityscapes", "root": root, **options}
    return open_benchmark(BenchmarkConfig.model_validate(config))


ULM, BONN = "ulm_000000_000019", "bonn_000003_000019"


@pytest.mark.parametrize(("labels", "suffix"), [(RELEASED, IDS), (TRAINED, TRAIN_IDS)])
def test_both_kinds_of_files_score_to_the_value_computed_by_hand(
    tmp_path: Path,
    score_labels: Callable[..., Scores],
    ious: Callable[[Scores], dict[str, float]],
    labels: Sequence[Sequence[int]],
    suffix: str,
) -> None:
    write(tmp_path, ULM, labels, suffix)
    write(tmp_path, BONN, np.full((2, 4), labels[0][3]).tolist(), suffix)
    benchmark = opened(tmp_path)
    first, second = benchmark
    assert (first.key, second.key) == (f"bonn/{BONN}", f"ulm/{ULM}")
    assert second.labels.tolist() == SCORED
    predicted = [[0, 11, 11, 13], [18, 13, 14, 0]]
    scores = score_labels(benchmark, np.full((2, 4), 13).tolist(), predicted)
    # The two void pixels count nowhere; car has 9 true pixels, all found.
    assert ious(scores) == {
        "road": 1,
        "person": 1 / 2,
        "rider": 0,
        "car": 1,
        "truck": 0,
        "train": 0,
        "bicycle": 1,
    }
    assert {group.name: (group.num_classes, group.miou) for group in scores.groups} == {
        "human": (2, pytest.approx((1 / 2 + 0) / 2)),
        # Bus and motorcycle occur nowhere; truck is predicted alone.
        "vehicle": (4, pytest.approx((1 + 0 + 0 + 1) / 4)),
    }
    assert sum(row.true_pixels for row in scores.classes) == 6 + 8
    assert "all other labels ignored" in scores.protocol.truth
    assert suffix in scores.protocol.truth


def test_the_label_ids_are_those_of_the_release() -> None:
    ids = annotation_ids("cityscapes")
    numbers = dict(zip(load_benchmark("cityscapes").names, ids, strict=True))
    assert (numbers["road"], numbers["pole"], numbers["traffic light"]) == (7, 17, 19)
    assert (numbers["person"], numbers["bus"], numbers["train"], numbers["bicycle"]) == (
        24,
        28,
        31,
        33,
    )
    assert len(ids) == 19


def test_label_ids_are_read_where_both_are_there(tmp_path: Path) -> None:
    write(tmp_path, ULM, RELEASED)
    write(tmp_path, ULM, np.full((2, 4), 3).tolist(), TRAIN_IDS)
    [sample] = opened(tmp_path)
    assert sample.labels.tolist() == SCORED


def test_half_of_a_pair_is_found_missing_in_every_city(tmp_path: Path) -> None:
    write(tmp_path, ULM, RELEASED).unlink()
    write(tmp_path, BONN, RELEASED)
    (tmp_path / f"leftImg8bit/val/bonn/{BONN}_leftImg8bit.png").unlink()
    benchmark = opened(tmp_path)
    assert [path.name for path in benchmark.missing_files()] == [
        f"{BONN}_leftImg8bit.png",
        f"{ULM}{IDS}",
    ]
    with pytest.raises(InputError, match=r"2 files of the split val.*gtFine_trainvaltest\.zip"):
        benchmark.check()


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, ULM, RELEASED)
    path.write_bytes(cut(0.5)(path.read_bytes()))
    write(tmp_path, BONN, [[7, 24, 25, 34], [33, 29, 31, 1]])
    with pytest.raises(DataError, match="2 of 2 images") as raised:
        require_sound(opened(tmp_path))
    assert "holds the label 34, expected 0 to 33" in str(raised.value)
    assert f"{ULM}{IDS} cannot be decoded" in str(raised.value)


def test_train_ids_that_are_none_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ULM, RELEASED, TRAIN_IDS)
    with pytest.raises(DataError, match="label 33, expected 0 to 18 or 255"):
        list(opened(tmp_path))


def test_pictures_in_colours_are_no_label_maps(tmp_path: Path) -> None:
    path = write(tmp_path, ULM, RELEASED)
    Image.new("RGB", (4, 2), (128, 64, 128)).save(path)
    with pytest.raises(DataError, match="expected one label a pixel"):
        list(opened(tmp_path))


def test_missing_folders_are_named_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"leftImg8bit/val is missing; Cityscapes is"):
        opened(tmp_path)
    write(tmp_path / "data", ULM, RELEASED)
    with pytest.raises(InputError, match=r"data is laid out as the benchmark: give that folder"):
        opened(tmp_path)
    with pytest.raises(InputError, match=r"there are the splits val: choose one of them"):
        opened(tmp_path / "data", split="train")


def test_other_annotations_are_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path, ULM, RELEASED)
    path.rename(path.with_name(f"{ULM}_gtFine_polygons.json"))
    with pytest.raises(InputError, match="holds polygons alone"):
        opened(tmp_path)
    (path.parent / f"{ULM}_gtFine_polygons.json").rename(path.parents[1] / path.name)
    with pytest.raises(InputError, match="without a folder of their city"):
        opened(tmp_path)


def test_the_split_without_public_truth_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ULM, RELEASED)
    with pytest.raises(InputError, match="test of Cityscapes has no public truth"):
        opened(tmp_path, split="test")


def test_images_may_be_saved_as_jpeg_too(tmp_path: Path) -> None:
    write(tmp_path, ULM, RELEASED)
    path = tmp_path / f"leftImg8bit/val/ulm/{ULM}_leftImg8bit.png"
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()
    [sample] = opened(tmp_path)
    assert sample.image.shape == (2, 4, 3)
