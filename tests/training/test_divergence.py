"""A training whose numbers are no longer finite ends at once, in words and without a checkpoint."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from flows.__main__ import main
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.student.trained import describe_file, list_checkpoints, load_student
from storage.errors import InputError
from storage.metrics import METRICS_FILE, read_metrics
from training.config import TrainingConfig
from training.divergence import DivergedError
from training.loop import train_student

SHORT = ("optimiser.steps=12", "optimiser.batch_size=2", "optimiser.warmup_steps=0", "threads=0")


@pytest.fixture
def magicseg(monkeypatch, capsys):
    """Run a command of the command line in this process: exit code, and its error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["magicseg", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return code, "\n".join(line for line in said.splitlines() if " INFO " not in line)

    return run


def settings_of(*pairs):
    return [part for pair in (*SHORT, *pairs) for part in ("--set", pair)]


def poison(checkpoint, name):
    """Put a NaN into a tensor of a checkpoint, which vouches for it as for any other."""
    file = checkpoint / "student.safetensors"
    tensors = load_file(file)
    tensors[name].view(-1)[0] = math.nan
    save_file(tensors, file)
    record = json.loads((checkpoint / "checkpoint.json").read_bytes())
    record["files"][file.name] = describe_file(file)
    (checkpoint / "checkpoint.json").write_text(json.dumps(record))


def assert_no_trace_of_it(out):
    """The curve is JSON without NaN, and all checkpoints are finite."""
    text = (out / METRICS_FILE).read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    for checkpoint in list_checkpoints(out / "checkpoints"):
        tensors = load_file(checkpoint / "student.safetensors")
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_rate_that_is_far_too_high_ends_the_command_and_its_advice_works(
    magicseg, tars, tmp_path
):
    start = ("train", "--dataset", tars, "--out")
    high = "optimiser.learning_rate=1e12"
    code, said = magicseg(*start, tmp_path / "run", *settings_of(high))
    assert code == 2
    assert said.startswith("error: ")
    assert "\n" not in said
    assert "training has diverged at step 2 of 12 (learning rate " in said
    assert "loss is nan" in said
    assert "lower optimiser.learning_rate (now 1e+12), or lower optimiser.clip_norm (now 5)" in said
    assert "start again; there is no checkpoint yet" in said
    assert_no_trace_of_it(tmp_path / "run")
    # As advised: a lower rate, in the same folder.
    code, said = magicseg(*start, tmp_path / "run", *settings_of("optimiser.learning_rate=1e-4"))
    assert (code, said) == (0, "")
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == list(range(12))


def test_where_there_are_checkpoints_the_advice_names_another_folder_and_works(
    magicseg, tars, tmp_path
):
    start = ("train", "--dataset", tars, "--out")
    steep = ("optimiser.learning_rate=1e12", "checkpoint_every=1")
    code, said = magicseg(*start, tmp_path / "run", *settings_of(*steep))
    assert code == 2
    [good] = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert good.name == "step-00000001"
    assert f"train into another out folder, since {tmp_path / 'run'} keeps its settings" in said
    assert said.endswith(f"its last good checkpoint is {good}")
    assert_no_trace_of_it(tmp_path / "run")
    lower = ("optimiser.learning_rate=1e-4", "checkpoint_every=1")
    code, said = magicseg(*start, tmp_path / "run", *settings_of(*lower))
    assert code == 2
    assert "keeps its settings" not in said
    assert "Train into another out folder" in said
    assert magicseg(*start, tmp_path / "other", *settings_of(*lower)) == (0, "")


def test_weights_that_only_the_last_update_made_infinite_get_no_checkpoint(settings):
    settings["optimiser"] = {"steps": 1, "batch_size": 2, "warmup_steps": 0, "learning_rate": 1e30}
    # The update multiplies weights by rate times decay, which is more than float32 holds.
    settings["optimiser"] |= {"weight_decay": 1e10}
    with pytest.raises(DivergedError, match=r"step 1 of 1 .* the weight \S+ is not finite"):
        train_student(TrainingConfig(**settings))
    assert list_checkpoints(Path(settings["out"]) / "checkpoints") == []


def test_bfloat16_is_told_that_float32_may_help(settings):
    settings["optimiser"] |= {"learning_rate": 1e12, "warmup_steps": 0, "clip_norm": 3.0}
    settings["precision"] = "bfloat16"
    with pytest.raises(DivergedError) as caught:
        train_student(TrainingConfig(**settings))
    assert "lower optimiser.clip_norm (now 3), or set precision to float32" in str(caught.value)


@pytest.mark.slow
def test_all_processes_stop(settings, tmp_path):
    settings["optimiser"] |= {"learning_rate": 1e12, "warmup_steps": 0, "micro_batch_size": 2}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(settings))
    launch = ["-m", "training.torchrun", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launch, "-m", "training", "--config", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 2
    assert ran.stderr.count("error: InputError: training has diverged at step 2 of 6") == 2
    assert_no_trace_of_it(Path(settings["out"]))


@pytest.fixture
def poisoned(settings, tmp_path):
    """The finished run of a student with a NaN among its weights."""
    checkpoint = train_student(TrainingConfig(**settings))
    poison(checkpoint, "prompt_norm.bias")
    return checkpoint


def test_a_student_that_is_not_finite_is_neither_loaded_nor_trained_on(settings, poisoned):
    with pytest.raises(InputError, match=r"not finite, prompt_norm\.bias: its training had"):
        load_student(poisoned)
    settings["resume_from"] = str(poisoned)
    with pytest.raises(InputError, match=r"not finite, prompt_norm\.bias"):
        train_student(TrainingConfig(**settings))
    # As advised: an earlier checkpoint.
    earlier = list_checkpoints(poisoned.parent)[0]
    assert earlier != poisoned
    assert load_student(earlier)[1]["step"] == 4


def test_a_student_that_is_not_finite_gets_no_score(magicseg, poisoned, tmp_path):
    root = write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=2, num_test=0), tmp_path / "b")
    run = poisoned.parents[1]
    code, said = magicseg("evaluate", "--run", run, "--root", root, "--no-baseline")
    assert code == 2
    assert said.startswith("error: ")
    assert "\n" not in said
    assert "prompt_norm.bias" in said
    assert not list(run.rglob("scores-*.json"))
