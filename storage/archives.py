"""Uncompressed tar archives whose bytes depend on their members alone."""

import io
import tarfile
from collections.abc import Iterable, Iterator

from storage.errors import DataError

_MODE = 0o444


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


def read_archive(file: io.BufferedIOBase, name: str) -> Iterator[tuple[str, bytes]]:
    """Stream the members of an archive.

    Args:
        file: Seekable, at its start.
        name: What messages call the archive.

    Yields:
        Name and bytes of each member, in file order.

    Raises:
        DataError: The archive is cut or is no tar; also when it is cut exactly between two
            members, which `tarfile` takes for its end.
    """
    for member, offset, size in index_archive(file, name):
        file.seek(offset)
        yield member, file.read(size)


def index_archive(file: io.BufferedIOBase, name: str) -> Iterator[tuple[str, int, int]]:
    """List the members of an archive without reading them.

    Args:
        file: Seekable, at its start.
        name: What messages call the archive.

    Yields:
        Name, offset of the first byte, and size in bytes of each member.

    Raises:
        DataError: See `read_archive`.
    """
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - the file is the caller's
        while (member := archive.next()) is not None:
            yield member.name, member.offset_data, member.size
    except tarfile.TarError as error:
        msg = f"{name} is cut or is no tar archive ({error}); verify the dataset"
        raise DataError(msg) from error
    file.seek(archive.offset)
    if file.read(2 * tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):
        msg = f"{name} has no end-of-archive mark, so it is cut; verify the dataset"
        raise DataError(msg)
