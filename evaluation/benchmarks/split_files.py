"""Files of a split: which images are taken, whether all are there, and how one is opened."""

import contextlib
import errno
import stat
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from evaluation.benchmarks.near_misses import files_hint, is_file
from storage.errors import DataError, InputError
from storage.identity import digest
from storage.photographs import decode_photograph
from storage.picture_headers import foreign_format
from storage.texts import decode_text

_MAX_LISTED = 5
PICTURE_ENDINGS = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG")
"""Ends of the names of pictures; the first one is that of most benchmarks."""
PICTURE = "the file"
"""What messages call a picture whose path they name already."""
_POINTER = b"version https://git-lfs"
_WAYS_OUT = {
    errno.EISDIR: "it is a folder, put the file itself there",
    errno.EACCES: "let this user read it",
    errno.EPERM: "let this user read it",
}

ItemT = TypeVar("ItemT")


def spread(items: Sequence[ItemT], limit: int | None) -> list[ItemT]:
    """Take up to a limit of items, evenly spread from the first; all without a limit."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


def coverage_words(there: int, listed: int) -> str:
    """Say that a number is about a part of a split; empty if all images are there."""
    if there == listed:
        return ""
    share = 100 * there / listed
    return f"{there:,} of {listed:,} images ({share:.3g} %), those whose files are there"


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
        # What is there may stand for one of them only.
        hint = files_hint(missing)
        way_out = f"{hint}; {where_to_get}" if hint and len(missing) > 1 else hint or where_to_get
        message = (
            f"{len(missing)} files of the split {split} are missing: {listed}{more}; {way_out}"
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


def picture_file(folder: Path, key: str) -> Path:
    """The file of an image: ``<key>.jpg``, or what is there with another ending of a picture."""
    plain, *others = (folder / f"{key}{ending}" for ending in PICTURE_ENDINGS)
    return first_file(plain, others)


def first_file(path: Path, others: Sequence[Path]) -> Path:
    """A file, or the first of others that is there in its place; itself if none is."""
    if is_file(path):
        return path
    return next((other for other in others if is_file(other)), path)


def read_text(path: Path, where_to_get: str, expected: str) -> str:
    """Read a text file, see `storage.texts`.

    Args:
        path: The file.
        where_to_get: Where to get it, as part of a sentence.
        expected: What it should be, with its article.

    Raises:
        InputError: If it is missing.
        DataError: If it cannot be read, or is in an encoding that cannot be told.
    """
    return decode_text(read_file(path, where_to_get, expected, "read"), str(path))


def read_image(path: Path, where_to_get: str) -> UInt8[np.ndarray, "height width 3"]:
    """Read an image as people see it, see `storage.photographs`.

    Raises:
        InputError: If it is missing.
        DataError: If it cannot be read or decoded, see `storage.codecs.decode_picture`.
    """
    data = read_file(path, where_to_get, "an image")
    with decoding(path, data):
        return decode_photograph(data, PICTURE, way_out="")


def read_file(path: Path, where_to_get: str, expected: str, doing: str = "decoded") -> bytes:
    """Read a file that a split names.

    Args:
        path: The file.
        where_to_get: Where to get it, as part of a sentence.
        expected: What it should be, with its article.
        doing: What is done to it, as in "cannot be decoded".

    Raises:
        InputError: If it is missing.
        DataError: If it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            message = f"{path} is a pipe or a device, expected a file: put {expected} there"
            raise DataError(message)  # which may have no end, or nobody who writes into it
        return path.read_bytes()
    except FileNotFoundError as error:
        message = f"{path} is missing, though the split names it; {where_to_get}"
        raise InputError(message) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        way_out = _WAYS_OUT.get(getattr(error, "errno", None) or 0, "look at the disk")
        message = f"{path} cannot be {doing} ({why}), expected {expected}: {way_out}"
        raise DataError(message) from error


@contextlib.contextmanager
def decoding(path: Path, data: bytes) -> Generator[None]:
    """Say which picture cannot be decoded, and what to do about it.

    Args:
        path: Its file.
        data: What that holds, which the block decodes under the name `PICTURE`, with no way out.

    Raises:
        DataError: If the block raises one.
    """
    try:
        yield
    except DataError as error:
        kind = foreign_format(data)
        way_out = f"save it as JPEG or PNG, it is {kind}" if kind else "fetch it again"
        if data.startswith(_POINTER):
            way_out = "it is a pointer of Git LFS, get the file itself with `git lfs pull`"
        reason = str(error).removesuffix("; ")
        message = f"{path} cannot be decoded ({reason}), expected an image: {way_out}"
        raise DataError(message) from error
