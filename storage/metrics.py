"""The curve of a training run: one JSON line an update."""

import json
from pathlib import Path

METRICS_FILE = "metrics.jsonl"


def read_metrics(out: Path) -> list[dict[str, float]]:
    """Read the rows of a run, oldest first; a line that a crash has cut is left out."""
    path = out / METRICS_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    whole = [line for line in lines if line.startswith("{") and line.endswith("}")]
    return [json.loads(line) for line in whole]
