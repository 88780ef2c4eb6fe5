"""Scores of students and of the baseline, with their protocol."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig, BenchmarkSample, scored_names
from evaluation.benchmarks.voc import open_voc
from evaluation.scoring.background import ScoreMap
from evaluation.scoring.config import Background, InferenceConfig, ScoringConfig
from evaluation.scoring.measured import read_measured
from evaluation.scoring.metrics import Average
from evaluation.scoring.on_labels import score_baseline, score_predictor, score_student
from evaluation.scoring.results import ScoreProtocol, Scores, Subject, published_results
from models.labellers import Grounded
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.miniature.world import CLASSES
from models.protocols import CutMasks, FoundBoxes
from storage.class_sets import load_benchmark
from storage.codecs import decode_label_map
from storage.errors import InputError

DRAWN = DrawnBenchmarkConfig(num_train=0, num_val=12, num_test=0)
SUBJECT = Subject(kind="student", name="the student", fingerprint="f" * 64)
RARE = 12


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    root = write_benchmark(DRAWN, tmp_path / "drawn")
    return open_voc(BenchmarkConfig(name="miniature", root=root))


class Oracle:
    """Knows the truth of the images, in order; sure of it by `confidence`."""

    def __init__(self, benchmark: Benchmark, confidence: float = 0.9) -> None:
        self.truths = iter([sample.labels for sample in benchmark])
        self.confidence = confidence

    def predict(self, image: np.ndarray, candidates: Sequence[int] | None = None) -> ScoreMap:
        truth = next(self.truths).astype(np.int32)
        best = np.where(truth > 0, self.confidence, 0.1).astype(np.float32)
        return ScoreMap(best, np.maximum(truth - 1, 0))


class ColourStudent:
    """A student with one weight: how strongly patches that look like the text stand out."""

    patch_size = 8
    training = True

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels / 255.0 - 0.5

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F.avg_pool2d(image, 8), image.mean(dim=(2, 3))

    def scores(self, patches: torch.Tensor, cls: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return torch.einsum("behw,ce->bchw", patches, text)

    def eval(self) -> object:
        self.training = False
        return self


class SpellingEncoder:
    """Embeds a text by its letters; keeps what it was asked for."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        self.texts.extend(texts)
        rows = [[text.count("a"), text.count("e"), text.count("o") + 0.1] for text in texts]
        return F.normalize(torch.tensor(rows), dim=-1)


def run_student(
    benchmark: Benchmark, out: Path, *, subject: Subject = SUBJECT, **options: object
) -> tuple[Scores, SpellingEncoder]:
    encoder = SpellingEncoder()
    options.setdefault("inference", InferenceConfig(short_side=64, window=None))
    config = ScoringConfig.model_validate(options)
    scores = score_student(
        ColourStudent(),
        encoder,
        benchmark,
        subject=subject,
        config=config,
        out=out,
    )
    return scores, encoder


def run_oracle(benchmark: Benchmark, out: Path, confidence: float = 0.9) -> Scores:
    student, _ = run_student(benchmark, out / "for-the-protocol")
    return score_predictor(
        Oracle(benchmark, confidence),
        benchmark,
        subject=SUBJECT,
        protocol=student.protocol,
        config=ScoringConfig(thresholds=(0.2, 0.5, 0.95), num_examples=3),
        out=out,
    )


def test_the_truth_itself_scores_one(benchmark: Benchmark, tmp_path: Path) -> None:
    scores = run_oracle(benchmark, tmp_path)
    assert scores.miou == scores.pixel_accuracy == scores.foreground_miou == 1
    assert scores.protocol.num_images == 12
    shown = {row.name for row in scores.classes if row.true_pixels}
    assert {row.name for row in scores.classes if row.iou == 1} == shown
    assert all(row.iou is None for row in scores.classes if row.name not in shown)


def test_the_curve_shows_where_the_threshold_is_too_high(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    scores = run_oracle(benchmark, tmp_path)
    assert [point.threshold for point in scores.curve] == [0.2, 0.5, 0.95]
    assert [point.miou for point in scores.curve][:2] == [1, 1]
    background = sum(row.true_pixels for row in scores.classes if row.name == "background")
    total = sum(row.true_pixels for row in scores.classes)
    assert scores.curve[2].pixel_accuracy == pytest.approx(background / total)


def test_the_point_of_the_curve_at_the_threshold_is_the_score(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    scores, _ = run_student(benchmark, tmp_path, thresholds=(0.4, 0.5, 0.6))
    assert 0 < scores.miou < 1
    assert scores.curve[1].miou == pytest.approx(scores.miou)
    assert scores.curve[1].pixel_accuracy == pytest.approx(scores.pixel_accuracy)


def test_every_number_stands_with_its_whole_protocol(benchmark: Benchmark, tmp_path: Path) -> None:
    scores, _ = run_student(benchmark, tmp_path)
    written = json.loads((tmp_path / scores.file_name).read_text())
    assert scores.file_name == "scores-miniature-val-the-student.json"
    assert written["protocol"] == {
        "benchmark": "miniature",
        "split": "val",
        "num_images": 12,
        "truth": "exact masks of the drawn objects",
        "class_names": ["background", *CLASSES],
        "background": True,
        "background_rule": "raw",
        "threshold": 0.5,
        "text": "preferred names in the templates zegclip_multi15",
        "view": "short side 64, long side at most 2048, whole image",
        "average": "classes that occur in the truth or the prediction",
        "unseen": [],
        "seen_offset": 0.0,
        "preset": "",
        "preset_changes": [],
        "preset_omits": [],
    }
    assert read_measured(tmp_path / scores.file_name) == scores


def test_the_student_is_scored_in_evaluation_mode_with_the_templates_asked_for(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    student = ColourStudent()
    encoder = SpellingEncoder()
    score_student(
        student,
        encoder,
        benchmark,
        subject=SUBJECT,
        config=ScoringConfig(templates="single"),
        out=tmp_path,
    )
    assert not student.training
    assert encoder.texts == [f"a photo of a {name}." for name in CLASSES]


def test_scoring_twice_gives_the_same_numbers(benchmark: Benchmark, tmp_path: Path) -> None:
    first, _ = run_student(benchmark, tmp_path / "a")
    second, _ = run_student(benchmark, tmp_path / "b")
    changing = {"seconds": 0.0, "created": ""}
    assert first.model_copy(update=changing) == second.model_copy(update=changing)


def test_label_maps_of_some_images_are_kept_for_the_report(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    scores = run_oracle(benchmark, tmp_path)
    assert [example.key for example in scores.examples] == [
        "val_000000",
        "val_000004",
        "val_000008",
    ]
    truths = {sample.key: sample.labels for sample in benchmark}
    for example in scores.examples:
        truth = decode_label_map((tmp_path / example.truth).read_bytes())
        prediction = decode_label_map((tmp_path / example.prediction).read_bytes())
        np.testing.assert_array_equal(truth, truths[example.key])
        np.testing.assert_array_equal(prediction, truth)


class CatDetector:
    """Finds a cat in the upper half of every image."""

    def detect(
        self, images: Sequence[np.ndarray], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        cat = phrases[0].index("cat")
        box = np.array([[0, 0, 64, 32]], np.float32)
        best = np.zeros(len(phrases[0]), np.float32)
        return [FoundBoxes(box, np.array([0.6], np.float32), np.array([cat]), best)]


class BoxFiller:
    """Cuts the box itself."""

    def segment(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[CutMasks]:
        masks = np.zeros((1, *images[0].shape[:2]), dtype=bool)
        masks[:, :32] = True
        return [CutMasks(masks, np.ones(1, np.float32))]


def test_the_baseline_is_scored_by_the_same_code(benchmark: Benchmark, tmp_path: Path) -> None:
    subject = Subject(kind="baseline", name="boxes", fingerprint="none")
    scores = score_baseline(
        Grounded(CatDetector(), BoxFiller()),
        benchmark,
        subject=subject,
        config=ScoringConfig(),
        out=tmp_path,
    )
    predicted = np.zeros((64, 64), dtype=int)
    predicted[:32] = CLASSES.index("cat") + 1
    truths = [sample.labels for sample in benchmark]
    cat = predicted == CLASSES.index("cat") + 1
    true_cats = [truth == CLASSES.index("cat") + 1 for truth in truths]
    expected = sum((cat & t).sum() for t in true_cats) / sum((cat | t).sum() for t in true_cats)
    found = {row.name: row.iou for row in scores.classes}
    assert found["cat"] == pytest.approx(float(expected))
    assert scores.protocol.background_rule is Background.CONSTANT
    assert scores.protocol.text == "preferred names as the detector's phrases"
    points = {point.threshold: point for point in scores.curve}
    assert points[0.55].miou == pytest.approx(scores.miou)
    background = np.mean([truth == 0 for truth in truths])
    assert points[0.65].pixel_accuracy == pytest.approx(float(background))


def test_published_numbers_stand_only_beside_the_benchmark_they_were_reported_on(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    assert run_student(benchmark, tmp_path)[0].published == ()
    rows = published_results("PASCAL VOC")
    voc = {(row.method, row.table): row.value for row in rows}
    assert voc["MagicSeg", "I"] == 62.9
    assert voc["Grounding DINO + SAM", "I"] == 61.8
    values = [row.value for row in rows]
    assert values == sorted(values, reverse=True)
    assert published_results("") == ()


def test_missing_files_stop_the_pass_before_the_first_image(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    (tmp_path / "drawn" / "SegmentationClass" / "val_000011.png").unlink()
    with pytest.raises(InputError, match=r"val_000011\.png"):
        run_student(benchmark, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class OneImage:
    """One LVIS image of four pixels: background and three classes, none of them rare."""

    split = "val"
    truth = "made by hand"
    published_as = ""
    coverage = ""
    classes = load_benchmark("lvis")

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[BenchmarkSample]:
        labels = np.array([[0, 1, 255, 1203]], np.uint16)
        yield BenchmarkSample(
            "one", np.zeros((1, 4, 3), np.uint8), labels, candidates=(0, RARE, 254)
        )

    @property
    def keys(self) -> list[str]:
        return ["one"]

    def sample(self, key: str) -> BenchmarkSample:
        return next(iter(self))

    def missing_files(self) -> list[Path]:
        return []

    def contents(self) -> str:
        return "one"

    def check(self) -> None:
        return


class Fixed:
    """Predicts class 254 on two pixels and a rare one on another; keeps the candidates."""

    candidates: Sequence[int] | None = None

    def predict(self, image: np.ndarray, candidates: Sequence[int] | None = None) -> ScoreMap:
        self.candidates = candidates
        best = np.array([[0.1, 0.9, 0.9, 0.6]], np.float32)
        return ScoreMap(best, np.array([[RARE, 254, 254, RARE]], np.int32))


@pytest.mark.parametrize(
    ("average", "miou", "groups"),
    [
        (
            Average.OCCURRING,
            (1 + 0 + 0.5 + 0 + 0) / 5,
            {"rare": (1, 0.0), "common": (2, 0.0), "frequent": (1, 0.5)},
        ),
        (
            Average.TRUE,
            (1 + 0 + 0.5 + 0) / 4,
            {"rare": (0, None), "common": (2, 0.0), "frequent": (1, 0.5)},
        ),
        (
            Average.ALL,
            1.5 / 1204,
            {"rare": (337, 0.0), "common": (461, 0.0), "frequent": (405, 0.5 / 405)},
        ),
    ],
)
def test_lvis_is_averaged_over_its_frequencies_too(
    tmp_path: Path,
    average: Average,
    miou: float,
    groups: dict[str, tuple[int, float | None]],
) -> None:
    predictor = Fixed()
    benchmark = OneImage()
    config = ScoringConfig(average=average)
    protocol = ScoreProtocol(
        benchmark="lvis",
        split="val",
        num_images=1,
        truth="made by hand",
        class_names=scored_names(benchmark.classes),
        background=True,
        background_rule=Background.RAW,
        threshold=0.5,
        text="",
        view="",
    )
    scores = score_predictor(
        predictor, benchmark, subject=SUBJECT, protocol=protocol, config=config, out=tmp_path
    )
    assert predictor.candidates == (0, RARE, 254)
    assert scores.miou == pytest.approx(miou)
    assert scores.classes[255].iou == pytest.approx(1 / 2)
    found = {group.name: (group.num_classes, group.miou) for group in scores.groups}
    assert found == {name: (count, _about(miou)) for name, (count, miou) in groups.items()}


def _about(value: float | None) -> object:
    return None if value is None else pytest.approx(value)


def test_other_class_sets_have_no_frequencies(benchmark: Benchmark, tmp_path: Path) -> None:
    assert run_oracle(benchmark, tmp_path).groups == ()
