import json

from storage.metrics import METRICS_FILE, read_metrics
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
