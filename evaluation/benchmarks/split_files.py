"""Files of a split: which images are taken, whether all are there, and how one is opened."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from storage.errors import DataError, InputError
from storage.identity import digest

_MAX_LISTED = 5

ItemT = TypeVar("ItemT")


def spread(items: Sequence[ItemT], limit: int | None) -> list[ItemT]:
    """Take so many items, evenly spread from the first on; all if there is no limit."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def require_files(missing: Sequence[Path], split: str, had_from: str) -> None:
    """Refuse a split that is not whole.

    Args:
        missing: What is not there.
        split: Name of the split.
        had_from: Where the files are had, as part of a sentence.

    Raises:
        InputError: Naming the first missing files, their number and where they are had.
    """
    if missing:
        listed = ", ".join(str(path) for path in missing[:_MAX_LISTED])
        more = "" if len(missing) <= _MAX_LISTED else f" and {len(missing) - _MAX_LISTED} more"
        message = (
            f"{len(missing)} files of the split {split} are missing: {listed}{more}; {had_from}"
        )
        raise InputError(message)


def describe_files(keys: Sequence[str], paths: Sequence[Path]) -> str:
    """Digest of names and sizes: what a split is known by, wherever its files lie.

    Args:
        keys: Names of the images, in order.
        paths: Files that hold them and their truth; one that occurs again counts once.

    Raises:
        FileNotFoundError: If one is not there; check the split first.
    """
    sizes = [path.stat().st_size for path in dict.fromkeys(paths)]
    return digest([list(keys), sizes])


def open_picture(path: Path, had_from: str) -> Image.Image:
    """Open and decode an image file.

    Args:
        path: The file.
        had_from: Where it is had, as part of a sentence.

    Raises:
        InputError: If it is missing.
        DataError: If it cannot be decoded.
    """
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        message = f"{path} is missing, though the split names it; {had_from}"
        raise InputError(message) from error
    except (UnidentifiedImageError, OSError) as error:
        message = f"{path} cannot be decoded ({error}), expected an image: fetch it anew"
        raise DataError(message) from error
    return image
