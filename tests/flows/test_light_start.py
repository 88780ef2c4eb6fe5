"""Commands that only look never load a network library: each is run for real, in its process."""

import json
import subprocess
import sys

import pytest

from benchmarks.store_scale import fabricate
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark

HEAVY = {"torch", "transformers", "diffusers"}
RUN = """
import json, pathlib, sys
from flows.__main__ import main
try:
    main()
finally:
    pathlib.Path({note!r}).write_text(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dataset that has begun, one that is finished, a run, and a benchmark."""
    folder = tmp_path_factory.mktemp("place")
    with prepare(GenerationParameters(root=str(folder / "d"), samples=8)):
        pass
    fabricate(folder / "finished", 1)
    (folder / "run").mkdir()
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=2, num_test=0), folder / "b")
    return folder


@pytest.fixture
def modules_of(place, tmp_path):
    """Run a command in a process of its own; the modules that it had loaded at its end."""

    def run(line):
        note = tmp_path / "modules.json"
        done = subprocess.run(
            [sys.executable, "-c", RUN.format(note=str(note)), *line.split()],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return set(json.loads(note.read_text()))

    return run


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "train --help",
        "segment --help",
        "serve-student --help",
        "plan --root new --samples 380000",
        "plan --root d --samples 8",
        "plan --root d --samples 8 --json",
        "plan --root finished --samples 1000 --set samples_per_shard=1000",
        "generate --root finished --samples 1000 --set samples_per_shard=1000",
        "status d",
        "status d --json",
        "ledger show d",
        "verify d",
        "verify d --deep",
        "report --dataset d --run run --out r.html",
        "report --run run --compare run --out r.html",
        "doctor --benchmark miniature --root b",
        "retry d --json",
        "gc d --yes",
        "quarantine list d",
    ],
)
def test_a_command_that_looks_loads_no_network_library(modules_of, line):
    loaded = modules_of(line)
    assert not HEAVY & loaded
    assert "prefect" not in loaded


def test_help_loads_no_library_of_data_either(modules_of):
    assert not {"numpy", "pydantic", "pyarrow", "obstore"} & modules_of("plan --help")


def test_prefect_and_the_networks_are_imported_side_by_side_without_each_other():
    code = "import sys, flows.generate_dataset, flows.local_flow; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(done.stdout.split())
    assert "prefect" in loaded
    assert not HEAVY & loaded


def test_a_run_that_ends_before_any_model_is_needed_loads_no_network_library(tmp_path):
    code = (
        "import sys\n"
        "from flows.generation_parameters import GenerationParameters\n"
        "from flows.generation_run import prepare\n"
        "with prepare(GenerationParameters(root=sys.argv[1], samples=8)):\n"
        "    pass\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not HEAVY & set(done.stdout.split())
