"""The form of a table in a text file: what spreadsheets change in it when they save it."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storage.texts import split_lines, text_encoding

_DELIMITERS = (",", ";", "\t", "|")
_SAID = "sep="  # a first line in which spreadsheets are told the delimiter


@dataclass(frozen=True)
class TableForm:
    """How a table is written.

    Attributes:
        encoding: Name of its encoding, as Python and Arrow know it.
        mark: Bytes of the byte order mark.
        delimiter: Between the cells of a row.
        decimal_point: In numbers.
        columns: Names of the columns in their order; those that are wanted in the spelling that is.
        num_lines: Lines up to and with that of the names.
    """

    encoding: str
    mark: int
    delimiter: str
    decimal_point: str
    columns: tuple[str, ...]
    num_lines: int


def table_form(head: bytes, wanted: Sequence[str], numbers: Sequence[str] = ()) -> TableForm:
    """Tell the form of a table by its beginning.

    Args:
        head: The first bytes of the file, or all of it.
        wanted: Names of columns, which are found in any order and whatever their capitals.
        numbers: Those of them that hold numbers with a decimal point or comma.
    """
    mark, encoding = text_encoding(head)
    lines = split_lines(head[len(mark) :].decode(encoding, "replace"))
    start = next((place for place, line in enumerate(lines) if line.strip()), len(lines))
    delimiters = _DELIMITERS
    if start < len(lines) and lines[start].strip().strip('"').lower().startswith(_SAID):
        delimiters = (lines[start].strip().strip('"')[len(_SAID) :][:1] or ",", *_DELIMITERS)
        start += 1
    header = lines[start] if start < len(lines) else ""
    spelt = {name.casefold(): name for name in wanted}
    found = [(sign, _columns(header, sign, spelt)) for sign in delimiters if sign not in "\r\n"]
    delimiter, columns = max(found, key=lambda each: len(set(each[1]) & set(wanted)))
    rows = csv.reader(lines[start + 1 : -1] or lines[start + 1 :], delimiter=delimiter)
    places = [columns.index(name) for name in numbers if name in columns]
    with_comma = any(
        "," in row[place] for row in _whole(rows) for place in places if place < len(row)
    )
    return TableForm(encoding, len(mark), delimiter, "," if with_comma else ".", columns, start + 1)


def _columns(header: str, delimiter: str, spelt: dict[str, str]) -> tuple[str, ...]:
    row = next(_whole(csv.reader([header], delimiter=delimiter)), [])
    return tuple(spelt.get(cell.strip().casefold(), cell.strip()) for cell in row)


def _whole(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """Rows until one that is no row."""
    try:
        yield from rows
    except csv.Error:
        return
