"""Benchmarks that need no download: those of the drawn world are drawn where they are missing.

Flows draw them themselves, because a worker on another machine than the one that deployed it has
its own disk.
"""

from collections.abc import Iterable

from evaluation.benchmarks.contract import BenchmarkConfig
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark

_DRAWN = ("miniature", "miniature14")


def draw_missing_benchmarks(benchmarks: Iterable[BenchmarkConfig]) -> None:
    """Draw those of the drawn world whose folder is not there; others are left to their check.

    Equal settings give equal files, on every machine, and scores name the files by their contents.

    Raises:
        InputError: If a folder cannot be written.
    """
    for benchmark in benchmarks:
        if benchmark.name in _DRAWN and not benchmark.root.exists():
            write_benchmark(DrawnBenchmarkConfig(), benchmark.root)
