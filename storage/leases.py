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

from storage.disk_errors import explained
from storage.errors import EngineError, LeaseHeldError
from storage.local_objects import LocalObjects
from storage.objects import ObjectStore
from storage.records import Record
from storage.remote_objects import RemoteObjects
from storage.server_clock import latest_age

_LIFETIME_SECONDS = 90.0
_LONGEST_LIFETIME = 3600.0
_SERVER_ROUNDING = 2.0  # see `server_clock`
_RENEWALS, _ATTEMPTS = 3, 15  # in a lifetime
_FIRST_PAUSE = 0.1
_LONGEST_LOCAL_PAUSE = 1.0
_LONGEST_PAUSE = 5.0
_LONGEST_WITHOUT_CHECK = 0.5

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
    lifetime: float = Field(default=_LIFETIME_SECONDS, gt=0, le=_LONGEST_LIFETIME)
    """Seconds after the last renewal at which anybody may take it over (object stores only)."""
    held: float = Field(default=0.0, ge=0)
    """Seconds for which it had been held at the last renewal (object stores only)."""


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
    for ``lifetime`` seconds by the server's clock; the clocks of the clients do not matter.

    Args:
        objects: Where the outputs live.
        path: The lease's own path.
        lifetime: Seconds without renewal after which a lease in an object store is void, at most
            an hour.

    Raises:
        LeaseHeldError: Somebody else holds it; the message names the holder, and in an object
            store how long it can take at most until a dead holder's lease is free.
    """
    return _taken(objects, path, lifetime, _Watch())


def wait_for_lease(
    objects: ObjectStore,
    path: str,
    check: Callable[[], None],
    *,
    lifetime: float = _LIFETIME_SECONDS,
) -> Lease:
    """Take a lease as soon as it is free; a dead holder's one, too.

    Whether a holder in an object store has died is told by its lease, which stays the same for
    ``lifetime`` seconds of this process's own time, or by the server's clock: what comes first.

    Args:
        objects: Where the outputs live.
        path: The lease's own path.
        check: Called twice a second while waiting; what it raises ends the waiting.
        lifetime: See `take_lease`.
    """
    longest = _LONGEST_LOCAL_PAUSE if isinstance(objects, LocalObjects) else _LONGEST_PAUSE
    pause, watch = _FIRST_PAUSE, _Watch()
    while True:
        check()
        try:
            return _taken(objects, path, lifetime, watch)
        except LeaseHeldError as error:
            _log.debug("waiting: %s", error)
        end = time.monotonic() + pause
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LONGEST_WITHOUT_CHECK))
            check()
        pause = min(2 * pause, longest)


def _taken(objects: ObjectStore, path: str, lifetime: float, watch: "_Watch") -> Lease:
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
        return _ObjectLease(objects, path, holder, watch)
    message = f"no kind of lease is known for {type(objects).__name__}"
    raise TypeError(message)


class _Watch:
    """How long one who waits has seen a lease unchanged, by this process's own clock."""

    def __init__(self) -> None:
        self._version: dict[str, str] | None = None
        self._since = 0.0

    def unchanged(self, version: dict[str, str], asked: float) -> float:
        """Seconds for which this version has been there, at least.

        Args:
            version: What is there.
            asked: When the question was sent; its answer may have taken long.
        """
        if version != self._version:
            self._version, self._since = version, time.monotonic()
        return max(0.0, asked - self._since)


class _FileLease:
    """A kernel lock on a file that is never removed; the file tells who holds it."""

    def __init__(self, objects: LocalObjects, path: str, holder: _Holder) -> None:
        name = f"{objects.url}/{path}"
        if objects.size(path) is None:
            objects.write_new(path, b"")
        place = objects.place(path)
        with explained(place, "lock"):
            self._file: IO[bytes] = place.open("r+b")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = self._file.read()
                self._file.close()
                raise _held_here(name, text) from None
            except OSError:
                self._file.close()
                raise
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

    def __init__(self, objects: RemoteObjects, path: str, holder: _Holder, watch: _Watch) -> None:
        self._objects = objects
        self._path = path
        self._name = f"{objects.url}/{path}"
        self._holder = holder
        self._watch = watch
        self._stopped = threading.Event()
        # before the request: the server dates it later
        self._begun = self._renewed = time.monotonic()
        self._version: dict[str, str] | None = self._acquired()
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
        """Mark it released, if it is still ours; if that fails it runs out by itself."""
        self._stopped.set()
        self._thread.join()
        if self._version is None:
            return
        try:
            self._put(self._holder.model_copy(update={"released": True}), expected=self._version)
        except EngineError as error:
            _log.warning(
                "%s: not given back, free in %.0f s: %s", self._name, self._holder.lifetime, error
            )

    def _acquired(self) -> dict[str, str]:
        version = self._put(self._holder, expected=None)
        return self._taken_over() if version is None else version

    def _taken_over(self) -> dict[str, str]:
        asked = time.monotonic()
        try:
            text, seen, written = self._objects.read_version(self._path)
        except FileNotFoundError:  # somebody removed it at this moment
            raise _held(self._name, None, 0.0, self._holder.lifetime) from None
        current = _parsed(text)
        if current is None or not current.released:
            self._require_dead(current, self._watch.unchanged(seen, asked), written)
        self._begun = self._renewed = time.monotonic()
        version = self._put(self._holder, expected=seen)
        if version is None:  # another one was faster
            raise _held(self._name, None, 0.0, self._holder.lifetime)
        return version

    def _require_dead(self, current: _Holder | None, unchanged: float, written: float) -> None:
        """Raise LeaseHeldError if the holder may be alive; clocks of clients do not count."""
        lifetime = self._holder.lifetime if current is None else current.lifetime
        age = unchanged if unchanged > lifetime else latest_age(self._objects, written)
        if age < lifetime:
            raise _held(self._name, current, age, lifetime - max(age, unchanged))
        host = "a worker" if current is None else current.host
        _log.warning("%s: took over from %s, who stopped", self._name, host)

    def _put(
        self, holder: _Holder, *, expected: dict[str, str] | None, repeated: bool = True
    ) -> dict[str, str] | None:
        data = holder.model_dump_json().encode()
        return self._objects.write_version(self._path, data, expected, repeated=repeated)

    def _renew_forever(self) -> None:
        lifetime = self._holder.lifetime
        pause = lifetime / _RENEWALS
        while not self._stopped.wait(pause):
            pause = lifetime / _RENEWALS
            try:
                self._renew()
            except EngineError as error:
                _log.warning("%s: not renewed, will try again: %s", self._name, error)
                pause = lifetime / _ATTEMPTS
            if self._version is None:
                _log.warning("%s: lost to another worker", self._name)
                return

    def _renew(self) -> None:
        """Renew once; the version is None if the lease is lost for good."""
        begun = time.monotonic()
        # other bytes than before, so that the version tells a renewal
        renewal = self._holder.model_copy(update={"held": begun - self._begun})
        # one attempt at a time: the age counts from the one that succeeded
        version = self._put(renewal, expected=self._version, repeated=False)
        if version is None:
            own = self._own_version()
            begun = time.monotonic()
            if own is not None:  # an earlier renewal, whose answer got lost
                version = self._put(renewal, expected=own, repeated=False)
        self._version = version
        self._renewed = begun

    def _own_version(self) -> dict[str, str] | None:
        """Version of an earlier renewal of ours whose answer got lost; None if it is not ours."""
        try:
            text, version, _ = self._objects.read_version(self._path)
        except FileNotFoundError:
            return None
        current = _parsed(text)
        ours = current is not None and current.token == self._holder.token
        return version if ours else None


def _parsed(text: bytes) -> _Holder | None:
    try:
        return _Holder.model_validate_json(text)
    except ValidationError:
        return None


def _held_here(name: str, text: bytes) -> LeaseHeldError:
    holder = _parsed(text)
    if holder is None:
        who = "a worker that has not written its name yet"
    else:
        age = max(0.0, time.time() - holder.since)
        who = f"process {holder.pid} on {holder.host} for {age:.0f} s"
    message = f"{name} is held by {who}; wait for it, or stop that process"
    return LeaseHeldError(message)


def _held(name: str, holder: _Holder | None, age: float, left: float) -> LeaseHeldError:
    """Say who holds a lease in an object store.

    Args:
        name: The lease's URL.
        holder: Its holder, if known.
        age: Seconds since it was renewed, at least.
        left: Seconds until it is void if it is not renewed.
    """
    who = "another worker"
    if holder is not None:
        who = f"process {holder.pid} on {holder.host} for {holder.held + age:.0f} s"
    message = (
        f"{name} is held by {who}; wait for it, or, if that process has died, for at most "
        f"{left + _SERVER_ROUNDING:.0f} s more: then run the same command again"
    )
    return LeaseHeldError(message)
