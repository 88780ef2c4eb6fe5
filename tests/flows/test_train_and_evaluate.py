import json

import pytest

from evaluation.benchmarks.contract import BenchmarkConfig
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from storage.errors import IncompleteError
from training.closed_sets.config import ClosedSetRequest

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def benchmark_folder(tmp_path):
    return write_benchmark(
        DrawnBenchmarkConfig(num_train=0, num_val=4, num_test=0), tmp_path / "benchmark"
    )


def test_a_student_is_trained_and_scored_once_and_a_page_tells_of_it(
    make, tmp_path, benchmark_folder
):
    from flows.train_and_evaluate import train_and_evaluate

    make(tmp_path / "d", samples=8, min_yield=0.0)
    parameters = {
        "dataset": str(tmp_path / "d"),
        "training": {"optimiser": {"steps": 3, "batch_size": 4}, "checkpoint_every": 2},
        "benchmarks": (BenchmarkConfig(root=benchmark_folder),),
        "closed_sets": (
            ClosedSetRequest(
                recipe="deeplabv3_miniature", classes="miniature", settings={"steps": 2}
            ),
        ),
        "min_shards": 2,
    }
    summary = train_and_evaluate(**parameters)
    assert (tmp_path / "d-run" / "report.html").read_text().startswith("<!doctype html>")
    assert {scores.subject.kind for scores in summary.scores} == {
        "student",
        "untrained",
        "baseline",
        "closed-set",
    }
    assert len(summary.executed) == 6
    rows = (tmp_path / "d-run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [0, 1, 2]
    again = train_and_evaluate(**parameters)
    assert again.executed == ()
    assert again.scores == summary.scores


def test_training_does_not_start_before_there_is_enough(make, tmp_path):
    from flows.train_and_evaluate import train_and_evaluate

    make(tmp_path / "d", shards="0", min_yield=0.0)
    with pytest.raises(IncompleteError, match=r"has 1 good shards .* 2 are wanted"):
        train_and_evaluate(dataset=str(tmp_path / "d"), min_shards=2)
    assert not (tmp_path / "d-run").exists()
