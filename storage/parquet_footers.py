"""What a Parquet file claims about its size, read from its footer before memory is taken for it.

The footer is a structure of Thrift's compact protocol, of which four numbers are wanted. pyarrow
gives them too, but ends the process where the footer is damaged.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MAGIC = b"PAR1"
_DEEPEST = 16
_LONG = 15  # in the four bits of a list's length: the length follows

# field numbers of Parquet's structures
_ROWS, _GROUPS = 3, 4
_COLUMNS, _GROUP_ROWS = 1, 3
_COLUMN_META = 3
_VALUES, _UNPACKED = 5, 6


@dataclass(frozen=True)
class Claims:
    """What a footer says; nothing of it need be true.

    Attributes:
        rows: Rows of the file.
        group_rows: Rows of each row group.
        values: Values of each column in each row group.
        unpacked: Bytes of each column in each row group when they are unpacked.
    """

    rows: int
    group_rows: tuple[int, ...]
    values: tuple[int, ...]
    unpacked: tuple[int, ...]


def read_claims(data: bytes) -> Claims:
    """Read a Parquet file's footer.

    Raises:
        ValueError: It has none, or one that is damaged.
    """
    if len(data) < 12 or data[-4:] != _MAGIC:
        message = "it does not end as a Parquet file"
        raise ValueError(message)
    length = int.from_bytes(data[-8:-4], "little")
    if length > len(data) - 12:
        message = f"its footer is to have {length} bytes, more than the file"
        raise ValueError(message)
    try:
        footer = _Reader(data[-8 - length : -8]).structure(0)
        groups = footer[_GROUPS]
        chunks = [column[_COLUMN_META] for group in groups for column in group[_COLUMNS]]
        return Claims(
            rows=footer[_ROWS],
            group_rows=tuple(group[_GROUP_ROWS] for group in groups),
            values=tuple(chunk[_VALUES] for chunk in chunks),
            unpacked=tuple(chunk[_UNPACKED] for chunk in chunks),
        )
    except (KeyError, TypeError, IndexError, struct.error) as error:
        message = f"its footer is damaged ({error!r})"
        raise ValueError(message) from error


class _Reader:
    """Structures of Thrift's compact protocol, as dictionaries by field number."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._scalars: dict[int, Callable[[], Any]] = {
            3: self._byte,
            4: self._number,
            5: self._number,
            6: self._number,
            7: lambda: struct.unpack("<d", self._bytes(8))[0],
            8: lambda: self._bytes(self._varint()),
        }

    def structure(self, depth: int) -> dict[int, Any]:
        """Read a structure up to its end."""
        if depth > _DEEPEST:
            message = "its footer is nested without end"
            raise ValueError(message)
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            step, kind = divmod(header, 16)
            number = number + step if step else self._number()
            # the truth of a field is its kind
            fields[number] = kind == 1 if kind in {1, 2} else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in self._scalars:
            return self._scalars[kind]()
        if kind in {9, 10}:
            return self._list(depth)
        if kind == 12:
            return self.structure(depth)
        message = f"its footer has a value of the unknown kind {kind}"
        raise ValueError(message)

    def _list(self, depth: int) -> list[Any]:
        size, kind = divmod(self._byte(), 16)
        size = self._varint() if size == _LONG else size
        if size > len(self._data):
            message = f"its footer claims a list of {size}"
            raise ValueError(message)
        kind = 3 if kind in {1, 2} else kind
        return [self._value(kind, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _bytes(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise IndexError(size)
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise IndexError(shift)

    def _number(self) -> int:
        """A signed number, of which the last bit is the sign."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
