"""Named bytes in an object store."""

import contextlib
import io
import logging
import random
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from storage.concurrent_reads import read_in_order
from storage.connections import Connection
from storage.crashes import crash_point
from storage.errors import TransientError
from storage.object_names import check_folder, check_name
from storage.remote_errors import is_about_bucket, is_beyond_end, remote_error

_T = TypeVar("_T")
_LISTED_AT_ONCE = 1000
_LARGE = 8 * 1024**2
_FIRST_PAUSE, _LONGEST_PAUSE, _MOST_RETRIES = 0.1, 10.0, 12

_log = logging.getLogger(__name__)


class RemoteObjects:
    """Objects in a bucket, written by single requests that happen whole or not at all.

    Requests are repeated while the server does not answer as it should: by obstore, where it
    knows how, and here, because it does so neither for answers that are cut off nor for
    conditional writes. Of these it is told by the bytes whether one whose answer may have been
    lost has happened.

    Args:
        connection: The bucket.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._store: Any = connection.store
        self._bucket_seen = False

    @property
    def url(self) -> str:
        """The root's URL."""
        return self._connection.url

    def read(self, path: str) -> bytes:
        """Read a whole object."""
        return self._read(path)[0]

    def read_many(
        self, paths: Sequence[str], workers: int = 32
    ) -> Iterator[tuple[str, bytes | None]]:
        """Read objects side by side, see `ObjectStore`."""
        return read_in_order(self.read, paths, workers)

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """Read a part of an object."""
        if size == 0:
            return b""

        def read() -> bytes:
            with self._explained(path, "read"):
                try:
                    return bytes(obstore.get_range(self._store, path, start=offset, length=size))
                except BaseError as error:
                    if is_beyond_end(error):
                        return b""
                    raise

        return self._repeated(read)

    def open(self, path: str) -> io.BufferedIOBase:
        """Fetch an object into memory, once."""
        return io.BytesIO(self.read(path))

    def size(self, path: str) -> int | None:
        """Size in bytes, or None."""
        try:
            return self._described(path)["size"]
        except FileNotFoundError:
            return None

    def paths(self, folder: str) -> list[str]:
        """List objects below a folder, sorted; the server is asked page by page."""
        check_folder(folder)

        def listed() -> dict[str, int]:
            with self._explained(folder, "list"):
                # one of its overloads returns pyarrow's types, which are not known
                batches = obstore.list(  # pyright: ignore[reportUnknownMemberType]
                    self._store, prefix=folder or None, chunk_size=_LISTED_AT_ONCE
                )
                return {entry["path"]: entry["size"] for batch in batches for entry in batch}

        sizes = self._repeated(listed)
        folders = {parent for path in sizes for parent in _parents(path)} | {folder}
        # tools that show a bucket as folders put an empty object where they made one
        return sorted(path for path, size in sizes.items() if size or path not in folders)

    def write_new(self, path: str, data: bytes | memoryview) -> bool:
        """Create an object by a conditional request."""
        return self.write_version(path, data, None) is not None

    def replace(self, path: str, data: bytes | memoryview) -> None:
        """Write an object over another."""

        def put() -> None:
            with self._explained(path, "write"):
                obstore.put(self._store, path, data)

        self._repeated(put)
        crash_point(f"named:{path}")

    def move(self, source: str, target: str) -> bool:
        """Copy, then delete; a crash between leaves both."""
        check_name(target)

        def copy() -> None:
            with self._explained(source, "copy"):
                obstore.copy(self._store, source, target)

        try:
            self._repeated(copy)
        except FileNotFoundError:
            return False
        self._delete(source)
        crash_point(f"moved:{source}")
        return True

    def delete(self, path: str) -> None:
        """Remove an object."""
        self._delete(path)
        crash_point(f"deleted:{path}")

    def read_version(self, path: str) -> tuple[bytes, dict[str, str], float]:
        """Read an object, its version, and when the server wrote it.

        That is in seconds since the epoch by the server's clock, whole ones with most servers.
        """
        data, meta = self._read(path)
        return data, _version(meta), meta["last_modified"].timestamp()

    def written_at(self, path: str) -> float:
        """When the server wrote an object, see `read_version`."""
        return self._described(path)["last_modified"].timestamp()

    def write_version(
        self,
        path: str,
        data: bytes | memoryview,
        expected: dict[str, str] | None,
        *,
        repeated: bool = True,
    ) -> dict[str, str] | None:
        """Write an object only if it is still what the caller believes.

        Args:
            path: Name of the object.
            data: New bytes.
            expected: Version that must be there now; None if nothing may be there.
            repeated: Whether to try again while the server does not answer as it should.

        Returns:
            The new version, or None if something else was there and nothing was changed.
        """
        mode: Any = "create" if expected is None else expected
        connection = self._connection
        store: Any = connection.upload if len(data) > _LARGE else connection.single
        lost = False

        def put() -> dict[str, str] | None:
            nonlocal lost
            try:
                with self._explained(path, "write"):
                    return self._put(store, path, data, mode)
            except TransientError:
                lost = True
                raise

        version = self._repeated(put) if repeated else put()
        if version is None and lost:
            version = self._own_version(path, data)
        if version is not None:
            crash_point(f"named:{path}")
        return version

    def _put(
        self, store: Any, path: str, data: bytes | memoryview, mode: Any
    ) -> dict[str, str] | None:
        """Send one conditional write; None if its condition does not hold."""
        try:
            return _version(obstore.put(store, path, data, mode=mode, use_multipart=False))
        except (AlreadyExistsError, PreconditionError) as error:
            # a write at the same moment, of which nobody knows yet whether it happens
            if is_about_bucket(error) or "ConditionalRequestConflict" in str(error):
                raise self._in_words(error, path, "write") from None
            return None

    def _own_version(self, path: str, data: bytes | memoryview) -> dict[str, str] | None:
        """The version of an object that holds exactly these bytes."""
        try:
            found, version, _ = self.read_version(path)
        except FileNotFoundError:
            return None
        return version if found == data else None

    def _described(self, path: str) -> Any:
        def head() -> Any:
            with self._explained(path, "read"):
                return obstore.head(self._store, path)

        return self._repeated(head)

    def _read(self, path: str) -> tuple[bytes, Any]:
        return self._repeated(lambda: self._read_once(path))

    def _read_once(self, path: str) -> tuple[bytes, Any]:
        with self._explained(path, "read"):
            answer = obstore.get(self._store, path)
            data, meta = bytes(answer.bytes()), answer.meta
        if not _version(meta):
            # some server in between; every object store names the version of what it sends
            raise self._in_words(BaseError("MissingEtag"), path, "read")
        if len(data) != meta["size"]:
            raise self._in_words(BaseError("IncompleteMessage"), path, "read")
        return data, meta

    def _delete(self, path: str) -> None:
        def delete() -> None:
            with contextlib.suppress(FileNotFoundError), self._explained(path, "delete"):
                obstore.delete(self._connection.single, path)

        self._repeated(delete)

    def _repeated(self, request: Callable[[], _T]) -> _T:
        """Send a request again while the server does not answer as it should, for a while."""
        end = time.monotonic() + self._connection.patience
        pause = _FIRST_PAUSE
        for _ in range(_MOST_RETRIES):
            try:
                return request()
            except TransientError as error:
                # many clients that met the same trouble must not come back together
                wait = pause * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
                if time.monotonic() + wait > end:
                    raise
                _log.debug("trying again in %.1f s: %s", wait, error)
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return request()

    @contextlib.contextmanager
    def _explained(self, path: str, doing: str) -> Generator[None]:
        """Say in words what a request met; FileNotFoundError is about an object, not the bucket."""
        if doing != "list":
            check_name(path)
        try:
            yield
        except FileNotFoundError as error:
            if is_about_bucket(error) or not self._has_bucket():
                raise self._in_words(BaseError(f"NoSuchBucket {error}"), path, doing) from None
            if doing == "write":
                raise self._in_words(error, path, doing) from None
            message = f"there is no {self.url}/{path}"
            raise FileNotFoundError(message) from None
        except (BaseError, ValueError) as error:
            raise self._in_words(self._told(error), path, doing) from None
        self._bucket_seen = True

    def _has_bucket(self) -> bool:
        """Whether the bucket is there, as far as this client may know; asked once."""
        if self._bucket_seen:
            return True
        try:
            self._look()
        except BaseError as error:
            return "status code: 404" not in str(error)
        self._bucket_seen = True
        return True

    def _told(self, error: Exception) -> Exception:
        """The same error as the server words it: its answer to a HEAD request has no words."""
        text = str(error)
        if "performing HEAD" not in text or "status code: 4" not in text:
            return error
        try:
            self._look()
        except BaseError as told:
            return told
        return error

    def _look(self) -> None:
        """Ask for a first page of the list."""
        next(iter(obstore.list(self._store)), None)  # pyright: ignore[reportUnknownMemberType]

    def _in_words(self, error: Exception, path: str, doing: str) -> Exception:
        connection = self._connection
        return remote_error(
            error,
            connection.provider,
            connection.endpoint,
            where=f"{self.url}/{path}".rstrip("/"),
            doing=doing,
        )


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


def _version(entry: Any) -> dict[str, str]:
    return {name: entry[name] for name in ("e_tag", "version") if entry.get(name) is not None}
