"""Tars that are opened through their digest: what a commit record vouches for, or nothing.

A tar is hashed when it is opened first. That it was whole is then known by the identity of the file
(device, number, size, times of change), which any write to it changes: in this process, and for
later ones in a file of the user's cache folder, a line for each tar. Nothing is written into the
dataset. What a disk does to bytes by itself changes no time: only `magicseg verify --deep`, which
always hashes, finds that.
"""

import contextlib
import hashlib
import io
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from storage.checks import DEEP_WAY_OUT
from storage.errors import DataError
from storage.objects import open_file
from storage.paths import cache_folder

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"([0-9a-f]{64}) (\d+ \d+ \d+ \d+ \d+)")
_SETTLED_SECONDS = 0.05
"""A write within one tick of the file system's clock (10 ms at most) leaves no trace in its times:
a file younger than this is looked at a little later."""
_MOST_BYTES = 64 * 2**20
"""The file of the cache folder is begun anew when it is larger; about 500,000 tars."""

_log = logging.getLogger(__name__)


def open_tar(location: str | Path, identity: str = "") -> io.BufferedIOBase:
    """Open a tar for reading, seekable; one that was committed, only if it is what was committed.

    Args:
        location: A local path, or a URL (fetched whole, and hashed each time).
        identity: SHA-256 of a committed tar; what else there is, such as the name and size of a tar
            without a record, cannot be checked.

    Raises:
        DataError: The bytes are others than those committed.
        InputError: Nothing is there.
    """
    file = open_file(location)
    if not _DIGEST.fullmatch(identity):
        return file
    try:
        found = _digest(file)
    except BaseException:
        file.close()
        raise
    if found != identity:
        file.close()
        message = f"{location}: sha256 is {found}, its record says {identity}; {DEEP_WAY_OUT}"
        raise DataError(message)
    return file


def _digest(file: io.BufferedIOBase) -> str:
    """The SHA-256 of an open file, hashed or remembered; it is at its beginning afterwards."""
    try:
        place = file.fileno()
    except (OSError, AttributeError):
        return _hash(file)
    return _memory(_memory_file()).digest(file, place)


def _hash(file: io.BufferedIOBase) -> str:
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return found


def _memory_file() -> Path | None:
    """Where digests are remembered: in the user's cache folder, if there is one."""
    folder = cache_folder()
    return None if folder is None else folder / "tars.txt"


@cache
def _memory(file: Path | None) -> "_Memory":
    return _Memory(file)


class _Memory:
    """Which files had which digest.

    Args:
        file: Where it outlives the process; nothing to remember in this process only.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._hashing: dict[str, threading.Lock] = {}
        self._known = dict(_lines(file)) if file else {}

    def digest(self, file: io.BufferedIOBase, descriptor: int) -> str:
        """The digest of an open file."""
        state = _state(descriptor)
        known = self._known.get(state)
        if known:
            return known
        with self._lock:
            own = self._hashing.setdefault(state, threading.Lock())
        with own:  # several threads hash several files at a time, and each of them once
            found = self._known.get(state) or self._learn(file, descriptor)
        self._hashing.pop(state, None)
        return found

    def _learn(self, file: io.BufferedIOBase, descriptor: int) -> str:
        stat = os.fstat(descriptor)
        young = _SETTLED_SECONDS - (time.time() - max(stat.st_mtime, stat.st_ctime))
        time.sleep(min(max(young, 0.0), _SETTLED_SECONDS))
        state = _state(descriptor)
        found = _hash(file)
        if _state(descriptor) == state:
            self._known[state] = found
            self._write(f"{found} {state}\n")
        return found

    def _write(self, line: str) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            if self._file.exists() and self._file.stat().st_size > _MOST_BYTES:
                flags |= os.O_TRUNC
            # one short write to the end: processes side by side do not mix their lines
            descriptor = os.open(self._file, flags, 0o600)
            with contextlib.closing(os.fdopen(descriptor, "wb", buffering=0)) as opened:
                opened.write(line.encode("ascii"))
        except OSError as error:
            _log.info("%s cannot be written (%s): tars are hashed again", self._file, error)


def _state(descriptor: int) -> str:
    """What any write to a file changes."""
    stat = os.fstat(descriptor)
    numbers = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return " ".join(map(str, numbers))


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """State and digest of each file that is remembered; lines that are damaged are passed over."""
    try:
        text = file.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        _log.info("%s cannot be read (%s): tars are hashed again", file, error)
        return
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            yield match[2], match[1]
