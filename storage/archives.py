"""Uncompressed tar archives whose bytes depend on their members alone."""

import io
import tarfile
from collections.abc import Iterable, Iterator

from storage.errors import DataError

Source = bytes | memoryview | io.BufferedIOBase
"""An archive in memory, or an open file that can seek."""

_MODE = 0o444
_END = bytes(tarfile.BLOCKSIZE)


def write_archive(members: Iterable[tuple[str, bytes]]) -> memoryview:
    """Write a USTAR archive: no times, no owners, members in the order given.

    Args:
        members: Name and bytes of each; names of at most 100 ASCII characters.

    Returns:
        The archive; a view, so that it is in memory once.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            header.mode = _MODE
            archive.addfile(header, io.BytesIO(data))
    return buffer.getbuffer()


def read_archive(source: Source, name: str) -> Iterator[tuple[str, bytes]]:
    """Stream the members of an archive.

    Args:
        source: What `write_archive` made, in memory or as an open file.
        name: What messages call the archive.

    Yields:
        Name and bytes of each member, in file order.

    Raises:
        DataError: The archive is cut or is not a tar; also when it is cut exactly between two
            members, which tar readers take for its end.
    """
    for member, offset, size in index_archive(source, name):
        data = _read(source, offset, size)
        if len(data) != size:
            raise _cut(name, f"{member} has {len(data)} of {size} bytes")
        yield member, data


def index_archive(source: Source, name: str) -> Iterator[tuple[str, int, int]]:
    """List the members of an archive by their headers, without reading them.

    Args:
        source: What `write_archive` made, in memory or as an open file.
        name: What messages call the archive.

    Yields:
        Name, offset of the first byte, and size in bytes of each member.

    Raises:
        DataError: See `read_archive`.
    """
    offset = 0
    while (header := _read(source, offset, tarfile.BLOCKSIZE)) != _END:
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise _cut(name, str(error)) from error
        yield member.name, offset + tarfile.BLOCKSIZE, member.size
        blocks = 1 + -(-member.size // tarfile.BLOCKSIZE)
        offset += blocks * tarfile.BLOCKSIZE
    if _read(source, offset + tarfile.BLOCKSIZE, tarfile.BLOCKSIZE) != _END:
        raise _cut(name, "no end-of-archive mark")


def _read(source: Source, offset: int, size: int) -> bytes:
    if isinstance(source, bytes | memoryview):
        return bytes(source[offset : offset + size])
    source.seek(offset)
    return source.read(size)


def _cut(name: str, why: str) -> DataError:
    return DataError(f"{name} is cut or is not a tar archive ({why}); verify the dataset")
