"""PASCAL Context in mmsegmentation's layout and in that of the release."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig
from evaluation.scoring.results import Scores, published_results
from models.miniature.benchmark import voc_palette
from storage.class_sets import annotation_ids
from storage.errors import DataError, InputError
from storage.records import IGNORE_LABEL

PREDICTED = [[0, 1, 1, 1], [0, 59, 59, 2]]
WOOD = annotation_ids("context60")[-1]
OF_THE_RELEASE = [[1, 459, 2, 2], [2, WOOD, 0, WOOD]]


def write_images(root: Path, keys: Sequence[str], *, listed: bool = True) -> None:
    (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
    for key in keys:
        Image.new("RGB", (4, 2), "grey").save(root / "JPEGImages" / f"{key}.jpg")
    lists = root / "ImageSets" / "SegmentationContext"
    lists.mkdir(parents=True, exist_ok=True)
    if listed:
        (lists / "val.txt").write_text("".join(f"{key}\n" for key in keys))


def write_png(root: Path, key: str, labels: Sequence[Sequence[int]]) -> Path:
    path = root / "SegmentationClassContext" / f"{key}.png"
    path.parent.mkdir(exist_ok=True)
    stored = Image.fromarray(np.asarray(labels, np.uint8))
    stored.putpalette(voc_palette())
    stored.save(path)
    return path


def write_mat(root: Path, key: str, labels: Sequence[Sequence[float]]) -> Path:
    path = root / "trainval" / f"{key}.mat"
    path.parent.mkdir(exist_ok=True)
    savemat(path, {"LabelMap": np.asarray(labels, np.uint16)}, do_compression=True)
    return path


def opened(root: Path, name: str = "context60", **options: object) -> Benchmark:
    return open_benchmark(BenchmarkConfig.model_validate({"name": name, "root": root, **options}))


def test_converted_maps_score_to_the_value_computed_by_hand(
    tmp_path: Path, score_labels: Callable[..., Scores], ious: Callable[[Scores], dict[str, float]]
) -> None:
    write_images(tmp_path, ["2008_000002"])
    write_png(tmp_path, "2008_000002", [[0, 0, 1, 1], [1, 59, 255, 59]])
    scores = score_labels(opened(tmp_path), PREDICTED)
    # One of the seven pixels that count is a bag where there is none; 255 counts nowhere.
    assert ious(scores) == {"background": 1 / 3, "aeroplane": 1 / 2, "bag": 0, "wood": 1 / 2}
    assert scores.miou == pytest.approx((1 / 3 + 1 / 2 + 1 / 2 + 0) / 4)
    assert sum(row.true_pixels for row in scores.classes) == 7
    assert len(scores.classes) == 60


def test_maps_of_the_release_score_to_the_value_computed_by_hand(
    tmp_path: Path, score_labels: Callable[..., Scores], ious: Callable[[Scores], dict[str, float]]
) -> None:
    write_images(tmp_path, ["2008_000002"])
    write_mat(tmp_path, "2008_000002", OF_THE_RELEASE)
    scores = score_labels(opened(tmp_path), PREDICTED)
    assert ious(scores) == {"background": 1 / 4, "aeroplane": 1 / 2, "bag": 0, "wood": 1 / 3}
    assert scores.miou == pytest.approx((1 / 4 + 1 / 2 + 1 / 3 + 0) / 4)
    assert "labels outside the 59 are background" in scores.protocol.truth


def test_without_background_its_pixels_are_ignored(
    tmp_path: Path, score_labels: Callable[..., Scores]
) -> None:
    write_images(tmp_path, ["a"])
    write_mat(tmp_path, "a", OF_THE_RELEASE)
    benchmark = opened(tmp_path, "context59")
    [sample] = benchmark
    ignored = IGNORE_LABEL
    assert sample.labels.tolist() == [[ignored, ignored, 0, 0], [0, 58, ignored, 58]]
    scores = score_labels(benchmark, [[7, 7, 0, 0], [58, 58, 7, 58]])
    # aeroplane: two of three; wood: both, and one too many
    assert scores.miou == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_the_59_labels_of_the_release_keep_their_order(tmp_path: Path) -> None:
    write_images(tmp_path, ["a", "b"])
    ids = annotation_ids("context60")
    for key, half in (("a", ids[:8]), ("b", ids[-8:])):
        write_mat(tmp_path, key, np.reshape(half, (2, 4)).tolist())
    first, last = opened(tmp_path)
    assert first.labels.ravel().tolist() == list(range(1, 9))
    assert last.labels.ravel().tolist() == list(range(52, 60))


def test_converted_maps_are_read_where_both_are_there(tmp_path: Path) -> None:
    write_images(tmp_path, ["a"])
    write_png(tmp_path, "a", np.full((2, 4), 7).tolist())
    write_mat(tmp_path, "a", OF_THE_RELEASE)
    benchmark = opened(tmp_path)
    assert benchmark.truth == "PNGs of SegmentationClassContext"
    assert np.unique(next(iter(benchmark)).labels).tolist() == [7]


def test_the_names_of_val_are_shipped(tmp_path: Path) -> None:
    write_images(tmp_path, ["2008_000002"], listed=False)
    write_mat(tmp_path, "2008_000002", OF_THE_RELEASE)
    benchmark = opened(tmp_path)
    assert len(benchmark) == 5104
    assert benchmark.published_as == "PASCAL Context"
    assert published_results(benchmark.published_as)
    assert opened(tmp_path, "context59").published_as == "PASCAL Context59 (no bg)"
    assert len(benchmark.missing_files()) == 2 * 5103
    with pytest.raises(InputError, match=r"10206 files .*2008_000003\.mat.*trainval\.tar\.gz"):
        benchmark.check()
    with pytest.raises(InputError, match=r"SegmentationContext/train\.txt is missing"):
        opened(tmp_path, split="train")
    assert opened(tmp_path, limit=1).published_as == ""


def test_a_folder_without_label_maps_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, ["a"])
    with pytest.raises(InputError, match=r"neither .*ClassContext nor .*trainval is there"):
        opened(tmp_path)


@pytest.mark.parametrize("label", [60, 254])
def test_a_label_out_of_range_is_named_with_its_file(tmp_path: Path, label: int) -> None:
    write_images(tmp_path, ["a"])
    write_png(tmp_path, "a", [[0, 1, 2, 3], [label, 0, 0, 255]])
    with pytest.raises(DataError, match=rf"a\.png holds the label {label}, expected 0 to 59 or"):
        list(opened(tmp_path))


def test_a_label_outside_the_list_of_the_release_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, ["a"])
    write_mat(tmp_path, "a", [[1, 2, 3, 4], [460, 1, 1, 1]])
    with pytest.raises(DataError, match=r"a\.mat holds the label 460, expected 0 to 459"):
        list(opened(tmp_path))


def test_a_damaged_file_of_the_release_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, ["a"])
    path = write_mat(tmp_path, "a", OF_THE_RELEASE)
    whole = path.read_bytes()
    for damaged in (whole[:60], whole[:-30], b"", whole[:150] + b"\xff" * 20 + whole[170:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.mat cannot be read"):
            list(opened(tmp_path))
    savemat(path, {"Labels": np.zeros((2, 4))})
    with pytest.raises(DataError, match=r"a\.mat holds no matrix LabelMap"):
        list(opened(tmp_path))
    path.unlink()
    with pytest.raises(InputError, match=r"a\.mat is missing, though the split names it"):
        list(opened(tmp_path))


def test_the_list_of_labels_beside_the_files_is_held_against_the_ids_in_use(
    tmp_path: Path,
) -> None:
    write_images(tmp_path, ["a"])
    write_mat(tmp_path, "a", OF_THE_RELEASE)
    benchmark = opened(tmp_path)
    names = dict(zip(annotation_ids("context60"), benchmark.classes.names, strict=True))
    lines = [f"{number}: {names.get(number, 'something')}\n" for number in range(1, 460)]
    (tmp_path / "labels.txt").write_text("".join(lines))
    assert len(opened(tmp_path)) == 1
    (tmp_path / "labels.txt").write_text("accordion\n" + "".join(lines[1:]).replace("2: ", "3: "))
    with pytest.raises(DataError, match=r"labels\.txt gives aeroplane the number 3, expected 2 as"):
        opened(tmp_path)
