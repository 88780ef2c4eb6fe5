"""Which benchmarks there are, and the layout of PASCAL VOC."""

import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig, LvisConfig, scored_names
from evaluation.benchmarks.split_lists import listed_names
from hostile import always, animated, chunk, cut, noise, png_of, text_bomb, with_chunk
from models.miniature.benchmark import (
    DrawnBenchmarkConfig,
    draw_labels,
    scenes,
    voc_palette,
    write_benchmark,
)
from storage.errors import DataError, InputError
from storage.records import IGNORE_LABEL


def write_voc(root: Path, labels: dict[str, np.ndarray], *, split: str = "val") -> Path:
    """The official layout, with palette PNGs as the release has them."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for key, values in labels.items():
        image = Image.fromarray(np.full((*values.shape, 3), 90, np.uint8))
        image.save(root / "JPEGImages" / f"{key}.jpg")
        stored = Image.fromarray(values.astype(np.uint8))
        stored.putpalette(voc_palette())
        stored.save(root / "SegmentationClass" / f"{key}.png")
    listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    listing.write_text("".join(f"{key}\n" for key in labels))
    return root


LABELS = np.array([[0, 1, 15], [20, 255, 0]])


def test_palette_indices_are_the_labels_and_255_is_ignored(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"2007_000033": LABELS})
    [sample] = open_benchmark(BenchmarkConfig(name="voc21", root=root))
    assert sample.key == "2007_000033"
    assert sample.image.shape == (2, 3, 3)
    assert sample.labels.tolist() == [[0, 1, 15], [20, IGNORE_LABEL, 0]]


def test_without_background_the_labels_move_down_and_background_is_ignored(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": LABELS})
    [sample] = open_benchmark(BenchmarkConfig(name="voc20", root=root))
    ignored = IGNORE_LABEL
    assert sample.labels.tolist() == [[ignored, 0, 14], [19, ignored, ignored]]


def test_the_class_sets_of_pascal_voc_have_21_and_20_names(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": LABELS})
    with_background = open_benchmark(BenchmarkConfig(name="voc21", root=root))
    without = open_benchmark(BenchmarkConfig(name="voc20", root=root))
    assert scored_names(with_background.classes)[:2] == ("background", "aeroplane")
    assert len(scored_names(with_background.classes)) == 21
    assert scored_names(without.classes) == scored_names(with_background.classes)[1:]


def test_published_numbers_are_for_the_whole_official_split(tmp_path: Path) -> None:
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = [f"{index}\n" for index in range(1449)]
    (lists / "val.txt").write_text("".join(names))
    (lists / "train.txt").write_text("".join(names))
    (lists / "few.txt").write_text("".join(names[:-1]))

    def published(name: str = "voc21", **options: Any) -> str:
        config = BenchmarkConfig.model_validate({"name": name, "root": tmp_path, **options})
        return open_benchmark(config).published_as

    assert published() == published(limit=1449) == "PASCAL VOC"
    assert published("voc20") == "PASCAL VOC20 (no bg)"
    assert published(limit=1448) == published(split="train") == published(split="few") == ""


def test_the_drawn_benchmark_is_read_as_it_was_written(tmp_path: Path) -> None:
    drawn = DrawnBenchmarkConfig(num_train=1, num_val=6, num_test=1)
    root = write_benchmark(drawn, tmp_path / "b")
    benchmark = open_benchmark(BenchmarkConfig(name="miniature", root=root))
    assert len(benchmark) == 6
    expected = dict(scenes(drawn, "val"))
    for sample in benchmark:
        np.testing.assert_array_equal(sample.labels, draw_labels(expected[sample.key]))
    written = (root / "classes.txt").read_text().split()
    assert written == list(scored_names(benchmark.classes))


def test_a_limit_takes_images_from_the_whole_split(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {f"{i}": LABELS for i in range(10)})
    benchmark = open_benchmark(BenchmarkConfig(name="voc21", root=root, limit=4))
    assert [sample.key for sample in benchmark] == ["0", "2", "5", "7"]


def test_a_missing_split_is_named_with_the_place_where_it_is_had(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Segmentation/val\.txt is missing.*VOCtrainval_11-May"):
        open_benchmark(BenchmarkConfig(name="voc21", root=tmp_path))


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    write_voc(tmp_path, {})
    with pytest.raises(InputError, match="names no image"):
        open_benchmark(BenchmarkConfig(name="voc21", root=tmp_path))


def test_missing_files_are_listed_before_anything_is_scored(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": LABELS, "b": LABELS})
    benchmark = open_benchmark(BenchmarkConfig(name="voc21", root=root))
    assert benchmark.missing_files() == []
    benchmark.check()
    (root / "SegmentationClass" / "b.png").unlink()
    (root / "JPEGImages" / "a.jpg").unlink()
    assert [path.name for path in benchmark.missing_files()] == ["a.jpg", "b.png"]
    with pytest.raises(InputError, match=r"2 files .* missing: .*a\.jpg, .*b\.png; PASCAL VOC"):
        benchmark.check()


def test_an_image_missing_in_the_middle_is_named(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": LABELS})
    benchmark = open_benchmark(BenchmarkConfig(name="voc21", root=root))
    (root / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"a\.jpg is missing, though the split names it"):
        list(benchmark)


def test_a_label_out_of_range_is_named_with_its_file(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": np.array([[0, 21]])})
    with pytest.raises(DataError, match=r"a\.png holds the label 21, expected 0 to 20 or 255"):
        list(open_benchmark(BenchmarkConfig(name="voc21", root=root)))


def test_a_label_map_in_strange_colours_is_refused(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": LABELS})
    Image.new("RGB", (3, 2), "orange").save(root / "SegmentationClass" / "a.png")
    with pytest.raises(DataError, match=r"8-bit RGB with the colour \(255, 165, 0\) at row 0"):
        list(open_benchmark(BenchmarkConfig(name="voc21", root=root)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_label_maps_of_any_depth_hold_their_labels(tmp_path: Path, depth: int) -> None:
    labels = np.array([[0, 1, 1, 0, 1]]) * (2**depth - 1 if depth < 8 else 20)
    root = write_voc(tmp_path, {"a": labels})
    bits = np.unpackbits(labels.astype(np.uint8)[..., None], axis=2)[..., -depth:]
    header = struct.pack(">IIBBBBB", 5, 1, depth, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" + np.packbits(bits).tobytes())
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    (root / "SegmentationClass" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    [sample] = open_benchmark(BenchmarkConfig(name="voc21", root=root))
    assert sample.labels.tolist() == labels.tolist()


def test_a_label_map_of_16_bits_holds_labels_too(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": LABELS})
    Image.fromarray(LABELS.astype(np.uint16)).save(root / "SegmentationClass" / "a.png")
    [sample] = open_benchmark(BenchmarkConfig(name="voc21", root=root))
    assert sample.labels.tolist() == [[0, 1, 15], [20, IGNORE_LABEL, 0]]


DAMAGE = {
    "cut": (cut(0.6), "truncated|Truncated"),
    "a bomb": (always(png_of(60_000, 60_000)), "60000 x 60000 pixels, expected 1 to 80000000"),
    "a long text": (text_bomb(3 << 20), "Decompressed"),
    "a strange chunk": (with_chunk(b"\0\1\2\3", b""), "cannot identify"),
    "a page": (always(b"<!DOCTYPE html>"), "expected a JPEG or PNG signature"),
    "animated": (always(animated()), "animated"),
}


@pytest.mark.parametrize("folder", ["JPEGImages/a.jpg", "SegmentationClass/a.png"])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_hostile_picture_is_named(tmp_path: Path, case: str, folder: str) -> None:
    root = write_voc(tmp_path, {"a": np.zeros((16, 16))})
    change, words = DAMAGE[case]
    (root / folder).write_bytes(change(noise(64)))
    name = folder.rpartition("/")[2]
    with pytest.raises(DataError, match=rf"{name} cannot be decoded .*({words}).*fetch it again"):
        list(open_benchmark(BenchmarkConfig(name="voc21", root=root)))


def test_a_folder_in_place_of_a_picture_is_named(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": LABELS})
    (root / "SegmentationClass" / "a.png").unlink()
    (root / "SegmentationClass" / "a.png").mkdir()
    with pytest.raises(DataError, match=r"a\.png cannot be decoded .*directory"):
        list(open_benchmark(BenchmarkConfig(name="voc21", root=root)))


def test_a_label_map_of_another_size_is_refused(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": LABELS})
    Image.new("P", (5, 5)).save(root / "SegmentationClass" / "a.png")
    with pytest.raises(DataError, match=r"a\.png gives a labels of 5 x 5 pixels, expected 3 x 2"):
        list(open_benchmark(BenchmarkConfig(name="voc21", root=root)))


def test_a_cut_off_file_is_named(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": np.zeros((64, 64))})
    path = root / "JPEGImages" / "a.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.jpg cannot be decoded"):
        list(open_benchmark(BenchmarkConfig(name="voc21", root=root)))


def test_an_unknown_benchmark_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="'voc21', 'voc20', 'context60', 'context59', 'coco"):
        BenchmarkConfig.model_validate({"name": "coco", "root": tmp_path})


def test_options_of_lvis_are_refused_for_other_benchmarks(tmp_path: Path) -> None:
    options = {"images": "all"}
    with pytest.raises(ValidationError, match="benchmark voc21 has no such options: leave out"):
        BenchmarkConfig.model_validate({"name": "voc21", "root": tmp_path, "lvis": options})
    config = BenchmarkConfig.model_validate({"name": "lvis", "root": tmp_path, "lvis": options})
    assert config.lvis == LvisConfig(images="all")
    assert BenchmarkConfig(name="lvis", root=tmp_path).lvis == LvisConfig()
    plain = BenchmarkConfig(name="voc21", root=tmp_path)
    assert BenchmarkConfig.model_validate_json(plain.model_dump_json()) == plain


def test_a_list_that_names_an_image_twice_is_refused(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": LABELS})
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"val\.txt names a twice"):
        open_benchmark(BenchmarkConfig(name="voc21", root=root))


def test_a_doubled_name_is_found_in_a_list_of_any_length() -> None:
    names = [f"{number:012d}" for number in range(200_000)]
    began = time.process_time()
    with pytest.raises(DataError, match=f"names {names[-1]} twice"):
        listed_names("\n".join([*names, names[-1]]), "train.txt")
    assert time.process_time() - began < 20
