"""Checks of the bytes behind a commit record."""

import hashlib

from storage.commits import Commit, ObjectRef
from storage.errors import DataError
from storage.objects import ObjectStore

DEEP_WAY_OUT = "run 'magicseg verify --deep --repair', then 'magicseg generate' (or 'merge') again"
"""What mends bytes that differ from those committed."""


class DamagedError(DataError):
    """The bytes behind a record are gone or others than those committed.

    Args:
        message: What was found.
        commit: The record.
    """

    def __init__(self, message: str, commit: Commit) -> None:
        super().__init__(message)
        self.commit = commit


def defect(objects: ObjectStore, commit: Commit, *, deep: bool) -> str:
    """Say what is wrong with the bytes behind a record.

    Args:
        objects: The dataset.
        commit: The record.
        deep: Hash the bytes too, instead of comparing sizes only.

    Returns:
        Words, or an empty string if the bytes are whole.
    """
    for ref in commit.objects:
        size = objects.size(ref.path)
        if size != ref.size:
            found = "nothing" if size is None else f"{size} bytes"
            return f"{ref.path}: found {found}, expected {ref.size} bytes"
        if deep and not holds(objects, ref):
            return f"{ref.path}: its sha256 is not {ref.sha256}"
    return ""


def fault(objects: ObjectStore, commit: Commit, key: str, *, deep: bool) -> str:
    """Say why a record does not answer for a key; an empty string if it does."""
    return defect(objects, commit, deep=deep) if commit.key == key else f"its key is not {key}"


def holds(objects: ObjectStore, ref: ObjectRef) -> bool:
    """Whether the name holds exactly the bytes of the reference."""
    try:
        with objects.open(ref.path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256
    except FileNotFoundError:
        return False


def read_whole(objects: ObjectStore, commit: Commit, ref: ObjectRef) -> bytes:
    """Read bytes that a record vouches for.

    Raises:
        DamagedError: They are gone, or others than those committed.
    """
    try:
        data = objects.read(ref.path)
    except FileNotFoundError as error:
        message = f"{ref.path} is committed but gone; {DEEP_WAY_OUT}"
        raise DamagedError(message, commit) from error
    found = hashlib.sha256(data).hexdigest()
    if found != ref.sha256:
        message = f"{ref.path}: sha256 is {found}, expected {ref.sha256}; {DEEP_WAY_OUT}"
        raise DamagedError(message, commit)
    return data
