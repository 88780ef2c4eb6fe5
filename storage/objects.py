"""Named bytes on a local disk or in an object store, written whole or not at all."""

import io
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from obstore.store import MemoryStore

from storage.connections import connect, connect_memory
from storage.errors import InputError
from storage.local_objects import LocalObjects
from storage.paths import absolute_path, check_place
from storage.remote_objects import RemoteObjects

_FILE_SCHEME = "file://"
_MEMORY_SCHEME = "memory://"
_MEMORY_URL = re.compile(r"memory://[^/\s?#@]+")


@runtime_checkable
class ObjectStore(Protocol):
    """Bytes by relative path (forward slashes). What has a name is whole.

    All methods raise DataError for a path that is none below a root (`storage.object_names`),
    InputError for what somebody must change (rights, room, settings, a missing bucket), and
    TransientError where the disk or the server does not answer as it should.
    """

    @property
    def url(self) -> str:
        """The root, as people name it: an absolute path or a URL."""
        ...

    def read(self, path: str) -> bytes:
        """Read everything; raises FileNotFoundError if nothing has this name."""
        ...

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """Read ``size`` bytes from ``offset``; raises FileNotFoundError."""
        ...

    def read_many(
        self, paths: Sequence[str], workers: int = ...
    ) -> Iterator[tuple[str, bytes | None]]:
        """Read many small things side by side, with so many threads.

        Each path comes with its bytes, in the order given; with None if it has vanished.
        """
        ...

    def open(self, path: str) -> io.BufferedIOBase:
        """Open for reading, seekable; raises FileNotFoundError."""
        ...

    def size(self, path: str) -> int | None:
        """Size in bytes, or None if nothing has this name."""
        ...

    def paths(self, folder: str) -> list[str]:
        """List the paths below a folder, at any depth, sorted; temporary files left out.

        A folder that does not exist is empty; one that cannot be listed is an error.
        """
        ...

    def write_new(self, path: str, data: bytes | memoryview) -> bool:
        """Create; return False and change nothing if the name is taken.

        Durable when it returns True: bytes and name survive a loss of power.
        """
        ...

    def replace(self, path: str, data: bytes | memoryview) -> None:
        """Create or replace at once: readers see the old bytes or the new ones. Durable."""
        ...

    def move(self, source: str, target: str) -> bool:
        """Rename; return False if nothing is called ``source``. Durable."""
        ...

    def delete(self, path: str) -> None:
        """Remove; a missing name is fine."""
        ...


def open_objects(root: str | Path) -> ObjectStore:
    """Open a local folder, or an object store by URL.

    Args:
        root: A path, or ``s3://bucket/prefix``, ``gs://...``, ``az://...``; credentials come from
            the environment variables of the provider. ``memory://<name>`` lives in this process.

    Raises:
        InputError: The URL is of an unknown kind or misses a part.
    """
    text = check_place(str(root), "the root")
    if "://" not in text:
        return LocalObjects(absolute_path(root))
    if text.startswith(_FILE_SCHEME):
        return LocalObjects(_of_file_url(text))
    if _MEMORY_URL.fullmatch(text.rstrip("/")):
        url = text.rstrip("/")
        return RemoteObjects(connect_memory(url, _memory(url)))
    return RemoteObjects(connect(text))


def open_file(location: str | Path) -> io.BufferedIOBase:
    """Open a file by its path or URL, for reading, seekable.

    Args:
        location: A local path (streamed), or a URL as `open_objects` takes it (fetched whole).

    Raises:
        InputError: Nothing is there, or it cannot be read.
    """
    text = str(location)
    if text.startswith(_MEMORY_SCHEME):
        name, _, path = text.removeprefix(_MEMORY_SCHEME).partition("/")
        root = f"{_MEMORY_SCHEME}{name}"
    else:
        root, path = _split(text)
    if path in {"", ".", ".."} or "\0" in text:
        message = f"{text!r} names no file"
        raise InputError(message)
    try:
        return open_objects(root).open(path)
    except FileNotFoundError as error:
        message = f"there is no file {text}; list what is there with 'magicseg status'"
        raise InputError(message) from error


def _split(text: str) -> tuple[str, str]:
    """The folder and the name of a file."""
    if "://" not in text and "\0" not in text:
        # the caller names the file itself, so links may lead anywhere
        text = os.path.realpath(absolute_path(text))
    folder, slash, name = text.rpartition("/")
    return folder + slash, name


@cache
def _memory(url: str) -> MemoryStore:
    """Give the same store for the same URL, as a real one would."""
    del url
    return MemoryStore()


def _of_file_url(url: str) -> Path:
    path = url.removeprefix(_FILE_SCHEME)
    if not path.startswith("/") or not path.strip("/"):
        message = f"{url!r} names no folder of this machine; expected file:///folder, or a path"
        raise InputError(message)
    return Path(path)
