"""Leases: who is making an output right now."""

import fcntl
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import IO, Protocol, runtime_checkable

from pydantic import Field, ValidationError

from storage.errors import LeaseHeldError, TransientError
from storage.local_objects import LocalObjects
from storage.objects import ObjectStore
from storage.records import Record
from storage.remote_objects import RemoteObjects

_LIFETIME_SECONDS = 90.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

_log = logging.getLogger(__name__)


class _Holder(Record, frozen=True):
    """What a lease says about its holder."""

    host: str
    """Host name."""
    pid: int
    """Process id on that host."""
    token: str
    """Random; tells two leases of one process apart."""
    since: float
    """When the lease was taken, seconds since the epoch."""
    released: bool = False
    """Whether the holder gave it back."""
    lifetime: float = Field(default=_LIFETIME_SECONDS, gt=0)
    """Seconds after the last renewal at which anybody may take it over (object stores only)."""


@runtime_checkable
class Lease(Protocol):
    """The right to make one output."""

    def check(self) -> None:
        """Raise LeaseHeldError if the lease has been lost."""
        ...

    def release(self) -> None:
        """Give the lease back; a lost one is left to its new holder."""
        ...


def take_lease(objects: ObjectStore, path: str, *, lifetime: float = _LIFETIME_SECONDS) -> Lease:
    """Take a lease, at once or not at all.

    On a local root it is a lock that the kernel frees when the process ends, however it ends (a
    forked child that lives on keeps it). In an object store it is an object that its holder
    renews from a background thread and that anybody may take over once it has not been renewed
    for ``lifetime`` seconds; clocks must agree to a few seconds.

    Args:
        objects: Where the outputs live.
        path: The lease's own path.
        lifetime: Seconds without renewal after which a lease in an object store is void.

    Raises:
        LeaseHeldError: Somebody else holds it; the message names the holder and its age.
    """
    holder = _Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        token=secrets.token_hex(8),
        since=time.time(),
        lifetime=lifetime,
    )
    if isinstance(objects, LocalObjects):
        return _FileLease(objects, path, holder)
    if isinstance(objects, RemoteObjects):
        return _ObjectLease(objects, path, holder)
    message = f"no kind of lease is known for {type(objects).__name__}"
    raise TypeError(message)


def wait_for_lease(
    objects: ObjectStore,
    path: str,
    check: Callable[[], None],
    *,
    lifetime: float = _LIFETIME_SECONDS,
) -> Lease:
    """Take a lease, and wait for it while somebody else holds it.

    Args:
        objects: Where the outputs live.
        path: The lease's own path.
        check: Called between tries; raises if there is to be no more waiting.
        lifetime: As for `take_lease`.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            return take_lease(objects, path, lifetime=lifetime)
        except LeaseHeldError:
            check()
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)


class _FileLease:
    """A kernel lock on a file that is never removed; the file tells who holds it."""

    def __init__(self, objects: LocalObjects, path: str, holder: _Holder) -> None:
        name = f"{objects.url}/{path}"
        if objects.size(path) is None:
            objects.write_new(path, b"")
        self._file: IO[bytes] = (objects.root / path).open("r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = self._file.read()
            self._file.close()
            raise _held(name, text) from None
        self._file.truncate()
        self._file.write(holder.model_dump_json().encode())
        self._file.flush()

    def check(self) -> None:
        """Do nothing: the kernel does not take a lock back."""

    def release(self) -> None:
        """Unlock by closing the file."""
        self._file.close()


class _ObjectLease:
    """An object that only its last writer can renew, by conditional requests."""

    def __init__(self, objects: RemoteObjects, path: str, holder: _Holder) -> None:
        self._objects = objects
        self._path = path
        self._name = f"{objects.url}/{path}"
        self._holder = holder
        self._stopped = threading.Event()
        self._version: dict[str, str] | None = self._acquired()
        self._renewed = time.monotonic()
        self._thread = threading.Thread(target=self._renew_forever, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LeaseHeldError if renewal has failed for a lifetime or another one took over."""
        age = time.monotonic() - self._renewed
        if self._version is None or age > self._holder.lifetime:
            message = (
                f"{self._name}: lost after {age:.0f} s without renewal (lifetime "
                f"{self._holder.lifetime:.0f} s); nothing was committed, another worker may have it"
            )
            raise LeaseHeldError(message)

    def release(self) -> None:
        """Mark it released, if it is still ours."""
        self._stopped.set()
        self._thread.join()
        if self._version is not None:
            self._put(self._holder.model_copy(update={"released": True}), expected=self._version)

    def _acquired(self) -> dict[str, str]:
        version = self._put(self._holder, expected=None)
        if version is None:
            version = self._taken_over()
        return version

    def _taken_over(self) -> dict[str, str]:
        text, seen, written = self._objects.read_version(self._path)
        current = _parsed(text)
        if current is not None and current.token == self._holder.token:
            return seen  # our own request, repeated after its answer was lost
        if current is not None and not current.released:
            if time.time() - written < current.lifetime:
                raise _held(self._name, text)
            _log.warning("%s: took over from %s, who stopped", self._name, current.host)
        version = self._put(self._holder, expected=seen)
        if version is None:
            raise _held(self._name, self._objects.read(self._path))
        return version

    def _put(self, holder: _Holder, *, expected: dict[str, str] | None) -> dict[str, str] | None:
        return self._objects.write_version(self._path, holder.model_dump_json().encode(), expected)

    def _renew_forever(self) -> None:
        while not self._stopped.wait(self._holder.lifetime / 3):
            if not self._renew():
                return

    def _renew(self) -> bool:
        """Renew once; False if the lease is lost for good."""
        try:
            self._version = self._put(self._holder, expected=self._version) or self._own_version()
        except TransientError as error:
            _log.warning("%s: not renewed, will try again: %s", self._name, error)
            return True
        if self._version is None:
            _log.warning("%s: lost to another worker", self._name)
            return False
        self._renewed = time.monotonic()
        return True

    def _own_version(self) -> dict[str, str] | None:
        """Version of an earlier renewal of ours whose answer got lost; None if it is not ours."""
        text, version, _ = self._objects.read_version(self._path)
        current = _parsed(text)
        ours = current is not None and current.token == self._holder.token
        return version if ours else None


def _parsed(text: bytes) -> _Holder | None:
    try:
        return _Holder.model_validate_json(text)
    except ValidationError:
        return None


def _held(name: str, text: bytes) -> LeaseHeldError:
    holder = _parsed(text)
    if holder is None:
        who = "a worker that has not written its name yet"
    else:
        age = time.time() - holder.since
        who = f"process {holder.pid} on {holder.host} for {age:.0f} s"
    message = f"{name} is held by {who}; wait for it, or stop that process"
    return LeaseHeldError(message)
