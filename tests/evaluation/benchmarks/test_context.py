"""PASCAL Context in mmsegmentation's layout and in that of the release."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix

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


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("how", [{}, {"do_compression": True}, {"format": "4"}])
def test_a_map_of_the_release_may_be_saved_in_any_way(
    tmp_path: Path, kind: type, how: dict[str, object]
) -> None:
    write_images(tmp_path, ["a"])
    path = write_mat(tmp_path, "a", OF_THE_RELEASE)
    [expected] = opened(tmp_path)
    savemat(path, {"LabelMap": np.asarray(OF_THE_RELEASE, kind)}, **how)
    [sample] = opened(tmp_path)
    np.testing.assert_array_equal(sample.labels, expected.labels)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"LabelMap": np.full((2, 4), np.nan)}, "holds a LabelMap of shape .* no number"),
        ({"LabelMap": np.full((2, 4), 1e300)}, r"holds the label 1e\+300, expected 0 to 459"),
        ({"LabelMap": np.full((2, 4), 1.5)}, r"holds the label 1\.5, expected 0 to 459"),
        ({"LabelMap": np.full((2, 4), -1)}, "holds the label -1, expected 0 to 459"),
        ({"LabelMap": np.full((2, 4), 1j)}, "holds no matrix LabelMap"),
        ({"LabelMap": csc_matrix((2, 4))}, "holds no matrix LabelMap"),
        ({"LabelMap": np.zeros((0, 4))}, "holds"),
        ({"LabelMap": "text"}, "holds no matrix LabelMap"),
        ({"LabelMap": {"a": 1}}, "holds no matrix LabelMap"),
    ],
)
def test_what_is_no_label_map_is_refused(
    tmp_path: Path, variables: dict[str, object], words: str
) -> None:
    write_images(tmp_path, ["a"])
    savemat(write_mat(tmp_path, "a", OF_THE_RELEASE), variables)
    with pytest.raises(DataError, match=rf"a\.mat {words}"):
        list(opened(tmp_path))


@pytest.mark.parametrize("front", [b"", b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512)])
def test_version_7_3_is_named_with_the_way_out(tmp_path: Path, front: bytes) -> None:
    write_images(tmp_path, ["a"])
    path = write_mat(tmp_path, "a", OF_THE_RELEASE)
    path.write_bytes(front + b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(DataError, match=r"a\.mat is a MATLAB file of version 7\.3 .*'-v7'"):
        list(opened(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_the_list_of_labels_may_be_in_any_encoding_that_can_be_told(
    tmp_path: Path, encoding: str
) -> None:
    write_images(tmp_path, ["a"])
    write_mat(tmp_path, "a", OF_THE_RELEASE)
    (tmp_path / "labels.txt").write_bytes("1: accordion\r\n2: aeroplane\r\n".encode(encoding))
    assert len(opened(tmp_path)) == 1
    (tmp_path / "labels.txt").write_bytes("1: aeroplane\r\n".encode(encoding))
    with pytest.raises(DataError, match=r"labels\.txt gives aeroplane the number 1, expected 2 as"):
        opened(tmp_path)


def test_a_folder_too_high_is_told_where_the_benchmark_is(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2010"
    root.mkdir(parents=True)
    write_images(root, ["a"])
    write_mat(root, "a", OF_THE_RELEASE)
    with pytest.raises(InputError, match=rf"neither .*; {root} is laid out as the benchmark"):
        opened(tmp_path)
