"""Local files that appear whole or not at all.

A file is written under a hidden name beside its own, forced to the disk, and then renamed; the
folder is forced to the disk too. So after a crash or a loss of power the name stands for the old
bytes or for the new ones, and what was written later never survives without what was written
before it. That takes some ten milliseconds a file; who writes thousands asks for `durable=False`
and calls `sync_all` before writing what vouches for them.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Generator
from pathlib import Path

from storage.crashes import crash_point

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of the system that a cleaned disk, a larger quota or a larger limit cures."""

TEMP_SUFFIX = ".tmp"
"""How the hidden names end; whoever lists a folder leaves them out."""


def temp_path(path: Path) -> Path:
    """Make up a hidden name beside a path, another one at each call."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMP_SUFFIX}")


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Generator[Path]:
    """Give a library that writes files itself a place for one.

    Any number of threads and processes may write the same path: each has a hidden file of its own,
    and the last one to finish gives the bytes. Permissions are those of any new file.

    Args:
        path: The file; its folder is made if missing.
        durable: Whether it survives a loss of power when the block has ended.

    Yields:
        An empty hidden file to write to. It gets its name when the block ends, and is removed if
        the block ends with an error.

    Raises:
        OSError: If the file cannot be written, or the name stands for a folder, a device or a pipe.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # a rename would put a file in the place of /dev/null
        kind = errno.EISDIR if path.is_dir() else errno.EEXIST
        raise OSError(kind, "only a file can be replaced by a file", str(path))
    temporary = temp_path(path)
    temporary.touch(exist_ok=False)  # `tempfile` would keep other users from reading it
    try:
        yield temporary
        if durable:
            _sync(temporary)
        crash_point(f"temp:{path}")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)
    crash_point(f"named:{path}")


def write_whole(path: Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Write a file, in a folder that is made if missing; see `whole_file`.

    Raises:
        OSError: If the file cannot be written.
    """
    with whole_file(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def remove(path: Path) -> None:
    """Remove a file, durably; a missing one is fine."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)
    crash_point(f"deleted:{path}")


def sync_all() -> None:
    """Force everything that was written so far to the disk, whoever wrote it."""
    os.sync()


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
