"""Full disks: the error of a run that finds no room."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import InputError
from storage.files import NO_SPACE


@contextmanager
def explain_no_room(folder: Path) -> Iterator[None]:
    """Explain the error of a write that found no room; other errors pass.

    Args:
        folder: Where is written.

    Raises:
        InputError: If the disk is full, or the quota or the limit of a file's size is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        message = (
            f"no room in {folder} ({error.strerror}, {shutil.disk_usage(there).free} bytes are "
            "free): free some space and start the same run again; it goes on from its newest "
            "checkpoint, which is still there"
        )
        raise InputError(message) from error
