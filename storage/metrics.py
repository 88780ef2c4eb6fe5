"""The curve of a training run: one JSON line an update."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from storage.errors import DataError
from storage.files import write_whole

METRICS_FILE = "metrics.jsonl"

_TAIL_BYTES = 8192

MetricsRow = dict[str, float]


def read_metrics(out: Path) -> list[MetricsRow]:
    """Read the rows of a run by ascending step; none if it has no curve.

    A step that was done again after a resume counts once, as it was computed last. A last line that
    a crash has cut is left out.

    Args:
        out: Folder of the run.

    Raises:
        DataError: If another line is not a JSON object with a step.
    """
    path = out / METRICS_FILE
    lines = path.read_bytes().rstrip(b"\n").split(b"\n") if path.exists() else []
    by_step: dict[int, MetricsRow] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            by_step[int(row["step"])] = row
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            message = (
                f"{path} line {number} is not a JSON object with a step: remove the line; the "
                "checkpoints do not depend on it"
            )
            raise DataError(message) from error
    return [by_step[step] for step in sorted(by_step)]


def last_metrics(out: Path) -> MetricsRow | None:
    """The newest whole row of a run, read from the end of its curve; nothing if it has none.

    A line that is just being written is left out, and so is one that cannot be read.
    """
    try:
        with (out / METRICS_FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
            return {**row, "step": int(row["step"])}
        except (ValueError, KeyError, TypeError):
            continue
    return None


def write_metrics(out: Path, rows: Iterable[Mapping[str, float]]) -> Path:
    """Rewrite the curve of a run, whole or not at all.

    Returns:
        The file, to which lines may be added.
    """
    path = out / METRICS_FILE
    write_whole(path, "".join(map(format_row, rows)).encode())
    return path


def format_row(row: Mapping[str, float]) -> str:
    """One line of the curve; a value that is not a finite number is not JSON and is left out."""
    return json.dumps({name: value for name, value in row.items() if math.isfinite(value)}) + "\n"
