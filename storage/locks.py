"""Locks on folders of this machine: one process at a time writes into a folder.

The kernel holds the lock and frees it when the process ends, however it ends. A run's folder, a
folder of scores and an export are locked by whoever works in them: a command line, a child of a
flow, a notebook.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import InputError, LeaseHeldError
from storage.leases import Lease, take_lease
from storage.local_objects import LocalObjects

LOCK_FILE = ".lock"
"""Name of the file that is locked; it stays, and tells who holds the lock or held it last."""


@contextmanager
def hold_folder(folder: Path) -> Generator[None]:
    """Be the only one that works in a folder until the block ends.

    Args:
        folder: Made if missing.

    Raises:
        InputError: If the folder cannot be made or written to.
        LeaseHeldError: If somebody else is at work there, in this process or another one.
    """
    lease = _taken(folder)
    try:
        yield
    finally:
        lease.release()


def _taken(folder: Path) -> Lease:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return take_lease(LocalObjects(folder.absolute()), LOCK_FILE)
    except LeaseHeldError as error:
        message = f"somebody is at work in {folder}: {error}, or choose another folder"
        raise LeaseHeldError(message) from error
    except OSError as error:
        message = f"{folder} cannot be written to ({error.strerror}): choose another folder"
        raise InputError(message) from error
