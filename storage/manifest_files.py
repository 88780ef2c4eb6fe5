"""Parquet files of a known schema, read without trust in what they say about themselves."""

# pyarrow comes without types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportAttributeAccessIssue=false

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from storage.errors import DataError
from storage.parquet_footers import Claims, read_claims

VERSION_FIELD = b"magicseg_manifest_version"
"""Where the footer names the version of the schema."""

_MAX_BYTES = 1024**3
_MAX_VALUES = _MAX_BYTES // 8


def read_parquet(
    data: bytes, schema: pa.Schema, name: str, *, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    """Read the rows of a Parquet file.

    Args:
        data: The file.
        schema: Its columns, and its version in the metadata.
        name: What messages call it.
        columns: Those to read; all if not given.

    Returns:
        The rows, by column.

    Raises:
        DataError: It is no such file, is damaged, or would unpack to more than 1 GiB.
    """
    table = read_parquet_table(data, schema, name, columns=columns)
    with readable(name):
        return table.to_pylist()


def read_parquet_table(
    data: bytes,
    schema: pa.Schema,
    name: str,
    *,
    columns: list[str] | None = None,
    way_out: str = "verify the dataset",
) -> pa.Table:
    """Read a Parquet file column by column.

    Args:
        data: The file.
        schema: Its columns, and its version in the metadata.
        name: What messages call it.
        columns: Those to read; all if not given.
        way_out: What to do if it is damaged.

    Returns:
        The columns; texts are in dictionaries.

    Raises:
        DataError: It is no such file, is damaged, or would unpack to more than 1 GiB.
    """
    texts = [_leaf(field) for field in schema if _holds_text(field)]
    with readable(name, way_out):
        # Texts as they are stored, each once: a few bytes can repeat a long one without end.
        # Without threads of its own: one that still reads when Python ends would abort the process.
        _check_claims(read_claims(data), len(data), name)
        source = pa.BufferReader(data)
        said = parquet.ParquetFile(source, pre_buffer=False)
    _check_version(said.schema_arrow, schema, name)  # which is no damage: no way out mends it
    with readable(name, way_out):
        _check_columns(said.schema_arrow, schema, name)
        file = parquet.ParquetFile(source, read_dictionary=texts, pre_buffer=False)
        table = file.read(columns=columns, use_threads=False)
        _check_texts(table, name)
        return table


@contextmanager
def readable(name: str, way_out: str = "verify the dataset") -> Generator[None]:
    """Turn whatever strange bytes of a Parquet file lead to into an error about that file.

    pyarrow fails on them with errors of its own and with those of Python and the operating system,
    whatever its decoders meet first; its texts are looked at when Python wants them.

    Args:
        name: What messages call the file.
        way_out: What to do if it is damaged.
    """
    try:
        yield
    except DataError as error:
        message = f"{error}; {way_out}"
        raise DataError(message) from error
    except Exception as error:
        message = f"{name} is not a readable Parquet file ({error}); {way_out}"
        raise DataError(message) from error


def _check_version(found: pa.Schema, schema: pa.Schema, name: str) -> None:
    wanted = schema.metadata[VERSION_FIELD].decode()
    version = (found.metadata or {}).get(VERSION_FIELD, b"none").decode("utf-8", "replace")
    if version != wanted:
        message = f"{name} has schema version {version}; this engine reads version {wanted}"
        raise DataError(message)


def _check_columns(found: pa.Schema, schema: pa.Schema, name: str) -> None:
    kinds = {field.name: field.type for field in found}
    wanted = {field.name: field.type for field in schema}
    wrong = sorted(each for each in {*kinds, *wanted} if kinds.get(each) != wanted.get(each))
    if wrong or len(found) != len(schema):
        column = wrong[0] if wrong else "a column"
        message = (
            f"{name} has {column} as {kinds.get(column, 'nothing')}, expected "
            f"{wanted.get(column, 'nothing')}"
        )
        raise DataError(message)


def _check_claims(claims: Claims, size: int, name: str) -> None:
    """Hold against the file's size what its footer says of it, before memory is taken for that."""
    numbers = (claims.rows, *claims.group_rows, *claims.values, *claims.unpacked)
    if min(numbers) < 0 or sum(claims.group_rows) != claims.rows or claims.rows > size:
        message = f"{name} claims {claims.rows} rows in {size} bytes"
        raise DataError(message)
    values, unpacked = sum(claims.values), sum(claims.unpacked)
    if unpacked > _MAX_BYTES or values > _MAX_VALUES:
        message = (
            f"{name} claims {values} values and {unpacked} bytes, expected at most {_MAX_VALUES} "
            f"and {_MAX_BYTES}"
        )
        raise DataError(message)


def _check_texts(table: pa.Table, name: str) -> None:
    chunks = [chunk for column in table.columns for chunk in column.chunks]
    total = sum(_text_bytes(chunk) for chunk in chunks)
    if total > _MAX_BYTES:
        message = f"{name} holds {total} bytes of text, expected at most {_MAX_BYTES}"
        raise DataError(message)


def _text_bytes(chunk: pa.Array) -> int:
    values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
    if not pa.types.is_dictionary(values.type):
        return 0
    lengths = pc.binary_length(values.dictionary)
    return pc.sum(pc.cast(lengths.take(values.indices), pa.int64())).as_py() or 0


def _holds_text(field: pa.Field) -> bool:
    kind = field.type
    return pa.types.is_string(kind.value_type if pa.types.is_list(kind) else kind)


def _leaf(field: pa.Field) -> str:
    """Path of a column's values inside a Parquet file."""
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
