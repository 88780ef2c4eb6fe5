"""What a training run shows in Prefect's user interface."""

import time

import pytest

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.config import Background
from evaluation.scoring.results import (
    GroupScore,
    PublishedResult,
    PublishedSplit,
    ScoreProtocol,
    Scores,
    Subject,
)
from flows.drawn_benchmarks import draw_missing_benchmarks
from flows.score_tables import score_table
from flows.training_page import score_rows
from storage.metrics import METRICS_FILE, last_metrics

OTHERS = tuple(
    PublishedResult(table="III", method=name, value=value, notes="")
    for name, value in (("best", 60.2), ("next", 55.0))
)


def measured(kind, benchmark, published=()):
    protocol = ScoreProtocol(
        benchmark=benchmark,
        split="val",
        num_images=3,
        truth="made by hand",
        class_names=("background", "cat"),
        background=True,
        background_rule=Background.CONSTANT,
        threshold=0.4,
        text="names",
        view="whole",
    )
    return Scores(
        subject=Subject(kind=kind, name=f"the {kind}", fingerprint="f"),
        protocol=protocol,
        miou=0.25,
        foreground_miou=None,
        pixel_accuracy=0.75,
        classes=(),
        curve=(),
        published=published,
        examples=(),
        seconds=1.0,
        created="",
        engine_version="",
    )


def test_published_numbers_stand_once_behind_what_was_measured_and_are_marked():
    kinds = ("student", "untrained", "baseline", "closed-set")
    rows = score_rows(
        [*(measured(kind, "voc21", OTHERS) for kind in kinds), measured("student", "x")]
    )
    assert [(row["benchmark"], row["percent"], row["source"]) for row in rows] == [
        *[("voc21 val", "25.0", "measured")] * 4,
        ("voc21", "60.2", "published"),
        ("voc21", "55.0", "published"),
        ("x val", "25.0", "measured"),
    ]
    assert [row["subject"] for row in rows][3:6] == ["the closed-set", "best", "next"]


def test_means_over_groups_of_classes_stand_beside_the_published_ones():
    split = PublishedSplit(
        table="EXT", method="ZegCLIP", values={"seen": 91.9, "unseen": 77.8}, notes=""
    )
    groups = (
        GroupScore(name="seen", num_classes=15, miou=0.5),
        GroupScore(name="unseen", num_classes=5, miou=None),
    )
    scores = measured("student", "voc20").model_copy(
        update={"groups": groups, "published_groups": (split,)}
    )
    rows = [(row["subject"], row["metric"], row["percent"]) for row in score_rows([scores])]
    assert rows[1:] == [
        ("the student", "mIoU, seen", "50.0"),
        ("ZegCLIP", "mIoU, seen", "91.9"),
        ("ZegCLIP", "mIoU, unseen", "77.8"),
    ]
    caption = str(score_table([scores, scores]).caption)
    assert caption.splitlines()[:2] == [
        "the student on voc20: seen 50.0 (15)",
        "ZegCLIP on voc20, published: seen 91.9, unseen 77.8",
    ]


def test_a_baseline_alone_has_no_published_rivals():
    assert len(score_rows([measured("baseline", "voc21", OTHERS)])) == 1


def test_the_newest_row_is_the_last_whole_one(tmp_path):
    assert last_metrics(tmp_path) is None
    file = tmp_path / METRICS_FILE
    file.write_text("")
    assert last_metrics(tmp_path) is None
    rows = "".join(f'{{"step": {step}, "loss": 1.5}}\n' for step in range(1000))
    file.write_text(rows + '{"step": 1000, "lo')
    assert last_metrics(tmp_path) == {"step": 999, "loss": 1.5}


def test_a_benchmark_of_the_drawn_world_is_drawn_where_it_is_missing_and_no_other_is(tmp_path):
    drawn, other = tmp_path / "drawn", tmp_path / "other"
    benchmarks = [BenchmarkConfig(root=drawn), BenchmarkConfig(name="voc21", root=other)]
    draw_missing_benchmarks(benchmarks)
    before = (drawn / "benchmark.json").stat().st_mtime_ns
    draw_missing_benchmarks(benchmarks)
    assert (drawn / "benchmark.json").stat().st_mtime_ns == before
    assert not other.exists()
    again = tmp_path / "again"
    draw_missing_benchmarks([BenchmarkConfig(name="miniature14", root=again)])
    assert (again / "benchmark.json").read_bytes() == (drawn / "benchmark.json").read_bytes()


@pytest.mark.server
@pytest.mark.slow
def test_a_run_shows_progress_scores_and_a_report_that_opens_anywhere(
    server, commit_drawn, tmp_path
):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter

    from flows.train_and_evaluate import train_and_evaluate

    commit_drawn(tmp_path / "d", 3)
    state = train_and_evaluate(
        dataset=str(tmp_path / "d"),
        training={"optimiser": {"steps": 3, "batch_size": 2}},
        benchmarks=(BenchmarkConfig(root=tmp_path / "benchmark", limit=3),),
        baseline=False,
        return_state=True,
    )
    run = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        filters = {"flow_run_id": {"any_": [str(run)]}}
        found = client._client.post("/artifacts/filter", json={"artifacts": filters}).json()
        of_run = LogFilter.model_validate({"flow_run_id": {"any_": [str(run)]}})

        def step_is_told():
            lines = client.read_logs(log_filter=of_run, limit=200)
            return any("step 3 of 3" in line.message for line in lines)

        until = time.monotonic() + 30  # lines are sent in batches, after the run has ended too
        while not step_is_told() and time.monotonic() < until:
            time.sleep(0.5)
        assert step_is_told()
    by_key = {each["key"]: each for each in found}
    assert by_key.keys() == {"magicseg-training", "magicseg-scores", "magicseg-report"}
    assert by_key["magicseg-training"]["data"] == 100
    assert "update: 3 of 3" in by_key["magicseg-training"]["description"]
    assert '"source": "measured"' in by_key["magicseg-scores"]["data"]
    report = by_key["magicseg-report"]["data"]
    assert f"`{tmp_path / 'd-run' / 'report.html'}`" in report
    assert "## Predictions" in report
    assert "file:" not in report
