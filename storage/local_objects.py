"""Named bytes on a local disk."""

import contextlib
import errno
import fcntl
import io
import logging
import os
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from storage.crashes import crash_point
from storage.errors import InputError
from storage.files import TEMP_SUFFIX, sync_folder, temp_path

_YOUNG_SECONDS = 60
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTSUP, errno.ENOTDIR}

_log = logging.getLogger(__name__)


class LocalObjects:
    """Files below a folder, written with the standard library.

    A write goes to a hidden file in the target's folder, is forced to the disk, and then gets its
    name by a hard link (which fails if the name is taken) or a rename. It is not read back: that
    would show the copy in memory and not what is on the disk. Readers compare digests.

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
        except (FileNotFoundError, NotADirectoryError):
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
        sync_folder(target.parent)
        crash_point(f"named:{path}")
        return True

    def replace(self, path: str, data: bytes | memoryview) -> None:
        """Rename finished bytes over a file."""
        target = self.root / path
        with self._finished(target, data) as temp:
            crash_point(f"temp:{path}")
            temp.replace(target)
        sync_folder(target.parent)
        crash_point(f"named:{path}")

    def move(self, source: str, target: str) -> bool:
        """Rename a file."""
        old, new = self.root / source, self.root / target
        _make_folder(new.parent)
        try:
            old.rename(new)
        except FileNotFoundError:
            return False
        sync_folder(new.parent)
        sync_folder(old.parent)
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
        removed: list[str] = []
        for path in self._files(folder):
            if path.suffix == TEMP_SUFFIX and _is_abandoned(path):
                path.unlink(missing_ok=True)
                removed.append(path.relative_to(self.root).as_posix())
        if removed:
            _log.info("removed %d temporary files of writers that died", len(removed))
        return removed

    def prune(self, folder: str) -> None:
        """Remove the empty folders below a folder, and itself; for folders that nobody writes to.

        Args:
            folder: Relative to the root.
        """
        for place, _, _ in os.walk(self.root / folder, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(place).rmdir()

    def _files(self, folder: str) -> Iterator[Path]:
        for place, _, names in os.walk(self.root / folder):
            yield from (Path(place, name) for name in names)

    @contextlib.contextmanager
    def _finished(self, target: Path, data: bytes | memoryview) -> Generator[Path]:
        """Write a hidden file beside the target: on the disk, locked; gone afterwards."""
        temp = temp_path(target)
        try:
            _make_folder(temp.parent)
            with temp.open("xb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    yield temp
                finally:
                    temp.unlink(missing_ok=True)
        except OSError as error:
            raise self._explained(error, target, len(data)) from error

    def _explained(self, error: OSError, target: Path, wanted: int) -> Exception:
        """Explain the errors that a user can do something about; leave the others."""
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
    sync_folder(folder.parent)


def _existing(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.exists())
