"""One subject on one benchmark."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.config import InferenceConfig, ScoringConfig
from evaluation.scoring.point_results import PointScores
from models.miniature.world import CLASSES, masks, render, sample_scene
from models.profiles import load_profile
from tasks.measuring import find_scores
from tasks.scores import ScoreJob, describe_subject, main, run_job


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


def job(run: Path, folder: Path, kind: str, **scoring: Any) -> ScoreJob:
    profile = load_profile("miniature")
    scoring.setdefault("inference", InferenceConfig(short_side=64, window=None))
    return ScoreJob.model_validate(
        {
            "kind": kind,
            "run": str(run),
            "student": profile.student,
            "detector": profile.detector,
            "segmenter": profile.segmenter,
            "benchmark": BenchmarkConfig(name="open_images", root=folder),
            "scoring": ScoringConfig.model_validate({"templates": "single", **scoring}),
            "device": "cpu",
        }
    )


def test_students_and_baselines_are_scored_on_points(tmp_path: Path, points: Path) -> None:
    baseline, untrained = (
        run_job(job(tmp_path, points, kind)) for kind in ("baseline", "untrained")
    )
    assert isinstance(baseline, PointScores)
    assert isinstance(untrained, PointScores)
    assert baseline.p_miou > 0.8 > untrained.p_miou
    assert baseline.subject.details["box threshold"] == "0.3"


def test_what_was_measured_on_points_is_found_under_the_same_settings(
    tmp_path: Path, points: Path
) -> None:
    wanted = job(tmp_path, points, "untrained")
    subject = describe_subject(wanted)
    assert find_scores(wanted, subject) is None
    measured = run_job(wanted)
    assert find_scores(wanted, subject) == measured
    other = job(tmp_path, points, "untrained", points={"candidates": "asked"})
    assert find_scores(other, subject) is None


def test_a_scores_file_of_another_shape_is_measured_again(
    tmp_path: Path, points: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = job(tmp_path, points, "untrained")
    wanted.folder.mkdir(parents=True)
    (wanted.folder / "scores-open_images-val-older.json").write_text('{"miou": 1}')
    assert find_scores(wanted, describe_subject(wanted)) is None
    assert "scores-open_images-val-older.json holds no scores" in caplog.text


def test_a_job_from_a_file_says_what_is_missing(
    tmp_path: Path, points: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = job(tmp_path / "run", tmp_path / "nowhere", "untrained")
    file = tmp_path / "job.json"
    file.write_text(wanted.model_dump_json())
    assert main(["--config", str(file)]) == 2
    assert "oidv7-class-descriptions.csv missing; fetch https://" in capsys.readouterr().err
