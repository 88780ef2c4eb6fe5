"""What people wait for before a command does its work: each time a fresh process.

`painting` is the time from the command to the painter's first step: plan, server, Prefect, weights.
The limit beside it imports what that takes and nothing else. `--base FOLDER` measures another
checkout of the engine in the same run, command by command in turns; it runs with the same libraries
and datasets of its own. Times are of the clock, because two processes work side by side; CPU time
counts both of them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_results

HERE = Path(__file__).parent.parent
REPEATS = 5
SHARDS = 5
FIRST_STEP = """
import importlib.abc, importlib.util, json, os, sys, time

def cpu_of_children():
    ticks = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")

def on_call(module, _inputs):
    if type(module).__name__ == "UNet2DConditionModel":
        seconds = time.time() - float(os.environ["BEGAN"])
        cpu = time.process_time() + cpu_of_children()
        with open(os.environ["NOTE"], "w") as file:
            json.dump({"seconds": seconds, "cpu_seconds": cpu}, file)
        os._exit(0)

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            module.nn.modules.module.register_module_forward_pre_hook(on_call)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Watch())
from flows.__main__ import main
main()
"""
"""Runs a command line until the painter's first step, and notes when that was."""

IMPORTS = "import prefect.flow_engine, torch; from diffusers import StableDiffusionPipeline"

Row = dict[str, Any]


class Checkout:
    """A checkout of the engine, with a dataset that it has made.

    Args:
        name: What the rows call it.
        code: Its folder.
        folder: For datasets.
    """

    def __init__(self, name: str, code: Path, folder: Path) -> None:
        self.name = name
        self._code, self._folder = code, folder
        self._number = 0
        folder.mkdir()
        self._cache = folder / "cache"
        self._same = ("--root", str(folder / "d"), "--samples", str(SHARDS))
        self._same += ("--slice", "cat", "--set", "samples_per_shard=1")

    def make_dataset(self) -> None:
        """Make the dataset that the quick commands look at."""
        self._run("-m", "flows", "generate", *self._same)

    def commands(self) -> Mapping[str, Any]:
        """Every command by name: a function that runs it and gives its seconds."""
        return {
            "help": lambda: self._run("-m", "flows", "--help"),
            "status": lambda: self._run("-m", "flows", "status", str(self._folder / "d")),
            "plan": lambda: self._run("-m", "flows", "plan", *self._same),
            "generate, nothing to do": lambda: self._run("-m", "flows", "generate", *self._same),
            "painting": self._paint,
        }

    def import_alone(self) -> Row:
        """Import what painting takes, and do nothing."""
        return self._run("-c", IMPORTS)

    def paint_with_empty_cache(self) -> Row:
        """Start to paint as on a machine where this version has never run."""
        self._cache = self._folder / "empty"
        return self._paint()

    def _paint(self) -> Row:
        self._number += 1
        note = self._folder / "note.json"
        root = self._folder / f"new-{self._number}"
        self._run("-c", FIRST_STEP, "generate", "--root", str(root), "--samples", "8", note=note)
        return json.loads(note.read_text())

    def _run(self, *arguments: str, note: Path | None = None) -> Row:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
        environment |= {"PYTHONPATH": str(self._code), "XDG_CACHE_HOME": str(self._cache)}
        environment |= {"OMP_NUM_THREADS": "1", "NOTE": str(note), "BEGAN": repr(time.time())}
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self._folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            message = f"{self.name}: {arguments[:4]} ended with {process.returncode}"
            raise RuntimeError(message)
        return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def measure(checkouts: Sequence[Checkout], repeats: int) -> list[Row]:
    """A row for each command and checkout; the checkouts take turns."""
    rows: list[Row] = []
    for what in checkouts[0].commands():
        found: dict[str, list[Row]] = {each.name: [] for each in checkouts}
        for _ in range(repeats):
            for each in checkouts:
                found[each.name].append(each.commands()[what]())
        rows += [_row(what, name, runs) for name, runs in found.items()]
    ours = checkouts[0]
    rows.append(_row("imports alone", ours.name, [ours.import_alone() for _ in range(repeats)]))
    first = {each.name: [each.paint_with_empty_cache()] for each in checkouts}
    return rows + [_row("painting, empty cache", name, runs) for name, runs in first.items()]


def _row(what: str, name: str, runs: Sequence[Row]) -> Row:
    row: Row = {"what": what, "checkout": name}
    for field in ("seconds", "cpu_seconds"):
        values = [run[field] for run in runs]
        row |= {f"best_{field}": round(min(values), 2)}
        row |= {f"median_{field}": round(statistics.median(values), 2)}
    return row


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows, and in those of the base how many times ours they are."""
    ours = {row["what"]: row for row in rows if row["checkout"] == "ours"}
    fields = ("best_seconds", "median_seconds", "best_cpu_seconds")
    return [
        row
        | {
            f"times_our_{field}": round(row[field] / ours[row["what"]][field], 2)
            for field in fields
            if row["checkout"] != "ours"
        }
        for row in rows
    ]


def main() -> None:
    """Measure this checkout, and another one beside it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", type=Path, help="folder of another checkout of the engine")
    options.add_argument("--repeats", type=int, default=REPEATS)
    given = options.parse_args()
    codes = {"ours": HERE} | ({"base": given.base.absolute()} if given.base else {})
    with tempfile.TemporaryDirectory() as folder:
        checkouts = [Checkout(name, code, Path(folder) / name) for name, code in codes.items()]
        for each in checkouts:
            each.make_dataset()
        rows = with_ratios(measure(checkouts, given.repeats))
    write_results(
        "startup",
        rows,
        ("magicseg-engine", "prefect", "torch", "transformers", "diffusers"),
        setting={"repeats": given.repeats, "shards": SHARDS},
    )


if __name__ == "__main__":
    main()
