"""Imports: real images with labels in tars of the engine's own, and the record of them.

train-000000.tar ...   real images, see `storage.labelled_images`
import.json            what they are and the digest of each tar: there only when all is done
.import/               a record of each tar that is done, while the work goes on
"""

from pathlib import Path

from pydantic import Field

from storage.errors import InputError
from storage.records import Record, read_record

IMPORT_FILE = "import.json"
OWN_FOLDER = ".import"
"""Its presence tells that the folder is an import's."""

_WAY_OUT = "remove the folder and run the same command again"


class ImportedTar(Record, frozen=True):
    """A tar of an import."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of its contents."""
    size: int = Field(gt=0)
    """Bytes."""
    samples: int = Field(gt=0)
    """Images."""
    images_by_class: dict[str, int]
    """Images that show each class, by its name in the vocabulary."""


class ImportRecord(Record, frozen=True):
    """What an import holds."""

    layout: str
    """How the folder lay on disk."""
    split: str
    """Which part of it."""
    vocabulary: str
    """Name of the vocabulary of the labels."""
    truth: str
    """How the label maps were made."""
    unnamed: tuple[str, ...]
    """Classes of the data set that the vocabulary lacks: their pixels are background."""
    tars: dict[str, ImportedTar]
    """By file name."""

    @property
    def num_samples(self) -> int:
        """Images of all tars."""
        return sum(tar.samples for tar in self.tars.values())


def read_import(folder: Path) -> ImportRecord | None:
    """Read what a folder holds that was made by an import; None if it was not.

    Raises:
        InputError: The import is not finished.
        DataError: Its record is damaged.
    """
    place = folder / IMPORT_FILE
    if place.is_file():
        return read_record(ImportRecord, place.read_bytes(), str(place), way_out=_WAY_OUT)
    if (folder / OWN_FOLDER).is_dir():
        message = (
            f"{folder} holds an import that is not finished (no {IMPORT_FILE}): run the command "
            "again that was making it"
        )
        raise InputError(message)
    return None


def read_imported_tar(place: Path) -> ImportedTar | None:
    """Read the record of a tar of an import that is under way; None if there is none.

    Raises:
        DataError: It is damaged.
    """
    if not place.is_file():
        return None
    return read_record(ImportedTar, place.read_bytes(), str(place), way_out=_WAY_OUT)
