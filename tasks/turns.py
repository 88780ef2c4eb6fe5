"""Turns on devices: one caller at a time computes on a GPU, whatever process it is in."""

import fcntl
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.devices import device_name
from storage.errors import InputError

_LOOK_SECONDS = 0.05
"""Seconds between two looks at a GPU that another process computes on."""


class _Line:
    """Threads that wait for one device: whoever has the lowest place is next, whenever it came."""

    def __init__(self) -> None:
        self.owner: int | None = None
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._numbers = itertools.count()

    def enter(self, place: int, check: Callable[[], None]) -> None:
        """Wait until the device is free and nobody with a lower place waits for it."""
        with self._changed:
            own = (place, next(self._numbers))
            self._waiting.append(own)
            try:
                while self.owner is not None or min(self._waiting) != own:
                    if not self._changed.wait(_LOOK_SECONDS):
                        check()
                self.owner = threading.get_ident()
            finally:
                self._waiting.remove(own)
                self._changed.notify_all()

    def leave(self) -> None:
        """Let the next one have the device."""
        with self._changed:
            self.owner = None
            self._changed.notify_all()


class Turns:
    """The turns that the threads of one run take on devices.

    Threads of a run take turns on every device, in the order in which their work has begun: a shard
    that had a turn earlier than another one goes before it, on all devices. So shards are finished
    one after the other, and whoever waits has at most the shards in flight before it. Processes,
    and runs of one process, take turns on a GPU, by a lock that the kernel frees with its holder;
    on CPUs they run side by side.

    A GPU is known by its UUID: `cuda` and `cuda:0` are one, and what two workers with different
    `CUDA_VISIBLE_DEVICES` both call `cuda:0` are two.

    Args:
        check: Called while waiting; raises to give up.
        name: Names a configured device; equal names are one device. Empty for what is not shared
            with other processes.
        folder: Where the locks lie; by default a folder of the user's own.
    """

    def __init__(
        self,
        check: Callable[[], None],
        *,
        name: Callable[[str], str] = device_name,
        folder: Path | None = None,
    ) -> None:
        self._check = check
        self._name = name
        self._folder = folder
        self._guard = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._places: dict[str, int] = {}

    @contextmanager
    def turn(self, device: str, *, of: str = "") -> Iterator[None]:
        """Wait for a device and keep it until the block ends; a thread may ask again inside.

        Args:
            device: As in a model's config.
            of: Whose turn it is, such as a shard's name; its first turn on any device gives it its
                place.

        Raises:
            InputError: If the device is not there, or locks cannot be kept.
        """
        name = self._name(device)
        with self._guard:
            line = self._lines.setdefault(name, _Line())
            place = self._places.setdefault(of, len(self._places))
        if line.owner == threading.get_ident():
            yield
            return
        line.enter(place, self._check)
        try:
            with self._among_processes(name):
                yield
        finally:
            line.leave()

    @contextmanager
    def _among_processes(self, name: str) -> Iterator[None]:
        """Hold a GPU's lock file; the caller is the only thread of this run that may.

        Whoever is next holds a second file. Without it a process with several threads would have
        turn after turn, since its own threads are quicker than others that look now and then.
        """
        if not name:
            yield
            return
        folder = self._folder or _own_folder()
        with (folder / f"{name}.lock").open("a") as file:
            with (folder / f"{name}.next").open("a") as following:
                self._lock(following.fileno())
                self._lock(file.fileno())
            yield

    def _lock(self, descriptor: int) -> None:
        while not _try_lock(descriptor):
            self._check()
            time.sleep(_LOOK_SECONDS)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _own_folder() -> Path:
    """A folder for locks that belongs to this user: another one's lock could not be opened.

    Raises:
        InputError: If somebody else owns a folder of that name.
    """
    folder = Path(tempfile.gettempdir()) / f"magicseg-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
        message = (
            f"{folder} belongs to another user, expected a folder of yours for the locks of GPUs: "
            "remove it, or set TMPDIR to another folder"
        )
        raise InputError(message)
    return folder
