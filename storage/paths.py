"""Paths of this machine as people write them."""

import os
from pathlib import Path

from storage.errors import InputError


def local_path(text: str | Path, what: str = "the path") -> Path:
    """Read a path: `~` is the home folder, as a shell has it.

    Args:
        text: What was written.
        what: What messages call it, such as "the root".

    Raises:
        InputError: If it is empty or a URL, no system has such a path, or it names the home of a
            user who is unknown. Whether something is there is found out by whoever opens it.
    """
    written = str(text)
    if not written.strip():
        message = f"{what} is {written!r}, expected a path; the current folder is '.'"
        raise InputError(message)
    if "\0" in written:
        message = f"{what} is {written!r}, expected one without the character NUL; give another"
        raise InputError(message)
    if "://" in written:
        message = f"{what} is {written!r}, expected a path of this machine and not a URL"
        raise InputError(message)
    expanded = os.path.expanduser(written)  # noqa: PTH111 - for pathlib ./~ is ~ too
    if expanded == written and written.startswith("~"):
        message = (
            f"{what} is {written!r}, but there is no home folder of {Path(written).parts[0]}; "
            f"write the path in full, or ./{written} for a folder of that name"
        )
        raise InputError(message)
    path = Path(expanded)
    return path.absolute() if str(path).startswith("~") else path  # it may be read once more


def absolute_path(text: str | Path, what: str = "the path") -> Path:
    """Read a path as `local_path`, from the root of the file system.

    Raises:
        InputError: As `local_path`, and if the current folder is gone.
    """
    path = local_path(text, what)
    try:
        return path.absolute()
    except FileNotFoundError as error:
        message = "the current folder is gone; go to another one with 'cd'"
        raise InputError(message) from error


def cache_folder() -> Path | None:
    """Where this user's programs keep what can be made again; nothing where there is no home."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "")
    if not folder.is_absolute():
        try:
            folder = Path.home() / ".cache"
        except RuntimeError:
            return None
    return folder / "magicseg"


def check_place(text: str, what: str) -> str:
    """Check a path or a URL, and return it as it was written.

    Raises:
        InputError: As `local_path`; a URL may hold no control characters either.
    """
    if "://" not in text:
        local_path(text, what)
    elif not text.isprintable():
        message = f"{what} is {text!r}, expected a URL of printable characters"
        raise InputError(message)
    return text
