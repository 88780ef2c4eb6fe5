"""Timing, and the file that a benchmark leaves behind."""

import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def best_cpu_seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Least CPU time of this process over several runs: neighbours on the machine only add."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def write_results(name: str, rows: list[dict[str, Any]], packages: tuple[str, ...]) -> None:
    """Print rows and write them with the machine and the versions."""
    machine = {"processor": _processor(), "python": sys.version.split()[0]}
    document: Mapping[str, Any] = {
        "benchmark": name,
        "machine": machine,
        "versions": {package: version(package) for package in packages},
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
