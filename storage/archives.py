"""Uncompressed tar archives whose bytes depend on their members alone.

The reader takes what other programs write too, as long as it holds plain files with plain names: a
reader that skips what it does not know would read other members than the next one does.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator

from storage.errors import DataError, InputError

Source = bytes | memoryview | io.BufferedIOBase
"""An archive in memory, or an open file that can seek."""

MAX_MEMBER_BYTES = 256 * 1024**2
"""Largest member that is read; the largest picture needs less, whatever its compression."""

_MODE = 0o444
_BLOCK = tarfile.BLOCKSIZE
_LONGEST_NAME = tarfile.LENGTH_NAME
_END = bytes(_BLOCK)
_PART = 1024**2

_PLAIN_NAME = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")
_PLAIN_KINDS = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})
_OTHER_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.DIRTYPE: "a directory",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a file with holes",
    tarfile.GNUTYPE_LONGNAME: "the name of a member in more than 100 characters",
    tarfile.GNUTYPE_LONGLINK: "the target of a link in more than 100 characters",
}

# Headers that say more about the next member, or about all that follow; most programs write times.
_NOTES = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
_MAX_NOTE_BYTES = 64 * 1024
_NOTE_START = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]+)=")
_DECISIVE_NOTES = re.compile(r"path|linkpath|size|hdrcharset|GNU\..*|SCHILY\.realsize")


def write_archive(members: Iterable[tuple[str, bytes]]) -> memoryview:
    """Write a USTAR archive: no times, no owners, members in the order given.

    Args:
        members: Name and bytes of each; names of at most 100 ASCII characters.

    Returns:
        The archive; a view, so that it is in memory once.

    Raises:
        InputError: A name is none that `index_archive` takes.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            if not _PLAIN_NAME.fullmatch(name) or not name.isascii() or len(name) > _LONGEST_NAME:
                message = f"{name!r} is no plain file name of at most {_LONGEST_NAME} characters"
                raise InputError(message)
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
        DataError: See `index_archive`.
    """
    for member, offset, size in index_archive(source, name):
        yield member, read_member(source, offset, size, f"{name}: {member}")


def index_archive(source: Source, name: str) -> Iterator[tuple[str, int, int]]:
    """List the members of an archive by their headers, without reading them.

    Args:
        source: What `write_archive` made, in memory or as an open file.
        name: What messages call the archive.

    Yields:
        Name, offset of the first byte, and size in bytes of each member; all of it is there.

    Raises:
        DataError: The archive is no tar; is cut, also when it is cut exactly between two members,
            which other readers take for its end; goes on after its end; holds anything but files
            with plain names, two of one name, or one that is larger than `MAX_MEMBER_BYTES`.
    """
    offset, end = 0, _length(source)
    names: set[str] = set()
    while (block := _read(source, offset, _BLOCK)) != _END:
        header = _header(block, name)
        start = offset + _BLOCK
        _check_size(header, end - start, name)
        if header.type in _NOTES:
            _check_note(header, _read(source, start, header.size), name)
        else:
            _check_member(header, names, name)
            names.add(header.name)
            yield header.name, start, header.size
        offset = start + -(-header.size // _BLOCK) * _BLOCK
    _check_end(source, offset, end, name)


def read_member(source: Source, offset: int, size: int, name: str) -> bytes:
    """Read a member that `index_archive` has listed.

    Args:
        source: The archive.
        offset: Its first byte.
        size: Its bytes.
        name: What messages call the member.

    Raises:
        DataError: Bytes are missing: the archive was cut after it was listed.
    """
    data = _read(source, offset, size)
    if len(data) != size:
        message = (
            f"{name} has {len(data)} bytes, expected {size} as its archive's index says; verify "
            "the dataset"
        )
        raise DataError(message)
    return data


def first_name(block: bytes, name: str) -> str:
    """Name of the first member of an archive, from the archive's first 512 bytes.

    Raises:
        DataError: It is no tar, or does not begin with a file.
    """
    header = _header(block, name)
    _check_member(header, set(), name)
    return header.name


def _header(block: bytes, name: str) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise _cut(name, str(error)) from error


def _check_size(header: tarfile.TarInfo, left: int, name: str) -> None:
    if header.size < 0:
        raise _cut(name, f"{header.name} is to have {header.size} bytes")
    if header.size > left:
        raise _cut(name, f"{header.name} is to have {header.size} bytes, but {left} are left")
    if header.size > MAX_MEMBER_BYTES:
        message = (
            f"{name}: {header.name} has {header.size} bytes, expected at most {MAX_MEMBER_BYTES}; "
            "remake the archive without it"
        )
        raise DataError(message)


def _check_member(header: tarfile.TarInfo, names: set[str], name: str) -> None:
    if header.type not in _PLAIN_KINDS:
        kind = _OTHER_KINDS.get(header.type, f"of the unknown kind {header.type!r}")
        raise _foreign(name, f"{header.name!r} is {kind}, expected plain files alone")
    if not _PLAIN_NAME.fullmatch(header.name):
        why = f"{header.name!r} is no plain file name (no folders, no control characters, no dot"
        raise _foreign(name, f"{why} in front)")
    if header.name in names:
        raise _foreign(name, f"{header.name!r} is there twice, expected it once")


def _check_note(header: tarfile.TarInfo, data: bytes, name: str) -> None:
    """Pass over notes about times and owners; refuse those that change what a member is."""
    if header.size > _MAX_NOTE_BYTES:
        why = f"an extended header has {header.size} bytes, expected at most {_MAX_NOTE_BYTES}"
        raise _foreign(name, why)
    at = 0
    while at < len(data):
        found = _NOTE_START.match(data, at)
        after = at + int(found[1]) if found else 0
        if not found or not found.end() < after <= len(data) or data[after - 1 : after] != b"\n":
            raise _foreign(name, "an extended header is malformed")
        keyword = found[2].decode("ascii", "backslashreplace")
        if _DECISIVE_NOTES.fullmatch(keyword):
            raise _foreign(name, f"an extended header sets {keyword!r}, expected short plain names")
        at = after


def _check_end(source: Source, offset: int, end: int, name: str) -> None:
    """Expect zeros alone after the last member, two blocks of them at least."""
    if offset + 2 * _BLOCK > end:
        raise _cut(name, "no end-of-archive mark")
    for at in range(offset, end, _PART):
        if _read(source, at, _PART).strip(b"\0"):
            why = f"it goes on after its end at byte {offset}, expected one archive"
            raise _foreign(name, why)


def _length(source: Source) -> int:
    if isinstance(source, bytes | memoryview):
        return len(source)
    return source.seek(0, io.SEEK_END)


def _read(source: Source, offset: int, size: int) -> bytes:
    if isinstance(source, bytes | memoryview):
        return bytes(source[offset : offset + size])
    source.seek(offset)
    return source.read(size)


def _cut(name: str, why: str) -> DataError:
    return DataError(f"{name} is cut or is not a tar archive ({why}); verify the dataset")


def _foreign(name: str, why: str) -> DataError:
    return DataError(f"{name} is no archive of this engine: {why}; remake it with plain files")
