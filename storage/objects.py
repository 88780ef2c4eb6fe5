"""Named bytes on a local disk or in an object store, written whole or not at all."""

import contextlib
import errno
import fcntl
import io
import logging
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import MemoryStore, from_url

from storage.errors import DataError, InputError, TransientError

CRASH_VARIABLE = "MAGICSEG_CRASH_AT"
TEMP_SUFFIX = ".tmp"

_MEMORY_SCHEME = "memory://"
_CHUNK = 1 << 20
_YOUNG_SECONDS = 60
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTSUP, errno.ENOTDIR}

logger = logging.getLogger(__name__)


def crash_point(step: str) -> None:
    """Kill this process here if the environment asks for it: tests rehearse crashes with it.

    Args:
        step: ``temp:<path>`` when the bytes are safe but nameless, ``named:<path>`` when they
            have their name, ``moved:<path>`` and ``deleted:<path>`` when that has happened;
            the variable ``MAGICSEG_CRASH_AT`` holds a shell pattern for it.
    """
    if fnmatchcase(step, os.environ.get(CRASH_VARIABLE, "")):
        os.kill(os.getpid(), signal.SIGKILL)


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
        return LocalObjects(Path(root).expanduser().absolute())
    url = text.rstrip("/")
    if url.startswith("file://"):
        return LocalObjects(Path(url.removeprefix("file://")))
    if url.startswith(_MEMORY_SCHEME) and "/" not in url.removeprefix(_MEMORY_SCHEME):
        return RemoteObjects(_memory(url), url)
    try:
        return RemoteObjects(from_url(url), url)
    except (BaseError, ValueError) as error:
        msg = f"cannot open {text!r} ({_brief(error)}); use a path, or s3://, gs:// or az://"
        raise InputError(msg) from error


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
        msg = f"there is no file {text}; list what is there with 'magicseg status'"
        raise InputError(msg) from error


@cache
def _memory(url: str) -> MemoryStore:
    """Give the same store for the same URL, as a real one would."""
    del url
    return MemoryStore()


class LocalObjects:
    """Files below a folder, written with the standard library.

    A write goes to a hidden file in the target's folder, is forced to the disk, read back and
    compared, and then gets its name by a hard link (which fails if the name is taken) or a rename.

    Args:
        root: Absolute path; created by the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def url(self) -> str:
        """The root's absolute path."""
        return str(self.root)

    def read(self, path: str) -> bytes:
        """Read a whole file."""
        return (self.root / path).read_bytes()

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """Read a part of a file."""
        with self.open(path) as file:
            file.seek(offset)
            return file.read(size)

    def open(self, path: str) -> io.BufferedIOBase:
        """Open a file for reading."""
        return (self.root / path).open("rb")

    def size(self, path: str) -> int | None:
        """Size in bytes, or None."""
        try:
            return (self.root / path).stat().st_size
        except FileNotFoundError:
            return None

    def paths(self, folder: str) -> list[str]:
        """List files below a folder, sorted."""
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in self._files(folder)
            if path.suffix != TEMP_SUFFIX
        )

    def write_new(self, path: str, data: bytes | memoryview) -> bool:
        """Create a file by a hard link to finished bytes."""
        target = self.root / path
        with self._finished(target, data) as temp:
            crash_point(f"temp:{path}")
            try:
                os.link(temp, target)
            except FileExistsError:
                return False
        _sync_folder(target.parent)
        crash_point(f"named:{path}")
        return True

    def replace(self, path: str, data: bytes | memoryview) -> None:
        """Rename finished bytes over a file."""
        target = self.root / path
        with self._finished(target, data) as temp:
            crash_point(f"temp:{path}")
            temp.replace(target)
        _sync_folder(target.parent)
        crash_point(f"named:{path}")

    def move(self, source: str, target: str) -> bool:
        """Rename a file."""
        old, new = self.root / source, self.root / target
        _make_folder(new.parent)
        try:
            old.rename(new)
        except FileNotFoundError:
            return False
        _sync_folder(new.parent)
        _sync_folder(old.parent)
        crash_point(f"moved:{source}")
        return True

    def delete(self, path: str) -> None:
        """Remove a file."""
        (self.root / path).unlink(missing_ok=True)
        crash_point(f"deleted:{path}")

    def sweep(self, folder: str) -> list[str]:
        """Remove the temporary files of dead writers; a living one holds a lock on its own.

        Args:
            folder: Where to look, at any depth.

        Returns:
            What was removed.
        """
        removed = []
        for path in self._files(folder):
            if path.suffix == TEMP_SUFFIX and _is_abandoned(path):
                path.unlink(missing_ok=True)
                removed.append(path.relative_to(self.root).as_posix())
        if removed:
            logger.info("removed %d temporary files of writers that died", len(removed))
        return removed

    def _files(self, folder: str) -> Iterator[Path]:
        for place, _, names in os.walk(self.root / folder):
            yield from (Path(place, name) for name in names)

    @contextlib.contextmanager
    def _finished(self, target: Path, data: bytes | memoryview) -> Iterator[Path]:
        """Write a hidden file beside the target: on disk, compared, locked; gone afterwards."""
        temp = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMP_SUFFIX}")
        try:
            _make_folder(temp.parent)
            with temp.open("xb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    _compare(temp, data)
                    yield temp
                finally:
                    temp.unlink(missing_ok=True)
        except OSError as error:
            raise self._explained(error, target, len(data)) from error

    def _explained(self, error: OSError, target: Path, wanted: int) -> Exception:
        """Put into words what a user can change; leave the rest as it is."""
        if error.errno in _NO_SPACE:
            free = shutil.disk_usage(_existing(target)).free
            return InputError(
                f"no room for {target}: wanted {wanted} bytes, {free} are free "
                f"({error.strerror}); free some space there and run the same command again"
            )
        if error.errno in _NOT_ALLOWED:
            return InputError(
                f"cannot write {target} ({error.strerror}); choose a root that this user can "
                "write to, on a file system with hard links"
            )
        return error


class RemoteObjects:
    """Objects in a bucket, written by single requests that happen whole or not at all.

    Args:
        store: An obstore store.
        url: What messages and readers call it.
    """

    def __init__(self, store: Any, url: str) -> None:
        self._store = store
        self._url = url

    @property
    def url(self) -> str:
        """The root's URL."""
        return self._url

    def read(self, path: str) -> bytes:
        """Read a whole object."""
        with _explained_remotely(self.url, path):
            return bytes(obstore.get(self._store, path).bytes())

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """Read a part of an object."""
        with _explained_remotely(self.url, path):
            return bytes(obstore.get_range(self._store, path, start=offset, length=size))

    def open(self, path: str) -> io.BufferedIOBase:
        """Fetch an object into memory, once."""
        return io.BytesIO(self.read(path))

    def size(self, path: str) -> int | None:
        """Size in bytes, or None."""
        with _explained_remotely(self.url, path):
            try:
                return obstore.head(self._store, path)["size"]
            except FileNotFoundError:
                return None

    def paths(self, folder: str) -> list[str]:
        """List objects below a folder, sorted."""
        with _explained_remotely(self.url, folder):
            batches = obstore.list(self._store, prefix=folder)
            return sorted(entry["path"] for batch in batches for entry in batch)

    def write_new(self, path: str, data: bytes | memoryview) -> bool:
        """Create an object by a conditional request."""
        return self.write_version(path, data, None) is not None

    def replace(self, path: str, data: bytes | memoryview) -> None:
        """Write an object over another."""
        with _explained_remotely(self.url, path):
            obstore.put(self._store, path, data)
        crash_point(f"named:{path}")

    def move(self, source: str, target: str) -> bool:
        """Copy, then delete; a crash between leaves both."""
        with _explained_remotely(self.url, source):
            try:
                obstore.rename(self._store, source, target)
            except FileNotFoundError:
                return False
        crash_point(f"moved:{source}")
        return True

    def delete(self, path: str) -> None:
        """Remove an object."""
        with _explained_remotely(self.url, path), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, path)
        crash_point(f"deleted:{path}")

    def read_version(self, path: str) -> tuple[bytes, dict[str, str], float]:
        """Read an object, its version, and when the server wrote it (seconds since the epoch)."""
        with _explained_remotely(self.url, path):
            answer = obstore.get(self._store, path)
            version = _version(answer.meta)
            return bytes(answer.bytes()), version, answer.meta["last_modified"].timestamp()

    def write_version(
        self, path: str, data: bytes | memoryview, expected: dict[str, str] | None
    ) -> dict[str, str] | None:
        """Write an object only if it is still what the caller believes.

        Args:
            path: Name of the object.
            data: New bytes.
            expected: Version that must be there now; None if nothing may be there.

        Returns:
            The new version, or None if something else was there and nothing was changed.
        """
        mode: Any = "create" if expected is None else expected
        with _explained_remotely(self.url, path):
            try:
                version = _version(obstore.put(self._store, path, data, mode=mode))
            except (AlreadyExistsError, PreconditionError):
                return None
        crash_point(f"named:{path}")
        return version


def _version(entry: Any) -> dict[str, str]:
    return {name: entry[name] for name in ("e_tag", "version") if entry.get(name) is not None}


@contextlib.contextmanager
def _explained_remotely(url: str, path: str) -> Iterator[None]:
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError, UnknownConfigurationKeyError) as error:
        msg = f"{url} refuses access to {path} ({_brief(error)}); check the credentials' rights"
        raise InputError(msg) from error
    except BaseError as error:
        msg = f"{url} did not answer for {path}: {_brief(error)}"
        raise TransientError(msg) from error


def _brief(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _compare(temp: Path, data: bytes | memoryview) -> None:
    """Read a file back; equal bytes need no second hash."""
    view = memoryview(data)
    with temp.open("rb") as file:
        position = 0
        while chunk := file.read(_CHUNK):
            if view[position : position + len(chunk)] != chunk:
                break
            position += len(chunk)
    if position != len(view):
        msg = f"{temp} differs from what was written, near byte {position}; check the disk"
        raise DataError(msg)


def _is_abandoned(temp: Path) -> bool:
    try:
        with temp.open("rb") as file:
            # a newborn may not have its lock yet
            if time.time() - os.fstat(file.fileno()).st_mtime < _YOUNG_SECONDS:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


def _make_folder(folder: Path) -> None:
    """Create a folder and force its name to the disk, parents first."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", str(folder)) from error
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _existing(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.exists())
