"""Records as JSON lines: what a stage made of each sample, or why it made nothing."""

import json
from collections.abc import Iterable
from typing import Annotated, TypeVar, cast

from pydantic import BeforeValidator, Discriminator, Tag, TypeAdapter, ValidationError

from storage.documents import explain
from storage.errors import DataError
from storage.records import (
    Detection,
    MaskSample,
    Others,
    Pair,
    Prompt,
    Record,
    Rejected,
    TwinCheck,
)

RecordT = TypeVar("RecordT", bound=Record)

_KIND = "record"
_NAMES: dict[type[Record], str] = {
    Prompt: "prompt",
    Pair: "pair",
    Detection: "detection",
    MaskSample: "masks",
    TwinCheck: "check",
    Others: "others",
    Rejected: "rejected",
}


def _kind_of(line: object) -> str | None:
    kind = cast("dict[str, object]", line).get(_KIND) if isinstance(line, dict) else None
    return kind if isinstance(kind, str) else None


def _without_kind(line: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in line.items() if name != _KIND}


_KINDS = ", ".join(_NAMES.values())

# the kind stands beside the fields of a record and is none of them
_Fields = BeforeValidator(_without_kind)
_ROW: TypeAdapter[Prompt | Pair | Detection | MaskSample | TwinCheck | Others | Rejected] = (
    TypeAdapter(
        Annotated[
            Annotated[Prompt, _Fields, Tag("prompt")]
            | Annotated[Pair, _Fields, Tag("pair")]
            | Annotated[Detection, _Fields, Tag("detection")]
            | Annotated[MaskSample, _Fields, Tag("masks")]
            | Annotated[TwinCheck, _Fields, Tag("check")]
            | Annotated[Others, _Fields, Tag("others")]
            | Annotated[Rejected, _Fields, Tag("rejected")],
            Discriminator(
                _kind_of,
                custom_error_type="unknown_kind",
                custom_error_message=f"expected an object whose {_KIND} is one of {_KINDS}",
            ),
        ]
    )
)


def write_rows(rows: Iterable[Record]) -> bytes:
    """Write one JSON object a line, with the kind of record under ``record``.

    Args:
        rows: Prompts, pairs, detections, masks, checks, others and rejections, in any mixture.

    Returns:
        UTF-8 lines; the same for the same records.
    """
    lines = ({_KIND: _NAMES[type(row)], **row.model_dump(mode="json")} for row in rows)
    encoded = (json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines)
    return "".join(f"{line}\n" for line in encoded).encode()


def read_rows(data: bytes, *, name: str = "a stage's output") -> list[Record]:
    """Read what `write_rows` wrote.

    Args:
        data: Lines.
        name: What messages call them.

    Returns:
        The records, each of its own type, in file order.

    Raises:
        DataError: A line is not JSON, of an unknown kind, or does not fit its kind.
    """
    return [
        _read_row(line, f"line {n} of {name}") for n, line in enumerate(data.splitlines(), start=1)
    ]


def split_rows(
    rows: Iterable[Record], kind: type[RecordT], *, name: str = "a stage's output"
) -> tuple[list[RecordT], list[Rejected]]:
    """Separate what went on from what was dropped.

    Args:
        rows: What `read_rows` returned.
        kind: The record type that the stage makes.
        name: What messages call the rows.

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
            message = f"{name} has a {type(row).__name__} row; expected {kind.__name__} or Rejected"
            raise DataError(message)
    return kept, dropped


def _read_row(line: bytes, name: str) -> Record:
    try:
        return _ROW.validate_json(line)
    except ValidationError as error:
        message = f"{name} is not a record ({explain(None, error)}); verify the dataset"
        raise DataError(message) from error
