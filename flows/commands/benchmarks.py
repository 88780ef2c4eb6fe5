"""Benchmarks on the command line: an option for each field, and settings for the rest."""

from collections.abc import Mapping
from typing import Any

_PREFIX = "benchmark."


def benchmark_settings(settings: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split settings into those of the benchmark, without their prefix, and the others."""
    own = tuple(text.removeprefix(_PREFIX) for text in settings if text.startswith(_PREFIX))
    return own, tuple(text for text in settings if not text.startswith(_PREFIX))


def benchmark_config(given: Mapping[str, Any], settings: tuple[str, ...]) -> Any:
    """The `BenchmarkConfig` of a benchmark.

    Args:
        given: What options say, by field.
        settings: name=value of other fields.

    Raises:
        InputError: If a setting is unknown or does not fit.
    """
    from evaluation.benchmarks.contract import BenchmarkConfig
    from storage.documents import read_assignments, read_parameters

    values = {**given, **read_assignments(settings)}
    return read_parameters(BenchmarkConfig, None, values)
