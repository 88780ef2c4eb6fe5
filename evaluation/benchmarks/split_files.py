"""Files of a split: which images are taken, whether all are there, and how one is opened."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from PIL import Image

from storage.codecs import decode_picture
from storage.errors import DataError, InputError
from storage.identity import digest

_MAX_LISTED = 5

ItemT = TypeVar("ItemT")


def spread(items: Sequence[ItemT], limit: int | None) -> list[ItemT]:
    """Take up to a limit of items, evenly spread from the first; all without a limit."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def require_files(missing: Sequence[Path], split: str, where_to_get: str) -> None:
    """Refuse a split that is not whole.

    Args:
        missing: What is not there.
        split: Name of the split.
        where_to_get: Where to get the files, as part of a sentence.

    Raises:
        InputError: Naming the first missing files, their number and where to get them.
    """
    if missing:
        listed = ", ".join(str(path) for path in missing[:_MAX_LISTED])
        more = "" if len(missing) <= _MAX_LISTED else f" and {len(missing) - _MAX_LISTED} more"
        message = (
            f"{len(missing)} files of the split {split} are missing: {listed}{more}; {where_to_get}"
        )
        raise InputError(message)


def describe_files(keys: Sequence[str], paths: Sequence[Path]) -> str:
    """Digest of the names and sizes of files, which identifies a split wherever it lies.

    Args:
        keys: Names of the images, in order.
        paths: Files that hold them and their truth; one that occurs again counts once.

    Raises:
        FileNotFoundError: If one is not there; check the split first.
    """
    sizes = [path.stat().st_size for path in dict.fromkeys(paths)]
    return digest([list(keys), sizes])


def open_picture(path: Path, where_to_get: str) -> Image.Image:
    """Open and decode an image file.

    Args:
        path: The file.
        where_to_get: Where to get it, as part of a sentence.

    Raises:
        InputError: If it is missing.
        DataError: If it cannot be read or decoded, see `storage.codecs.decode_picture`.
    """
    try:
        return decode_picture(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        message = f"{path} is missing, though the split names it; {where_to_get}"
        raise InputError(message) from error
    except (OSError, DataError) as error:
        message = f"{path} cannot be decoded ({error}), expected an image: fetch it again"
        raise DataError(message) from error
