"""Uncompressed tar archives whose bytes depend on their members alone.

The reader takes what other programs write too: GNU tar, bsdtar, Python and webdataset put folders
in front of names, note times and owners, and write long names in ways of their own. A member is
called by the last part of its name. Whatever else could hold a sample's bytes is refused, not
skipped: a reader that skips what it does not know would read other members than the next one does.
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
_PLAIN_KINDS = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_LITTER = re.compile(r"\._.*|\.DS_Store|Thumbs\.db|desktop\.ini")
"""What desktops leave in folders; it is skipped."""
_OTHER_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a file with holes",
}

# Headers that say more about the next member, or about all that follow; most programs write times.
_NOTES = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
_LONG_NAMES = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})
_MAX_NOTE_BYTES = 64 * 1024
_NOTE_START = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]+)=")
_DECISIVE_NOTES = re.compile(r"size|hdrcharset|GNU\..*|SCHILY\.realsize")
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}


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
        Name without folders, offset of the first byte, and size in bytes of each file; all of it
        is there. Folders, and what desktops leave in them, are passed over.

    Raises:
        DataError: The archive is no tar; is cut, also when it is cut exactly between two members,
            which other readers take for its end; goes on after its end; holds anything but files
            with plain names and folders, two files of one name, or one that is larger than
            `MAX_MEMBER_BYTES`.
    """
    offset, end = 0, _length(source)
    names: set[str] = set()
    said = ""  # the name of the next member, by a header of its own
    while (block := _read(source, offset, _BLOCK)) != _END:
        header = _header(block, name)
        start = offset + _BLOCK
        size = 0 if header.type == tarfile.DIRTYPE else header.size  # old programs note others
        _check_size(header, end - start, name)
        if header.type in _NOTES or header.type in _LONG_NAMES:
            said = _read_note(header, _read(source, start, size), name) or said
        else:
            plain = _member_name(header, said or header.name, name)
            said = ""
            if plain:
                if plain in names:
                    raise _foreign(name, f"{plain!r} is there twice, expected it once")
                names.add(plain)
                yield plain, start, size
        offset = start + -(-size // _BLOCK) * _BLOCK
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
    found = _member_name(header, header.name, name)
    if not found:
        raise _foreign(name, f"it begins with {header.name!r}, expected a file")
    return found


def _header(block: bytes, name: str) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.TarError, ValueError) as error:
        for mark, (kind, program) in _COMPRESSED.items():
            if block.startswith(mark):
                message = f"{name} is compressed by {kind}, expected a plain tar: use {program}"
                raise DataError(message) from error
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


def _member_name(header: tarfile.TarInfo, path: str, name: str) -> str:
    """The last part of a member's name; nothing if the member is none that holds data."""
    if header.type == tarfile.DIRTYPE:
        return ""
    *folders, plain = path.split("/")
    if ".." in folders:
        raise _foreign(name, f"{path!r} leads out of its folder")
    if header.type not in _PLAIN_KINDS:
        kind = _OTHER_KINDS.get(header.type, f"of the unknown kind {header.type!r}")
        raise _foreign(name, f"{path!r} is {kind}, expected plain files alone")
    if _LITTER.fullmatch(plain):
        return ""
    if not _PLAIN_NAME.fullmatch(plain):
        why = f"{path!r} ends in no plain file name (no control characters, no dot in front)"
        raise _foreign(name, why)
    return plain


def _read_note(header: tarfile.TarInfo, data: bytes, name: str) -> str:
    """The name of the next member that a header gives; nothing if it gives none."""
    if header.size > _MAX_NOTE_BYTES:
        why = f"an extended header has {header.size} bytes, expected at most {_MAX_NOTE_BYTES}"
        raise _foreign(name, why)
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return ""  # the link that follows is refused
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return _text(data.rstrip(b"\0"), name)
    path = ""
    for keyword, value in _records(data, name):
        if keyword == "path" and header.type != tarfile.XGLTYPE:
            path = _text(value, name)
        elif keyword == "path" or _DECISIVE_NOTES.fullmatch(keyword):
            raise _foreign(name, f"an extended header sets {keyword!r}, expected plain files")
    return path


def _records(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """Keyword and value of each record of an extended header."""
    at = 0
    while at < len(data):
        found = _NOTE_START.match(data, at)
        after = at + int(found[1]) if found else 0
        if not found or not found.end() < after <= len(data) or data[after - 1 : after] != b"\n":
            raise _foreign(name, "an extended header is malformed")
        yield found[2].decode("ascii", "backslashreplace"), data[found.end() : after - 1]
        at = after


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _foreign(name, f"a name is no UTF-8 ({error})") from error


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
    return DataError(f"{name} is no archive of samples: {why}; remake it with plain files")
