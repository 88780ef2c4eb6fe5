"""Training, scoring and exports from the command line: each once, and one at a time in a folder."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from rich.console import Console

from evaluation.benchmarks.contract import BenchmarkConfig
from flows.local_steps import evaluate_locally, train_locally
from flows.training_parameters import (
    EvaluationParameters,
    TrainAndEvaluateParameters,
    training_config,
)
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from storage.errors import InputError, LeaseHeldError
from storage.locks import hold_folder
from tasks.steps import work_in_child
from tasks.training import StudentTraining
from training.closed_sets.config import ClosedSetRequest

QUICK = {"optimiser": {"steps": 3, "batch_size": 4, "warmup_steps": 1}, "threads": 0}
CONSOLE = Console(quiet=True)


@pytest.fixture
def benchmark_folder(tmp_path):
    return write_benchmark(
        DrawnBenchmarkConfig(num_train=0, num_val=3, num_test=0), tmp_path / "benchmark"
    )


def trained(dataset, **changes):
    parameters = TrainAndEvaluateParameters(dataset=str(dataset), training=QUICK, **changes)
    train_locally(parameters, CONSOLE)
    return parameters.run_folder


def wait_for(process, pattern, folder):
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_of_two_trainings_in_one_folder_the_second_is_refused_and_the_first_is_unharmed(
    magicseg, run, dataset, tmp_path
):
    arguments = ("train", "--dataset", dataset, "--out", "run", "--set", "checkpoint_every=1")
    quick = ("--set", "optimiser.batch_size=2", "--set", "threads=0")
    first = magicseg(*arguments, *quick, "--set", "optimiser.steps=100000")
    wait_for(first, "run/checkpoints/step-*", tmp_path)
    code, _, said = run(*arguments, *quick, "--set", "optimiser.steps=100000")
    assert code == 3
    [line] = said.splitlines()
    assert line.startswith("error: somebody is at work in run: ")
    assert f"held by process {first.pid} on" in line
    assert line.endswith("or choose another folder")
    assert first.poll() is None

    # The kernel frees the lock of a process that is killed; what it had is gone on with.
    first.send_signal(signal.SIGKILL)
    first.communicate()
    [*_, last] = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    second = magicseg(*arguments, *quick, "--set", "optimiser.steps=100000")
    wanted = f"run/checkpoints/step-{int(last.name[5:]) + 2:08d}"
    wait_for(second, wanted, tmp_path)
    second.send_signal(signal.SIGTERM)
    second.communicate()
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows]
    assert steps == list(range(len(steps)))


@pytest.mark.slow
def test_each_command_is_refused_in_a_folder_where_somebody_is_at_work(
    run, dataset, benchmark_folder, tmp_path
):
    student = trained(dataset)
    parameters = EvaluationParameters(
        run=str(student),
        benchmarks=(BenchmarkConfig(root=benchmark_folder),),
        untrained=False,
        baseline=False,
    )
    evaluate_locally(parameters, CONSOLE)
    [scores] = student.rglob("scores-*.json")
    scores.unlink()
    request = ClosedSetRequest(
        recipe="deeplabv3_miniature", classes="miniature", settings={"steps": 2}
    )
    data = ("--dataset", dataset)
    recipe = ("--recipe", request.recipe, "--classes", "miniature", "--set", "steps=2")
    classes = ("--classes", "bus", "--vocabulary", "miniature", "--out", "x")
    commands = {
        scores.parent: ("evaluate", "--run", student, "--root", benchmark_folder, "--no-baseline"),
        tmp_path / "x": ("export", *data, *classes),
        student / "closed-sets" / request.folder_name: ("closed-set", *data, *recipe),
    }
    for folder, command in commands.items():
        with hold_folder(folder):
            code, _, said = run(*command)
        assert code == 3, said
        [line] = [line for line in said.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: somebody is at work in ")
        assert f"{folder.name}/.lock is held by process {os.getpid()} on" in line
        assert line.endswith("or choose another folder")
        assert "Traceback" not in said


def test_a_benchmark_that_is_not_there_is_told_before_any_other_is_scored(
    dataset, benchmark_folder, tmp_path
):
    student = trained(dataset)
    benchmarks = tuple(BenchmarkConfig(root=root) for root in (benchmark_folder, tmp_path / "none"))
    with pytest.raises(InputError, match="none"):
        evaluate_locally(EvaluationParameters(run=str(student), benchmarks=benchmarks), CONSOLE)
    assert not (student / "scores").exists()


def test_what_was_trained_and_scored_is_found_and_not_done_again(
    dataset, benchmark_folder, tmp_path, monkeypatch
):
    student = trained(dataset)
    assert trained(dataset) == student
    parameters = EvaluationParameters(
        run=str(student), benchmarks=(BenchmarkConfig(root=benchmark_folder),), baseline=False
    )
    first = evaluate_locally(parameters, CONSOLE)
    assert [scores.subject.kind for scores in first] == ["student", "untrained"]
    files = {path: path.stat().st_mtime_ns for path in student.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    spelt = BenchmarkConfig(root=Path(benchmark_folder.name))
    again = parameters.model_copy(update={"benchmarks": (spelt,)})
    assert evaluate_locally(again, CONSOLE) == first
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert {path for path in student.rglob("*") if path.is_file()} == set(files)


@pytest.mark.slow
def test_several_processes_train_under_one_lock_and_say_what_stopped_them(dataset, tmp_path):
    parameters = TrainAndEvaluateParameters(
        dataset=str(dataset), out=str(tmp_path / "run"), training=QUICK
    )
    training = StudentTraining(training_config(parameters), processes=2)
    with (
        hold_folder(training.folder),
        pytest.raises(LeaseHeldError, match=f"at work in {training.folder}"),
    ):
        work_in_child(training)
    checkpoint = work_in_child(training)
    assert checkpoint == training.find()
    assert checkpoint.name == "step-00000003"
    uneven = parameters.model_copy(
        update={"training": QUICK | {"optimiser": {"steps": 3, "batch_size": 3}}}
    )
    with pytest.raises(InputError, match="a batch of 3 cannot be shared by 2 processes"):
        work_in_child(StudentTraining(training_config(uneven), processes=2))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path, benchmark_folder):
    parameters = EvaluationParameters(
        run=str(tmp_path), benchmarks=(BenchmarkConfig(root=benchmark_folder),)
    )
    with pytest.raises(InputError, match="is not a checkpoint"):
        evaluate_locally(parameters, CONSOLE)
