"""Pictures as a command line names them: files, folders and globs."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage.errors import InputError

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def list_pictures(places: Sequence[Path]) -> list[Path]:
    """List the pictures that files, folders and globs stand for, each once.

    A file is taken whatever its name, so that a wrong one is told and not left out. Of a folder the
    JPEG and PNG files right in it are taken, by their names; of a glob such as `photos/**/*.jpg`
    the files that it matches. Hidden files are left out of both.

    Args:
        places: What was written; a name that exists is taken as it is, though it may look like a
            glob.

    Returns:
        Paths, those of a folder or a glob in the order of their names.

    Raises:
        InputError: If one of them is not there, is no ordinary file, or stands for no picture.
    """
    if not places:
        message = "there is nothing to look at: name pictures, folders or globs"
        raise InputError(message)
    found: dict[Path, Path] = {}
    for place in places:
        for path in _pictures_of(place):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _pictures_of(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    elif place.is_dir():
        yield from _required(place, _pictures_in(place), "holds no JPEG or PNG file")
    elif place.exists():
        message = f"{place} is no ordinary file, expected a picture; give another path"
        raise InputError(message)
    elif glob.has_magic(str(place)):
        paths = sorted(map(Path, glob.glob(str(place), recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute pattern
        yield from _required(place, [path for path in paths if path.is_file()], "matches no file")
    else:
        message = (
            f"{place} does not exist, expected a picture, a folder or a glob; words are given by "
            "--word"
        )
        raise InputError(message)


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _required(place: Path, found: list[Path], what: str) -> list[Path]:
    if not found:
        message = f"{place} {what}; give another path"
        raise InputError(message)
    return found
