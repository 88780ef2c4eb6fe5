"""Named bytes on a local disk or in an object store, written whole or not at all."""

import io
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from obstore.exceptions import BaseError
from obstore.store import MemoryStore, from_url

from storage.errors import InputError
from storage.local_objects import LocalObjects
from storage.paths import check_place, local_path
from storage.remote_objects import RemoteObjects, first_line

_MEMORY_SCHEME = "memory://"


@runtime_checkable
class ObjectStore(Protocol):
    """Bytes by relative path (forward slashes). What has a name is whole."""

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

    def open(self, path: str) -> io.BufferedIOBase:
        """Open for reading, seekable; raises FileNotFoundError."""
        ...

    def size(self, path: str) -> int | None:
        """Size in bytes, or None if nothing has this name."""
        ...

    def paths(self, folder: str) -> list[str]:
        """List the paths below a folder, at any depth, sorted; temporary files left out."""
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
    text = str(root)
    if "://" not in text:
        return LocalObjects(local_path(root, "the root").absolute())
    url = check_place(text, "the root").rstrip("/")
    if text.startswith("file://"):
        path = text.removeprefix("file://")
        if not path.startswith("/"):
            message = f"{text!r} names no file of this machine, expected file:///folder or a path"
            raise InputError(message)
        return LocalObjects(local_path(path, "the root"))
    if url.startswith(_MEMORY_SCHEME) and "/" not in url.removeprefix(_MEMORY_SCHEME):
        return RemoteObjects(_memory(url), url)
    try:
        return RemoteObjects(from_url(url), url)
    except (BaseError, ValueError) as error:
        message = (
            f"cannot open {text!r} ({first_line(error)}); use a path, or s3://, gs:// or az://"
        )
        raise InputError(message) from error


def open_file(location: str | Path) -> io.BufferedIOBase:
    """Open a file by its path or URL, for reading, seekable.

    Args:
        location: A local path (streamed), or a URL as `open_objects` takes it (fetched whole).

    Raises:
        InputError: Nothing is there.
    """
    text = str(location)
    if text.startswith(_MEMORY_SCHEME):
        name, _, path = text.removeprefix(_MEMORY_SCHEME).partition("/")
        root = f"{_MEMORY_SCHEME}{name}"
    else:
        folder, slash, path = text.rpartition("/")
        root = folder + slash
    try:
        return open_objects(root).open(path)
    except FileNotFoundError as error:
        message = f"there is no file {text}; list what is there with 'magicseg status'"
        raise InputError(message) from error


@cache
def _memory(url: str) -> MemoryStore:
    """Give the same store for the same URL, as a real one would."""
    del url
    return MemoryStore()
