"""Locks on folders of this machine: one process at a time writes into a folder.

The kernel holds the lock and frees it when the process ends, however it ends. A run's folder, a
folder of scores and an export are locked by whoever works in them: a command line, a child of a
flow, a notebook.
"""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from storage.errors import InputError, LeaseHeldError
from storage.files import NO_SPACE, TEMP_SUFFIX, remove
from storage.leases import Lease, take_lease
from storage.local_objects import LocalObjects

LOCK_FILE = ".lock"
"""Name of the file that is locked; it stays, and tells who holds the lock or held it last."""


LOG_FOLDER = "logs"
"""Name of the folder with the log files of local runs."""


@contextmanager
def hold_folder(folder: Path) -> Generator[None]:
    """Be the only one that works in a folder until the block ends.

    Args:
        folder: Made if missing.

    Raises:
        InputError: If the folder cannot be made or written to.
        OSError: If there is no space for the lock.
        LeaseHeldError: If somebody else is at work there, in this process or another one.
    """
    lease = _taken(folder)
    try:
        yield
    finally:
        lease.release()


@contextmanager
def hold_file(file: Path) -> Generator[None]:
    """Be the only one that writes a file until the block ends, and leave no lock behind.

    Args:
        file: Its folder is made if missing.

    Raises:
        InputError: If the folder cannot be made or written to.
        OSError: If there is no space for the lock.
        LeaseHeldError: If somebody else writes the file, in this process or another one.
    """
    name = f".{file.name}{LOCK_FILE}"
    lease = _taken(file.parent, name)
    try:
        yield
    finally:
        remove(file.parent / name)
        lease.release()


def refuse_other_files(
    folder: Path, what: str, *, marks: Collection[str], early: Collection[str] = ()
) -> None:
    """Refuse a folder that holds files, but none of those that tell that it is ours.

    Args:
        folder: It may be missing or empty.
        what: What is expected there, such as "an export".
        marks: Patterns of names; where one is, the work was begun by us and others may stand beside
            it.
        early: Patterns of what may be there before the first mark, and tells nothing.

    Raises:
        InputError: If the folder holds something else.
    """
    if not folder.is_dir():  # what else is there is told by whoever works in it
        return
    names = sorted(path.name for path in folder.iterdir())
    early = (LOCK_FILE, LOG_FOLDER, f".*{TEMP_SUFFIX}", *early)
    others = [name for name in names if not _matches(name, early)]
    if others and not any(_matches(name, marks) for name in names):
        message = (
            f"{folder} holds other files (such as {others[0]!r}), expected {what} or an empty "
            "folder: choose another one"
        )
        raise InputError(message)


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _taken(folder: Path, name: str = LOCK_FILE) -> Lease:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return take_lease(LocalObjects(folder.absolute()), name)
    except LeaseHeldError as error:
        message = f"somebody is at work in {folder}: {error}, or choose another folder"
        raise LeaseHeldError(message) from error
    except (OSError, InputError) as error:
        # objects speak of roots and of the lock file, which nobody has named
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        if cause.errno in NO_SPACE:
            raise cause from None
        message = f"{folder} cannot be written to ({cause.strerror}): choose another folder"
        raise InputError(message) from error
