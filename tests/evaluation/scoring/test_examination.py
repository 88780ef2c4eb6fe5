"""All files of a split are opened before a pass, and its truth is looked at."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.folders import LabelFiles, LabelledImages, Origin
from evaluation.scoring.background import ScoreMap
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.scoring.examination import examine_files, require_sound
from evaluation.scoring.on_labels import measure
from evaluation.scoring.protocols import describe_protocol
from evaluation.scoring.results import Subject
from flows.score_tables import score_table
from storage.class_sets import load_benchmark
from storage.errors import DataError, InputError

CAT, DOG = (
    load_benchmark("voc21").names.index("cat") + 1,
    load_benchmark("voc21").names.index("dog") + 1,
)


def write(root: Path, maps: list[np.ndarray]) -> BenchmarkConfig:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for number, labels in enumerate(maps):
        picture = Image.fromarray(np.full((*labels.shape, 3), number % 256, np.uint8))
        picture.save(root / f"JPEGImages/i{number}.jpg")
        Image.fromarray(labels.astype(np.uint8)).save(root / f"SegmentationClass/i{number}.png")
    names = "".join(f"i{number}\n" for number in range(len(maps)))
    (root / "ImageSets/Segmentation/val.txt").write_text(names)
    return BenchmarkConfig(name="voc21", root=root)


def labels(*shown: int, void: float = 0.0) -> np.ndarray:
    found = np.zeros((10, 20), np.uint8)
    for column, label in enumerate(shown):
        found[:4, 3 * column : 3 * column + 3] = label
    found[4:].flat[: int(void * found.size)] = 255
    return found


class Nothing:
    """Finds background everywhere; counts what it is asked."""

    asked = 0

    def predict(self, image, candidates=None):
        self.asked += 1
        shape = image.shape[:2]
        return ScoreMap(np.zeros(shape, np.float32), np.zeros(shape, np.int32))


def score(benchmark, out, predictor=None):
    how = {"text": "names", "view": "whole", "preset": "", "threshold": 0.5}
    protocol = describe_protocol(
        benchmark, ScoringConfig(), background_rule=Background.CONSTANT, **how
    )
    subject = Subject(kind="student", name="it", fingerprint="f")
    return measure(
        predictor or Nothing(),
        benchmark,
        subject=subject,
        protocol=protocol,
        config=ScoringConfig(),
        out=out,
    )


def test_what_the_truth_shows_is_counted(tmp_path):
    config = write(tmp_path, [labels(CAT), labels(CAT, DOG, void=0.1), labels()])
    found = examine_files(open_benchmark(config))
    assert found.found == {"cat": 2, "dog": 1}
    assert (found.num_images, found.faults, found.warnings) == (3, (), ())
    assert found.void_share == pytest.approx(20 / 600)
    assert found.pixels.total() == 600


@pytest.mark.parametrize(
    "truth", [labels(255), labels(), labels(void=0.5)], ids=["masks", "background", "void"]
)
def test_a_truth_without_any_class_is_an_error_before_anything_is_predicted(truth, tmp_path):
    predictor = Nothing()
    benchmark = open_benchmark(write(tmp_path / "b", [truth] * 3))
    with pytest.raises(DataError, match="shows no class at all in 3 images"):
        score(benchmark, tmp_path / "out", predictor)
    assert predictor.asked == 0


def test_images_without_objects_among_others_are_no_fault(tmp_path):
    benchmark = open_benchmark(write(tmp_path / "b", [labels(), labels(CAT, DOG), labels()]))
    assert score(benchmark, tmp_path / "out").warnings == ()


def test_every_fault_is_found_before_anything_is_predicted(tmp_path):
    config = write(tmp_path / "b", [labels(CAT)] * 12)
    broken = {
        "SegmentationClass/i2.png": b"\x89PNG\r\n\x1a\n and no more",
        "JPEGImages/i5.jpg": (tmp_path / "b/JPEGImages/i5.jpg").read_bytes()[:300],
        "SegmentationClass/i11.png": b"",
    }
    for name, data in broken.items():
        (tmp_path / "b" / name).write_bytes(data)
    Image.new("L", (9, 9)).save(tmp_path / "b/SegmentationClass/i7.png")
    predictor, benchmark = Nothing(), open_benchmark(config)
    with pytest.raises(DataError, match="4 of 12 images cannot be scored") as refusal:
        score(benchmark, tmp_path / "out", predictor)
    assert predictor.asked == 0
    assert all(Path(name).name in str(refusal.value) for name in [*broken, "i7.png"])
    assert len(examine_files(benchmark).faults) == 4


def test_many_faults_are_counted_and_the_first_ones_named(tmp_path):
    config = write(tmp_path, [labels(CAT)] * 30)
    for number in range(30):
        (tmp_path / f"SegmentationClass/i{number}.png").write_bytes(b"?")
    with pytest.raises(DataError, match=r"30 of 30 images.*i9\.png.*and 20 more"):
        require_sound(open_benchmark(config))


def test_what_makes_a_number_doubtful_stands_beside_it(tmp_path):
    benchmark = open_benchmark(write(tmp_path / "b", [labels(CAT, void=0.55)] * 2))
    scores = score(benchmark, tmp_path / "out")
    assert scores.warnings == (
        "55% of the pixels are ignored by the truth",
        "the truth shows one class alone, cat",
    )
    shown = str(score_table([scores]).caption)
    assert "Beware, voc21 val: the truth shows one class alone, cat" in shown


def test_background_that_is_ignored_is_no_reason_to_doubt(tmp_path):
    config = write(tmp_path, [labels(CAT), labels(DOG)])
    without = open_benchmark(config.model_copy(update={"name": "voc20"}))
    found = examine_files(without)
    assert found.void_share > 0.9
    assert found.warnings == ()
    assert found.found == {"cat": 1, "dog": 1}


def test_of_a_split_that_is_not_whole_what_is_there_is_scored_and_its_share_said(tmp_path):
    config = write(tmp_path / "b", [labels(CAT, DOG)] * 8)
    (tmp_path / "b/JPEGImages/i3.jpg").unlink()
    (tmp_path / "b/SegmentationClass/i5.png").unlink()
    whole = open_benchmark(config)
    with pytest.raises(InputError, match="2 files"):
        score(whole, tmp_path / "out")
    part = open_benchmark(config.model_copy(update={"available": True}))
    assert len(part) == 6
    scores = score(part, tmp_path / "out")
    assert scores.protocol.num_images == 6
    assert "6 of 8 images (75 %)" in scores.protocol.truth
    assert "6 of 8 images (75 %)" in str(score_table([scores]).caption)


def test_a_whole_split_is_the_same_with_and_without_asking_for_what_is_there(tmp_path):
    config = write(tmp_path, [labels(CAT, DOG)] * 2)
    asked = open_benchmark(config.model_copy(update={"available": True}))
    assert asked.truth == open_benchmark(config).truth
    assert "available" not in config.identity()


def test_a_split_of_which_nothing_is_there_is_refused(tmp_path):
    config = write(tmp_path, [labels(CAT)] * 2)
    for path in (tmp_path / "JPEGImages").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="2 files of the split val are missing"):
        require_sound(open_benchmark(config.model_copy(update={"available": True})))


def test_an_interrupt_does_not_wait_for_all_other_files(tmp_path):
    config = write(tmp_path, [labels(CAT)] * 400)
    asked = []

    def decode(path):
        asked.append(path)
        if len(asked) == 50:
            raise KeyboardInterrupt
        time.sleep(0.001)
        return np.zeros((10, 20), np.uint16)

    layout = LabelFiles(tmp_path / "JPEGImages", tmp_path / "SegmentationClass", decode)
    keys = [f"i{number}" for number in range(400)]
    classes = load_benchmark("voc21")
    with pytest.raises(KeyboardInterrupt):
        examine_files(LabelledImages(config, classes, keys, layout, Origin("nowhere", "none")))
    assert len(asked) < 100
