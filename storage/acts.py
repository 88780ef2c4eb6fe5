"""Acts: what people say of samples, each time in a file of its own that never changes.

Two who write at one time both succeed, and nothing that was said is lost: what holds is the last
line about a sample.

    <folder>/<six digits>-<16 hex>.jsonl    an act: its number, and its digest; one sample a line
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from storage.errors import DataError
from storage.identity import canonical_json
from storage.objects import ObjectStore
from storage.records import Record, read_record

LineT = TypeVar("LineT", bound=Record)

_NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.jsonl")
_RESTORE = (
    "restore it from a copy of your own; 'magicseg verify --repair' puts it aside, and what it "
    "said of samples is lost"
)


@dataclass(frozen=True)
class ActFolder(Generic[LineT]):
    """A folder of acts of one kind.

    Attributes:
        folder: Where it lies in a dataset.
        kind: The record of a line.
    """

    folder: str
    kind: type[LineT]

    def read(self, objects: ObjectStore) -> list[LineT]:
        """Read all that was ever said, in the order in which it was.

        Raises:
            DataError: A file is damaged; names it.
        """
        found = self.read_files(objects, {})
        return [line for lines in found.values() for line in lines]

    def read_files(
        self, objects: ObjectStore, known: Mapping[str, list[LineT]]
    ) -> dict[str, list[LineT]]:
        """Read all acts by their paths, in order.

        Args:
            objects: The dataset.
            known: What was read before: files never change, so these are not read again.

        Raises:
            DataError: A file is damaged; names it.
        """
        paths = objects.paths(self.folder)
        new = objects.read_many([path for path in paths if path not in known])
        found = {path: self._lines(path, data) for path, data in new if data is not None}
        here = set(paths)
        found |= {path: lines for path, lines in known.items() if path in here}
        return {path: found[path] for path in paths if path in found}

    def append(self, objects: ObjectStore, lines: Sequence[LineT]) -> str:
        """Say something of samples: one act, all of it or nothing of it. Durable.

        Args:
            objects: The dataset.
            lines: At least one.

        Returns:
            Where the act lies.
        """
        data = b"".join(canonical_json(line) + b"\n" for line in lines)
        sha256 = hashlib.sha256(data).hexdigest()[:16]
        names = [_match(path) for path in objects.paths(self.folder)]
        number = max((int(match[1]) for match in names if match), default=0) + 1
        path = f"{self.folder}/{number:06d}-{sha256}.jsonl"
        objects.write_new(path, data)
        return path

    def carry(self, source: ObjectStore, target: ObjectStore, rename: Callable[[str], str]) -> int:
        """Say of a copy what was said of its source, unless it has been said there before.

        Args:
            source: The dataset that was copied.
            target: The copy.
            rename: Gives the key that a sample has there.

        Returns:
            How many lines were new.
        """
        known = set(self.read(target))
        renamed = (_renamed(line, rename) for line in self.read(source))
        new = [line for line in renamed if line not in known]
        if new:
            self.append(target, new)
        return len(new)

    def damaged(self, objects: ObjectStore) -> list[tuple[str, str]]:
        """Paths of files that cannot be read, each with what is wrong."""
        found: list[tuple[str, str]] = []
        for path in objects.paths(self.folder):
            try:
                self._lines(path, objects.read(path))
            except DataError as error:
                found.append((path, str(error)))
        return found

    def _lines(self, path: str, data: bytes) -> list[LineT]:
        match = _match(path)
        if match is None or hashlib.sha256(data).hexdigest()[:16] != match[2]:
            message = f"{path} is not what was written: its name does not have its digest; "
            raise DataError(message + _RESTORE)
        return [read_record(self.kind, line, path, way_out=_RESTORE) for line in data.splitlines()]


@dataclass
class ActsRead(Generic[LineT]):
    """What was read of a folder of acts so far; a further look reads new files alone.

    Attributes:
        acts: The folder.
        files: Lines by path.
    """

    acts: ActFolder[LineT]
    files: dict[str, list[LineT]] = field(default_factory=dict[str, list[LineT]])

    def look(self, objects: ObjectStore) -> bool:
        """Read what is new; returns whether anything is.

        Raises:
            DataError: A file is damaged; names it.
        """
        found = self.acts.read_files(objects, self.files)
        changed = found.keys() != self.files.keys()
        self.files = found
        return changed

    @property
    def lines(self) -> Iterable[LineT]:
        """All lines, in the order in which they were said."""
        return (line for lines in self.files.values() for line in lines)


def _match(path: str) -> "re.Match[str] | None":
    return _NAME.fullmatch(path.rpartition("/")[2])


def _renamed(line: LineT, rename: Callable[[str], str]) -> LineT:
    return line.model_copy(update={"key": rename(line.model_dump()["key"])})
