import json
import signal
import subprocess
import sys

import pytest

from storage.errors import DataError
from storage.metrics import METRICS_FILE, read_metrics, write_metrics
from training.metrics import MetricsLog


def row(step):
    return {"step": step, "loss": 1.0 / (step + 1), "seconds": 0.1}


def test_rows_of_updates_that_are_done_again_are_replaced(tmp_path):
    with MetricsLog(tmp_path, first=0, steps=9, log_every=100) as log:
        for step in range(5):
            log.write(row(step))
    with MetricsLog(tmp_path, first=3, steps=9, log_every=100) as log:
        log.write({"step": 3, "loss": 7.0})
    rows = read_metrics(tmp_path)
    assert [r["step"] for r in rows] == [0, 1, 2, 3]
    assert rows[3]["loss"] == 7.0


def test_a_line_that_a_crash_has_cut_is_left_out(tmp_path):
    lines = [json.dumps(row(0)), json.dumps(row(1))]
    (tmp_path / METRICS_FILE).write_text(lines[0] + "\n" + lines[1][:9])
    assert [r["step"] for r in read_metrics(tmp_path)] == [0]


def test_a_repeated_step_counts_once_as_it_was_computed_last(tmp_path):
    lines = ['{"step": 2, "loss": 2}', '{"step": 1, "loss": 3}', '{"step": 2, "loss": 1}', '{"st']
    (tmp_path / METRICS_FILE).write_text("\n".join(lines))
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 3}, {"step": 2, "loss": 1}]


@pytest.mark.parametrize("broken", [b'{"loss": 2}', b"17", b"\xff\xfe", b"\0\0\0", b""])
def test_a_broken_line_in_the_middle_is_named_and_the_advice_works(tmp_path, broken):
    lines = [b'{"step": 0}', broken, b'{"step": 1}']
    (tmp_path / METRICS_FILE).write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(
        DataError, match=r"metrics\.jsonl line 2 is not a JSON object.*remove the line"
    ):
        read_metrics(tmp_path)
    with pytest.raises(DataError, match="line 2"):
        MetricsLog(tmp_path, first=1, steps=2, log_every=1)
    (tmp_path / METRICS_FILE).write_bytes(b"\n".join([lines[0], lines[2]]) + b"\n")
    assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1]


KILLED = """
import resource, signal, sys
from pathlib import Path
from training.metrics import MetricsLog
out = Path(sys.argv[1])
size = (out / "metrics.jsonl").stat().st_size
# The kernel kills the process in the middle of the write that would pass this size.
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
MetricsLog(out, first=5000, steps=9000, log_every=100)
"""


def test_a_run_that_is_killed_while_it_resumes_keeps_its_curve(tmp_path):
    rows = [row(step) for step in range(5000)]
    write_metrics(tmp_path, rows)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=300)
    assert ended.returncode == -signal.SIGXFSZ
    assert [r["step"] for r in read_metrics(tmp_path)] == list(range(5000))


def test_what_is_no_finite_number_never_comes_into_the_file(tmp_path):
    with MetricsLog(tmp_path, first=0, steps=9, log_every=100) as log:
        log.write({"step": 0, "loss": float("nan"), "lr": 1.0})
    assert (tmp_path / METRICS_FILE).read_text() == '{"step": 0, "lr": 1.0}\n'
    # A file of an earlier version is cleaned when its run goes on.
    (tmp_path / METRICS_FILE).write_text('{"step": 0, "loss": NaN, "lr": 2.0}\n')
    with MetricsLog(tmp_path, first=1, steps=9, log_every=100):
        assert (tmp_path / METRICS_FILE).read_text() == '{"step": 0, "lr": 2.0}\n'


def test_a_run_without_updates_has_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []


def test_the_log_has_a_line_now_and_then_with_the_time_left(tmp_path, caplog):
    caplog.set_level("INFO")
    with MetricsLog(tmp_path, first=0, steps=7, log_every=3) as log:
        for step in range(7):
            log.write(row(step))
    starts = [r.getMessage().split(",")[0] for r in caplog.records]
    assert starts == ["step 3 of 7", "step 6 of 7", "step 7 of 7"]
    assert "0:00 left: loss" in caplog.records[-1].getMessage()


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path, first=0, steps=3, log_every=100) as log:
        for step in range(3):
            log.write(row(step))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [round(e.value, 6) for e in events.Scalars("loss")] == [1.0, 0.5, round(1 / 3, 6)]
