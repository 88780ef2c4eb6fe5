"""One subject on one benchmark."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.config import InferenceConfig, ScoringConfig
from evaluation.scoring.measured import Measured
from evaluation.scoring.point_results import PointScores
from evaluation.scoring.presets import preset_settings
from evaluation.scoring.results import Scores
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.miniature.world import CLASSES, masks, render, sample_scene
from models.profiles import load_profile
from storage.errors import DataError, LeaseHeldError
from storage.identity import digest
from storage.locks import hold_folder
from tasks.imports import ImportJob, RealImport
from tasks.scoring import ScoreJob, Scoring, main
from tasks.steps import work_in_child
from tasks.subjects import TrainedStudent
from training.checkpoints import Checkpoint, save_checkpoint
from training.config import OptimiserConfig, TrainingConfig, ZeroShotConfig
from training.loop import train_student


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes in the layout of Open Images: a yes on each thing, a no in each corner."""
    root = tmp_path_factory.mktemp("points")
    (root / "validation").mkdir()
    rng = np.random.default_rng(1)
    rows = ["ImageId,X,Y,Label,EstimatedYesNo"]
    for index in range(6):
        scene = sample_scene(rng, num_things=1, class_ids=[index])
        Image.fromarray(render(scene)).save(root / "validation" / f"{index}.jpg", quality=95)
        [mask] = masks(scene)
        inside = np.argwhere(mask)
        y, x = (inside[len(inside) // 2] + 0.5) / 64
        rows.append(f"{index},{x},{y},/m/{index},yes")
        rows += [f"{index},{x},{y},/m/{index},no" for x in (0, 1) for y in (0, 1)]
    table = "\n".join(rows) + "\n"
    (root / "oidv7-val-annotations-point-labels.csv").write_text(table)
    names = ["LabelName,DisplayName", *(f"/m/{i},{name}" for i, name in enumerate(CLASSES))]
    (root / "oidv7-class-descriptions.csv").write_text("\n".join(names) + "\n")
    return root


def subject(kind: str, seed: int = 0) -> dict[str, Any]:
    profile = load_profile("miniature")
    if kind == "untrained":
        return {"kind": kind, "student": profile.student, "seed": seed}
    return {
        "kind": kind,
        "labeller": profile.labeller,
    }


def job(run: Path, benchmark: BenchmarkConfig, kind: str = "untrained", **scoring: Any) -> ScoreJob:
    scoring.setdefault("inference", InferenceConfig(short_side=64, window=None))
    return ScoreJob.model_validate(
        {
            "subject": subject(kind),
            "out": str(run),
            "benchmark": benchmark,
            "scoring": ScoringConfig.model_validate({"templates": "single", **scoring}),
            "device": "cpu",
        }
    )


def on_points(folder: Path) -> BenchmarkConfig:
    return BenchmarkConfig(name="open_images", root=folder)


def measured_files(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.rglob("scores-*.json")}


def test_students_and_baselines_are_scored_on_points(tmp_path: Path, points: Path) -> None:
    baseline, untrained = (
        Scoring(job(tmp_path, on_points(points), kind)).work() for kind in ("baseline", "untrained")
    )
    assert isinstance(baseline, PointScores)
    assert isinstance(untrained, PointScores)
    assert baseline.p_miou > 0.8 > untrained.p_miou
    assert baseline.subject.details["box threshold"] == "0.3"


def test_what_was_measured_on_points_is_found_under_the_same_settings(
    tmp_path: Path, points: Path
) -> None:
    wanted = job(tmp_path, on_points(points))
    assert Scoring(wanted).find() is None
    measured = Scoring(wanted).work()
    assert Scoring(wanted).find() == measured
    other = job(tmp_path, on_points(points), points={"candidates": "asked"})
    assert Scoring(other).find() is None


def test_a_scores_file_of_another_shape_is_measured_again(
    tmp_path: Path, points: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = Scoring(job(tmp_path, on_points(points)))
    wanted.folder.mkdir(parents=True)
    (wanted.folder / "scores-open_images-val-older.json").write_text('{"miou": 1}')
    assert wanted.find() is None
    assert "scores-open_images-val-older.json holds no scores" in caplog.text


def test_a_job_from_a_file_says_what_is_missing(
    tmp_path: Path, points: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = job(tmp_path / "run", on_points(tmp_path / "nowhere"))
    file = tmp_path / "job.json"
    file.write_text(wanted.model_dump_json())
    assert main(["--config", str(file)]) == 2
    assert "oidv7-class-descriptions.csv missing; fetch https://" in capsys.readouterr().err


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    return draw(tmp_path / "drawn", seed=0)


def draw(root: Path, seed: int) -> Path:
    return write_benchmark(
        DrawnBenchmarkConfig(num_train=0, num_val=3, num_test=0, seed=seed), root
    )


def test_the_spelling_of_a_benchmarks_path_is_no_part_of_what_it_is(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    first = Scoring(job(run, BenchmarkConfig(root=Path("drawn")))).work()
    files = measured_files(run)
    (tmp_path / "link").symlink_to(drawn)
    for spelling in (drawn, Path("run/../drawn"), tmp_path / "link"):
        assert Scoring(job(run, BenchmarkConfig(root=spelling))).work() == first
    assert measured_files(run) == files
    assert len(files) == 1


def test_a_benchmark_that_was_moved_is_the_same_and_another_one_is_not(
    tmp_path: Path, drawn: Path
) -> None:
    run = tmp_path / "run"
    first = Scoring(job(run, BenchmarkConfig(root=drawn))).work()
    moved = drawn.rename(tmp_path / "moved")
    assert Scoring(job(run, BenchmarkConfig(root=moved))).find() == first
    # The same names of images and as many of them, but other drawings.
    other = draw(tmp_path / "drawn", seed=1)
    scoring = Scoring(job(run, BenchmarkConfig(root=other)))
    assert scoring.find() is None
    assert scoring.work().benchmark_digest != first.benchmark_digest
    assert len(measured_files(run)) == 2


def as_before(wanted: ScoreJob, folder: str) -> Measured:
    """Measure, and leave the scores as earlier versions did: in another folder, less told."""
    scoring = Scoring(wanted)
    measured = scoring.work().model_copy(update={"benchmark_digest": ""})
    [file] = scoring.folder.glob("scores-*.json")
    document = json.loads(file.read_bytes())
    del document["benchmark_digest"]
    file.write_text(json.dumps(document))
    scoring.folder.rename(scoring.folder.with_name(folder))
    return measured


def test_scores_of_an_earlier_version_are_found_under_the_name_that_their_folder_had(
    tmp_path: Path, points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.chdir(points.parent)
    wanted = job(run, on_points(Path(points.name)))
    old = digest([wanted.benchmark, wanted.scoring.identity()])[:8]
    measured = as_before(wanted, old)
    assert Scoring(wanted).find() == measured
    assert Scoring(job(run, on_points(points))).find() == measured
    # Nothing says that points elsewhere are the same.
    (run / "scores" / old).rename(run / "scores" / "elsewhere")
    assert Scoring(wanted).find() is None


def test_scores_of_an_earlier_version_are_found_by_the_label_maps_that_they_keep(
    tmp_path: Path, drawn: Path
) -> None:
    run = tmp_path / "run"
    measured = as_before(job(run, BenchmarkConfig(root=drawn)), "f8c60c7e")
    moved = drawn.rename(tmp_path / "moved")
    assert Scoring(job(run, BenchmarkConfig(root=moved))).find() == measured
    other = draw(tmp_path / "other", seed=1)
    assert Scoring(job(run, BenchmarkConfig(root=other))).find() is None
    [truth] = (run / "scores" / "f8c60c7e").rglob("val_000000.truth.png")
    truth.write_bytes(b"no picture")
    assert Scoring(job(run, BenchmarkConfig(root=moved))).find() is None


def test_other_settings_are_measured_apart_and_those_that_change_nothing_are_not(
    tmp_path: Path, drawn: Path
) -> None:
    run, benchmark = tmp_path / "run", BenchmarkConfig(root=drawn)
    first = Scoring(job(run, benchmark)).work()
    faster = InferenceConfig(short_side=64, window=None, batch_size=2, class_chunk=3)
    assert Scoring(job(run, benchmark, inference=faster)).find() == first
    for changes in (
        {"inference": InferenceConfig(short_side=64, window=None, threshold=0.25)},
        {"thresholds": (0.5,)},
        {"num_examples": 1},
    ):
        assert Scoring(job(run, benchmark, **changes)).find() is None
    fewer = benchmark.model_copy(update={"limit": 2})
    assert Scoring(job(run, fewer)).find() is None


def test_two_who_score_in_one_folder_exclude_each_other_and_the_second_takes_what_is_made(
    tmp_path: Path, drawn: Path
) -> None:
    wanted = job(tmp_path / "run", BenchmarkConfig(root=drawn))
    first, second = Scoring(wanted), Scoring(wanted)
    assert first.find() is None
    assert second.find() is None
    with hold_folder(first.folder), pytest.raises(LeaseHeldError, match=str(first.folder)):
        second.work()
    measured = first.work()
    files = measured_files(tmp_path)
    assert second.work() == measured
    assert measured_files(tmp_path) == files


def test_a_child_and_this_process_measure_the_same_and_find_each_others_scores(
    tmp_path: Path, drawn: Path
) -> None:
    wanted = job(tmp_path / "run", BenchmarkConfig(root=drawn))
    measured = work_in_child(Scoring(wanted))
    assert Scoring(wanted).work() == measured
    wanted = job(tmp_path / "run", BenchmarkConfig(root=drawn), num_examples=1)
    scoring = Scoring(wanted)
    with (
        hold_folder(scoring.folder),
        pytest.raises(LeaseHeldError, match=f"at work in {scoring.folder}"),
    ):
        work_in_child(scoring)


def test_a_damaged_benchmark_is_the_same_error_in_a_child_as_in_this_process(
    tmp_path: Path, drawn: Path
) -> None:
    wanted = job(tmp_path / "run", BenchmarkConfig(root=drawn))
    (drawn / "JPEGImages" / "val_000001.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError) as here:
        Scoring(wanted).work()
    with pytest.raises(DataError) as there:
        work_in_child(Scoring(wanted))
    assert type(there.value) is type(here.value)
    assert str(there.value) == str(here.value)


@pytest.mark.parametrize(
    ("left_out", "known", "without"),
    [
        (("miniature11_3",), "none", "cactus, cup, rocket"),
        (("cup",), "cactus, rocket", "cup"),
    ],
)
def test_what_a_student_knows_of_the_unseen_classes_stands_with_its_name(
    tmp_path: Path, left_out: tuple[str, ...], known: str, without: str
) -> None:
    drawn = DrawnBenchmarkConfig(num_train=14, num_val=2, num_test=0)
    root, run = write_benchmark(drawn, tmp_path / "drawn"), tmp_path / "run"
    train = BenchmarkConfig(name="miniature", root=root, split="train")
    imported = RealImport(
        ImportJob(benchmark=train, vocabulary="miniature", imports=str(tmp_path / "imports"))
    ).work()
    train_student(
        TrainingConfig(
            dataset=str(imported),
            out=str(run),
            vocabulary="miniature",
            student=load_profile("miniature").student,
            zero_shot=ZeroShotConfig(left_out=left_out),
            classes_per_image=4,
            optimiser=OptimiserConfig(steps=1, batch_size=2),
            threads=0,
            device="cpu",
        )
    )
    scores = Scoring(
        ScoreJob(
            subject=TrainedStudent(run=str(run)),
            out=str(run),
            benchmark=BenchmarkConfig(name="miniature14", root=root),
            scoring=ScoringConfig.model_validate(
                preset_settings("miniature_zero_shot", "miniature14")
            ),
            device="cpu",
        )
    ).work()
    assert isinstance(scores, Scores)
    assert scores.subject.details["unseen classes that it was trained on"] == known
    assert scores.subject.details["trained without"] == without
    assert [group.name for group in scores.groups] == ["seen", "unseen", "harmonic mean"]


def test_what_a_student_is_is_read_from_its_record_alone(tmp_path: Path) -> None:
    meta = {"config": {"seed": 3, "student": {"clip": "not/there"}}, "clip": "sha256:0"}
    weights = {"a": torch.zeros(1)}
    path = save_checkpoint(tmp_path / "checkpoints", Checkpoint(5, meta, weights, None, {}), keep=1)
    described = TrainedStudent(run=str(tmp_path)).describe()
    assert described.fingerprint == f"{digest(meta)}@5"
    assert described.details == {"steps": "5", "seed": "3"}
    (path / "student.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"student\.safetensors is 3 bytes, expected"):
        TrainedStudent(run=str(tmp_path)).describe()
    record = json.loads((path / "checkpoint.json").read_bytes())
    record["meta"]["config"]["seed"] = 4
    (path / "checkpoint.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="its contents have the fingerprint"):
        TrainedStudent(run=str(tmp_path)).describe()
