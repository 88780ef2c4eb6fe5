"""Named bytes on a local disk."""

import contextlib
import errno
import fcntl
import io
import logging
import os
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from storage.concurrent_reads import read_in_order
from storage.crashes import crash_point
from storage.disk_errors import disk_error, explained
from storage.errors import DataError, InputError
from storage.files import TEMP_SUFFIX, sync_folder, temp_path
from storage.object_names import check_folder, check_name

_YOUNG_SECONDS = 60

_log = logging.getLogger(__name__)


class LocalObjects:
    """Files below a folder, written with the standard library.

    A write goes to a hidden file in the target's folder, is forced to the disk, and then gets its
    name by a hard link (which fails if the name is taken) or a rename. It is not read back: that
    would show the copy in memory and not what is on the disk. Readers compare digests.

    The root may be a symbolic link. Below it links to files may lead to other places below it;
    what leads outside is refused, and so are links to folders in a listing: a dataset that came
    from elsewhere reads and writes nothing but itself.

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
        with self.open(path) as file, explained(self.root / path, "read"):
            return file.read()

    def read_many(
        self, paths: Sequence[str], workers: int = 8
    ) -> Iterator[tuple[str, bytes | None]]:
        """Read files side by side, see `ObjectStore`."""
        return read_in_order(self.read, paths, workers)

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """Read a part of a file."""
        with self.open(path) as file, explained(self.root / path, "read"):
            file.seek(offset)
            return file.read(size)

    def open(self, path: str) -> io.BufferedIOBase:
        """Open a file for reading."""
        place = self.place(path)
        with explained(place, "read"):
            # a pipe would make a reader wait for ever
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                _require_file(os.fstat(descriptor), place)
            except BaseException:
                os.close(descriptor)
                raise
            return os.fdopen(descriptor, "rb")

    def size(self, path: str) -> int | None:
        """Size in bytes, or None."""
        place = self.place(path)
        try:
            with explained(place, "read"):
                found = place.stat()
                _require_file(found, place)
                return found.st_size
        except FileNotFoundError:
            return None

    def paths(self, folder: str) -> list[str]:
        """List files below a folder, sorted."""
        start = len(str(self.root).rstrip("/")) + 1
        return sorted(path[start:] for path in self._files(folder) if path[-4:] != TEMP_SUFFIX)

    def write_new(self, path: str, data: bytes | memoryview) -> bool:
        """Create a file by a hard link to finished bytes."""
        target = self.place(path)
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
        target = self.place(path)
        with self._finished(target, data) as temp:
            crash_point(f"temp:{path}")
            temp.replace(target)
            sync_folder(target.parent)
        crash_point(f"named:{path}")

    def move(self, source: str, target: str) -> bool:
        """Rename a file."""
        old, new = self.place(source), self.place(target)
        with explained(new, "write"):
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
        place = self.place(path)
        with explained(place, "remove"):
            place.unlink(missing_ok=True)
        crash_point(f"deleted:{path}")

    def sweep(self, folder: str) -> list[str]:
        """Remove the temporary files of dead writers; a living one holds a lock on its own.

        Args:
            folder: Where to look, at any depth.

        Returns:
            What was removed.
        """
        removed: list[str] = []
        for path in map(Path, self._files(folder)):
            if path.suffix != TEMP_SUFFIX:
                continue
            with explained(path, "remove"):
                if not _is_abandoned(path):
                    continue
                path.unlink(missing_ok=True)
                removed.append(path.relative_to(self.root).as_posix())
        if removed:
            _log.info("removed %d temporary files of writers that died", len(removed))
        return removed

    def place(self, path: str) -> Path:
        """The file that a path names, at this moment.

        Raises:
            DataError: The path is none inside a dataset, or a symbolic link leads out of the root.
        """
        check_name(path)
        self._require_inside(self.root / path)
        return self.root / path

    def prune(self, folder: str) -> None:
        """Remove the empty folders below a folder, and itself; for folders that nobody writes to.

        Args:
            folder: Relative to the root.
        """
        check_folder(folder)
        for place, _, _ in os.walk(self.root / folder, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(place).rmdir()

    def _require_inside(self, place: Path) -> None:
        real = os.path.realpath(place)
        if real == str(place):
            return
        root = os.path.realpath(self.root)
        if real != root and not real.startswith(root.rstrip("/") + "/"):
            message = (
                f"{place} leads to {real} by a symbolic link, out of the dataset {self.root}: "
                "move the files in; to keep them on another disk, let the whole root be a link, or "
                "mount the disk there ('mount --bind')"
            )
            raise DataError(message)

    def _files(self, folder: str) -> Iterator[str]:
        """Files below a folder; nothing where there is no folder."""
        check_folder(folder)
        top = self.root / folder
        self._require_inside(top)
        for place, folders, names in os.walk(top, onerror=_refuse_listing):
            for name in folders:
                path = f"{place}/{name}"
                # os.walk would leave out what lies behind it
                if os.path.islink(path):  # noqa: PTH114 - a path object for each name is slow
                    message = (
                        f"{path} is a symbolic link to a folder, and its files would not be "
                        "listed: put the folder itself there"
                    )
                    raise InputError(message)
            yield from (f"{place}/{name}" for name in names)

    @contextlib.contextmanager
    def _finished(self, target: Path, data: bytes | memoryview) -> Generator[Path]:
        """Write a hidden file beside the target: on the disk, locked; gone afterwards."""
        temp = temp_path(target)
        with explained(target, "write", wanted=len(data)):
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


def _refuse_listing(error: OSError) -> None:
    """Raise what a listing met; a folder that is gone, or was never there, is empty."""
    if not isinstance(error, FileNotFoundError):
        raise disk_error(error, Path(error.filename), "list") from error


def _require_file(found: os.stat_result, place: Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
    if not stat.S_ISREG(found.st_mode):
        message = f"{place} is no file but a pipe, a socket or a device; move it away"
        raise InputError(message)


def _is_abandoned(temp: Path) -> bool:
    try:
        with temp.open("rb") as file:
            # A newborn may not have its lock yet. What is dated far ahead is none: clocks differ
            # by less, and a writer sets the date when it writes.
            age = _now(temp.parent) - os.fstat(file.fileno()).st_mtime
            if abs(age) < _YOUNG_SECONDS:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    except PermissionError:
        _log.info("%s is of another user; whether its writer lives cannot be seen", temp)
        return False
    return True


def _now(folder: Path) -> float:
    """How a file that is written in a folder now is dated: by the clock of the disk's host."""
    probe = temp_path(folder / "clock")
    try:
        probe.touch(exist_ok=False)
        return probe.stat().st_mtime
    except OSError:  # a full disk: the sweep is about to make room
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


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
