"""All results of benchmarks as one table."""

import json
from collections.abc import Iterator
from typing import Any

from benchmarks.results_file import RESULTS

TABLE = RESULTS / "table.md"


def results_table() -> str:
    """The results as Markdown, a row for each way of each benchmark."""
    lines = ["| benchmark | what | figures |", "|---|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        lines += [
            f"| {path.stem} | {_what(row)} | {', '.join(_figures(row))} |"
            for row in document["rows"]
        ]
    return "\n".join(lines) + "\n"


def _what(row: dict[str, Any]) -> str:
    """What a row is about: its words."""
    words = [str(value) for value in row.values() if isinstance(value, str)]
    return ", ".join(words).replace("|", "/")


def _figures(row: dict[str, Any]) -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, int | float):
            yield f"{name} {value}"
        elif isinstance(value, list) and all(isinstance(each, int | float) for each in value):
            yield f"{name} {' '.join(map(str, value))}"
