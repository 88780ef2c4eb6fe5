"""Errors of a local disk in words: what could not be done where, why, and the way out."""

import contextlib
import errno
import os
import pwd
import shutil
import stat
from collections.abc import Generator
from pathlib import Path

from storage.errors import EngineError, InputError, TransientError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM}
# a disk or a server that may come back
_NOT_ANSWERING = {
    errno.EIO,
    errno.ESTALE,
    errno.ENXIO,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ENOTCONN,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.EREMOTEIO,
}
_ROOT = "{root}"
_WRITABLE = "; choose a {root} that this user can write to, on a file system with hard links"
_FEWER_FILES = "; raise the limit with 'ulimit -n 4096', or run fewer processes at once"
_WAYS_OUT = {
    **dict.fromkeys((errno.EROFS, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK), _WRITABLE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _FEWER_FILES),
    errno.ENOENT: "; its folder cannot be made, or was removed meanwhile: choose another {root}",
    errno.EISDIR: ": it is a folder, and a file is expected there; move it away",
    errno.ENAMETOOLONG: "; a name has at most 255 bytes and a path 4096: choose a shorter {root}",
    errno.ELOOP: ": symbolic links lead in a circle; put the folder itself there",
    errno.ENOLCK: "; choose a {root} on a file system that has locks",
}
_ASKING = {"read", "list", "remove"}
_SHOWN = 200


@contextlib.contextmanager
def explained(path: Path, doing: str, *, wanted: int = 0, place: str = "root") -> Generator[None]:
    """Turn errors of the operating system into errors with a way out.

    Args:
        path: What the block works on.
        doing: What it does with it, as in "cannot <doing> the file".
        wanted: Bytes that it writes.
        place: What people call the folder that they chose.

    Raises:
        FileNotFoundError: Nothing that could be read, listed or removed has this name; callers
            know what that means.
        EngineError: See `disk_error`.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and doing in _ASKING:
            raise
        raise disk_error(error, path, doing, wanted=wanted, place=place) from error


def disk_error(
    error: OSError, path: Path, doing: str, *, wanted: int = 0, place: str = "root"
) -> EngineError:
    """Say what the operating system refused; see `explained`.

    Returns:
        InputError if somebody must change something, TransientError if the disk may come back.
    """
    why = error.strerror or str(error)
    what = f"cannot {doing} {_shortened(path)} ({why})"
    code = error.errno
    if code in _NO_SPACE:
        free = shutil.disk_usage(_existing(path)).free
        return InputError(
            f"no room for {path}: wanted {wanted} bytes, {free} are free "
            f"({why}); free some space there and run the same command again"
        )
    if code in _NOT_ANSWERING:
        return TransientError(
            f"{what}: the disk or the network file system does not answer as it should; check it "
            "('mount', 'dmesg') and run the same command again"
        )
    return InputError(f"{what}{_way_out(code, path, doing).replace(_ROOT, place)}")


def _way_out(code: int | None, path: Path, doing: str) -> str:
    if code in _NOT_ALLOWED:
        return _refusal(path, doing)
    if code == errno.ENOTDIR:
        file = next((each for each in reversed(path.parents) if each.is_file()), path)
        return f": {file} is a file, and a folder is expected there; choose another {_ROOT}"
    return _WAYS_OUT.get(code or 0, "; check the file system there, or choose another {root}")


def _refusal(path: Path, doing: str) -> str:
    """Who may not do it, and whose it is."""
    culprit = _culprit(path)
    who = _name(os.geteuid())
    whose = ""
    with contextlib.suppress(OSError):
        found = culprit.stat()
        whose = f", which belongs to {_name(found.st_uid)} ({stat.filemode(found.st_mode)})"
    at = f": user {who} has no right to it at {_shortened(culprit)}{whose}"
    if doing in {"read", "list"}:
        return f"{at}; ask its owner for 'chmod -R a+rX', or run as its owner"
    return f"{at}{_WRITABLE}"


def _culprit(path: Path) -> Path:
    """The first folder on the way that cannot be entered, or the end of the way."""
    for folder in reversed(path.parents):
        if folder.is_dir() and not os.access(folder, os.X_OK):
            return folder
    if os.path.lexists(path) and not os.access(path, os.W_OK):
        return path
    return _existing(path)


def _existing(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if os.path.exists(parent))  # noqa: PTH110 - says False where it may not look


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _shortened(path: Path) -> str:
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}...{text[-_SHOWN // 2 :]}"
