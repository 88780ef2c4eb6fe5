"""What a training run was made of, as its newest checkpoint says it; read without any network."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from storage.errors import DataError
from storage.records import read_object

_CHECKPOINTS = "checkpoints/step-*/checkpoint.json"


def read_run_parameters(run: Path) -> dict[str, str]:
    """The parameters of a run, its dataset and its vocabulary, by dotted name; empty if untrained.

    Args:
        run: Its folder.

    Raises:
        DataError: If the record of the checkpoint is damaged.
    """
    records = sorted(run.glob(_CHECKPOINTS))
    if not records:
        return {}
    path = records[-1]
    record = read_object(path.read_bytes(), str(path), way_out="remove the checkpoint's folder")
    meta = record.get("meta")
    if not isinstance(meta, Mapping):
        message = f"{path} holds no run, expected its settings under 'meta': remove its folder"
        raise DataError(message)
    return dict(_flattened({**meta, "step": record.get("step")}))


def differing(first: Mapping[str, str], second: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """The names whose values differ, each with both; a dash where one has none."""
    names = [*first, *(name for name in second if name not in first)]
    return [
        (name, first.get(name, "-"), second.get(name, "-"))
        for name in names
        if first.get(name) != second.get(name)
    ]


def _flattened(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        path = f"{prefix}{name}"
        if isinstance(item, Mapping) and item:
            yield from _flattened(item, f"{path.removeprefix('config.')}.")
        else:
            text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
            yield path, text
