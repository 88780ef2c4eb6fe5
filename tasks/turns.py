"""Turns on devices: one caller at a time computes on a GPU, whatever process it is in."""

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.devices import device_name
from storage.errors import InputError

_LOOK_SECONDS = 0.05
"""Seconds between two looks at a GPU that another process computes on."""


class Turns:
    """The turns that the threads of one run take on devices.

    Threads of a run take turns on every device. Processes, and runs of one process, take turns on a
    GPU, by a lock that the kernel frees with its holder; on CPUs they run side by side.

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
        self._locks: dict[str, Any] = {}
        self._held: set[str] = set()

    @contextmanager
    def turn(self, device: str) -> Iterator[None]:
        """Wait for a device and keep it until the block ends; a thread may ask again inside.

        Args:
            device: As in a model's config.

        Raises:
            InputError: If the device is not there, or locks cannot be kept.
        """
        name = self._name(device)
        with self._guard:
            lock = self._locks.setdefault(name, threading.RLock())
        while not lock.acquire(timeout=_LOOK_SECONDS):
            self._check()
        try:
            with self._among_processes(name):
                yield
        finally:
            lock.release()

    @contextmanager
    def _among_processes(self, name: str) -> Iterator[None]:
        """Hold a GPU's lock file; the caller holds the thread's lock."""
        if not name or name in self._held:
            yield
            return
        path = (self._folder or _own_folder()) / f"{name}.lock"
        with path.open("a") as file:
            while not _try_lock(file.fileno()):
                self._check()
                time.sleep(_LOOK_SECONDS)
            self._held.add(name)
            try:
                yield
            finally:
                self._held.remove(name)


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
