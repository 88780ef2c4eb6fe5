import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import full_labels, full_pair
from benchmarks.measurement import compare, cpu_seconds, peak_megabytes
from benchmarks.random_models import SMALL
from benchmarks.results_file import RESULTS
from benchmarks.results_table import TABLE, results_table

FOLDER = Path(__file__).parent.parent / "benchmarks"
FULL_SIZE = ("full_pair", "full_labels")
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


def test_the_one_table_is_made_of_the_results():
    assert TABLE.read_text(encoding="utf-8") == results_table()


class Clock:
    """A clock that stands still but for the work that moves it on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        def moved():
            self.now += seconds

        return moved


def test_other_ways_are_multiples_of_the_first():
    clock = Clock()
    ways = {"ours": clock.work(0.05), "peer": clock.work(0.15)}
    ours, peer = compare(ways, repeats=2, items=5, clock=clock)
    assert ours == {"what": "ours", "best_ms": 10.0, "median_ms": 10.0, "times_ours": [1.0, 1.0]}
    assert peer == {"what": "peer", "best_ms": 30.0, "median_ms": 30.0, "times_ours": [3.0, 3.0]}


def test_a_way_that_does_fewer_things_is_measured_by_its_own_number():
    clock = Clock()
    ways = {"ours": clock.work(0.08), "peer": clock.work(0.04)}
    ours, peer = compare(ways, repeats=1, items={"ours": 8, "peer": 2}, clock=clock)
    assert (ours["best_ms"], peer["best_ms"]) == (10.0, 20.0)
    assert peer["times_ours"] == [2.0, 2.0]


def test_the_best_run_counts_and_the_ways_take_turns():
    clock, order = Clock(), []
    slow = iter([0.4, 0.1, 0.4, 0.4])

    def first():
        order.append("ours")
        clock.work(next(slow))()

    def second():
        order.append("peer")
        clock.work(0.2)()

    ours, peer = compare({"ours": first, "peer": second}, repeats=2, clock=clock)
    assert order == ["ours", "peer"] * 4
    assert (ours["best_ms"], ours["median_ms"]) == (100.0, 400.0)
    assert peer["times_ours"] == [2.0, 0.5]


def test_short_work_is_done_several_times_a_turn():
    clock, runs = Clock(), []

    def short():
        runs.append(clock())
        clock.work(0.005)()

    compare({"ours": short}, repeats=1, clock=clock)
    assert len(runs) >= 2 * 4


def test_time_of_a_child_counts_once_it_has_ended():
    began = cpu_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
    assert cpu_seconds() - began > 0.02


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts memory")
def test_memory_that_is_given_back_before_the_end_is_seen():
    assert peak_megabytes(lambda: np.ones(100_000_000, np.uint8).sum()) == pytest.approx(100, abs=5)
    assert peak_megabytes(lambda: None) < 5


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_is_in_the_table_and_left_its_results(name):
    assert f"benchmarks.{name}" in (FOLDER / "README.md").read_text(encoding="utf-8")
    document = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert document["benchmark"] == name
    assert document["rows"]
    assert {"processor", "python"} <= document["machine"].keys()
    assert document["versions"]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_what_is_measured_at_full_size_names_its_gpu(name):
    document = json.loads((RESULTS / f"{name}-cuda.json").read_text(encoding="utf-8"))
    assert document["setting"]["geometry"] == "full"
    assert document["machine"]["gpu"]


# The libraries warn on the way: of files without a place, and of names that will go.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("benchmark", [full_pair, full_labels])
def test_full_size_benchmarks_check_and_measure_the_small_geometry(benchmark, tmp_path):
    rows = benchmark.measure(SMALL, "cpu", tmp_path)
    ours = [row for row in rows if row["what"] == "ours"]
    loops = [row for row in rows if row["what"] == "plain loop"]
    assert len(ours) == len(loops) >= 1
    assert all(row["best_ms"] > 0 for row in rows)
