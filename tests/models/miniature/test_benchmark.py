"""The drawn benchmark in VOC layout."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.miniature.benchmark import (
    DrawnBenchmarkConfig,
    draw_labels,
    scenes,
    unseen_combinations,
    voc_palette,
    write_benchmark,
)
from models.miniature.world import BACKGROUNDS, CLASSES, masks
from storage.errors import InputError

SMALL = DrawnBenchmarkConfig(seed=3, num_train=6, num_val=5, num_test=7)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_layout_is_that_of_pascal_voc(tmp_path: Path) -> None:
    root = write_benchmark(SMALL, tmp_path / "b")
    for split, count in (("train", 6), ("val", 5), ("test", 7)):
        names = (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        assert len(names) == count
        for name in names:
            with Image.open(root / "JPEGImages" / f"{name}.jpg") as image:
                assert image.size == (64, 64)
            with Image.open(root / "SegmentationClass" / f"{name}.png") as labels:
                assert (labels.mode, labels.size) == ("P", (64, 64))
    assert (root / "classes.txt").read_text().split("\n")[:2] == ["background", CLASSES[0]]


def test_the_label_png_holds_the_exact_masks_as_indices(tmp_path: Path) -> None:
    root = write_benchmark(SMALL, tmp_path / "b")
    checked = 0
    for name, scene in scenes(SMALL, "val"):
        stored = np.asarray(Image.open(root / "SegmentationClass" / f"{name}.png"))
        for thing, mask in zip(scene.things, masks(scene), strict=True):
            assert (stored[mask] == thing.class_id + 1).all()
            checked += 1
        assert (stored == draw_labels(scene)).all()
    assert checked >= 3


def test_the_test_split_shows_classes_only_where_the_others_never_do() -> None:
    config = DrawnBenchmarkConfig(seed=1, num_train=300, num_val=300, num_test=300)
    shown = {
        split: {(t.class_id, s.background) for _, s in scenes(config, split) for t in s.things}
        for split in ("train", "val", "test")
    }
    assert shown["test"] == unseen_combinations(1)
    assert not shown["test"] & (shown["train"] | shown["val"])
    assert {c for c, _ in shown["test"]} == set(range(len(CLASSES)))
    assert {c for c, _ in shown["train"]} == set(range(len(CLASSES)))


def test_every_class_is_kept_from_exactly_one_background() -> None:
    pairs = unseen_combinations(0)
    assert sorted(c for c, _ in pairs) == list(range(len(CLASSES)))
    assert {place for _, place in pairs} == set(BACKGROUNDS)
    assert unseen_combinations(0) != unseen_combinations(2)


def test_the_splits_have_one_two_and_no_objects_in_the_shares_asked_for() -> None:
    config = DrawnBenchmarkConfig(num_val=400, two_share=0.25, empty_share=0.15)
    counts = np.bincount([len(s.things) for _, s in scenes(config, "val")], minlength=3) / 400
    assert counts == pytest.approx([0.15, 0.6, 0.25], abs=0.06)


def test_the_same_configuration_gives_the_same_bytes_and_another_seed_others(
    tmp_path: Path,
) -> None:
    first = digests(write_benchmark(SMALL, tmp_path / "a"))
    assert digests(write_benchmark(SMALL, tmp_path / "b")) == first
    other = digests(write_benchmark(SMALL.model_copy(update={"seed": 4}), tmp_path / "c"))
    assert other["SegmentationClass/val_000000.png"] != first["SegmentationClass/val_000000.png"]


def test_a_benchmark_that_is_there_is_left_alone(tmp_path: Path) -> None:
    root = write_benchmark(SMALL, tmp_path / "b")
    image = root / "JPEGImages" / "val_000000.jpg"
    before = image.stat().st_mtime_ns
    write_benchmark(SMALL, root)
    assert image.stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_folder_with_another_benchmark_is_refused(tmp_path: Path) -> None:
    root = write_benchmark(SMALL, tmp_path / "b")
    with pytest.raises(InputError, match=r"holds another benchmark.*name another folder"):
        write_benchmark(SMALL.model_copy(update={"hard": 0.9}), root)


def test_the_palette_is_the_one_of_pascal_voc() -> None:
    palette = np.array(voc_palette()).reshape(256, 3).tolist()
    assert palette[1] == [128, 0, 0]
    assert palette[15] == [192, 128, 128]
    assert palette[20] == [0, 64, 128]
    assert palette[255] == [224, 224, 192]


def test_the_module_writes_the_benchmark_from_the_command_line(tmp_path: Path) -> None:
    options = ["--num-train", "1", "--num-val", "2", "--num-test", "1", "--hard", "0.25"]
    module = [sys.executable, "-m", "models.miniature.benchmark", "--out", str(tmp_path / "b")]
    subprocess.run([*module, *options], check=True, cwd=Path(__file__).parents[3])
    assert len(list((tmp_path / "b" / "JPEGImages").iterdir())) == 4


def test_the_command_says_in_one_line_why_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    module = [sys.executable, "-m", "models.miniature.benchmark", "--out", str(tmp_path)]
    place = Path(__file__).parents[3]
    done = subprocess.run(module, check=False, cwd=place, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} holds another benchmark (no benchmark.json)")
    assert done.stderr.count("\n") == 1
