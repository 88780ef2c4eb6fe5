"""Named bytes in an object store."""

import contextlib
import io
from collections.abc import Generator
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)

from storage.crashes import crash_point
from storage.errors import InputError, TransientError


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
            # one of its overloads returns pyarrow's types, which are not known
            batches = obstore.list(self._store, prefix=folder)  # pyright: ignore[reportUnknownMemberType]
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
def _explained_remotely(url: str, path: str) -> Generator[None]:
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError, UnknownConfigurationKeyError) as error:
        message = (
            f"{url} refuses access to {path} ({first_line(error)}); check the credentials' rights"
        )
        raise InputError(message) from error
    except BaseError as error:
        message = f"{url} did not answer for {path}: {first_line(error)}"
        raise TransientError(message) from error


def first_line(error: Exception) -> str:
    """What an error of obstore says, without the details below."""
    return str(error).partition("\n")[0]
