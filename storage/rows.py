"""Records as JSON lines: what a stage made of each sample, and why it made nothing of others."""

import json
from collections.abc import Iterable
from typing import TypeVar

from pydantic import ValidationError

from storage.errors import DataError
from storage.records import Detection, MaskSample, Pair, Prompt, Record, Rejected

RecordT = TypeVar("RecordT", bound=Record)

_KINDS: dict[str, type[Record]] = {
    "prompt": Prompt,
    "pair": Pair,
    "detection": Detection,
    "masks": MaskSample,
    "rejected": Rejected,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def write_rows(rows: Iterable[Record]) -> bytes:
    """Write one JSON object a line, with the kind of record under ``record``.

    Args:
        rows: Prompts, pairs, detections, masks and rejections, in any mixture.

    Returns:
        UTF-8 lines; the same for the same records.
    """
    lines = ({"record": _NAMES[type(row)], **row.model_dump(mode="json")} for row in rows)
    encoded = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines)
    return "".join(f"{line}\n" for line in encoded).encode()


def read_rows(data: bytes) -> list[Record]:
    """Read what `write_rows` wrote.

    Returns:
        The records, each of its own type, in file order.

    Raises:
        DataError: A line is no JSON, of an unknown kind, or does not fit its kind.
    """
    return [_read_row(line, number) for number, line in enumerate(data.splitlines(), start=1)]


def split_rows(rows: Iterable[Record], kind: type[RecordT]) -> tuple[list[RecordT], list[Rejected]]:
    """Separate what went on from what was dropped.

    Args:
        rows: What `read_rows` returned.
        kind: The record type that the stage makes.

    Returns:
        The records of ``kind`` and the rejections, both in order.

    Raises:
        DataError: A row is neither.
    """
    kept: list[RecordT] = []
    dropped: list[Rejected] = []
    for row in rows:
        if isinstance(row, kind):
            kept.append(row)
        elif isinstance(row, Rejected):
            dropped.append(row)
        else:
            msg = f"found a {type(row).__name__} row; expected {kind.__name__} or Rejected"
            raise DataError(msg)
    return kept, dropped


def _read_row(line: bytes, number: int) -> Record:
    try:
        fields = json.loads(line)
        kind = _KINDS[fields.pop("record")]
        return kind.model_validate_json(json.dumps(fields))
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        msg = f"line {number} of a stage's output is no record ({error}); verify the dataset"
        raise DataError(msg) from error
