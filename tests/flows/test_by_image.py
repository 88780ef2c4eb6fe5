"""What a report says is missing of older scores, made as it says."""

import json
import shlex
import sys

import pytest

from evaluation.scoring.image_counts import BY_IMAGE_AGAIN
from flows.__main__ import main
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from runs import write_run


@pytest.mark.slow
def test_older_scores_get_their_single_images_by_the_command_that_the_report_shows(
    tmp_path, monkeypatch, capsys
):
    student = write_run(tmp_path / "run")
    benchmark = write_benchmark(
        DrawnBenchmarkConfig(num_train=0, num_val=3, num_test=0), tmp_path / "b"
    )

    def type_line(line):
        monkeypatch.setattr(sys, "argv", [*shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, capsys.readouterr().err

    def read():
        [path] = student.rglob("scores-*-student.json")
        return path, json.loads(path.read_text())

    again = BY_IMAGE_AGAIN.replace("RUN", str(student)).replace("BENCHMARK", str(benchmark))
    again += " --no-untrained --no-baseline"
    plain = again.replace(" --by-image", "")
    type_line(plain)
    path, made = read()
    older = {**made, "images": None}
    path.write_text(json.dumps(older))
    for file in path.parent.glob("*.parquet"):
        file.unlink()
    type_line(plain)
    assert read()[1] == older  # hours of scoring are not repeated unasked
    page = tmp_path / "r.html"
    type_line(f"magicseg report --run {student} --out {page}")
    assert BY_IMAGE_AGAIN in page.read_text()
    type_line(again)
    now = read()[1]
    times = {"seconds", "created"}
    assert {k: v for k, v in now.items() if k not in times} == {
        k: v for k, v in made.items() if k not in times
    }
    type_line(f"magicseg report --run {student} --out {page}")
    assert BY_IMAGE_AGAIN not in page.read_text()
    before = path.stat().st_mtime_ns
    type_line(again)
    assert path.stat().st_mtime_ns == before
