"""The commit log: the records of what is done, as they lie in a dataset."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from storage.commits import Commit, read_commit
from storage.errors import DataError
from storage.layout import COMMIT_FOLDER, commit_path, is_cell
from storage.objects import ObjectStore
from storage.records import Stage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BadRecord:
    """A file among the records that is none.

    Attributes:
        path: Relative to the root.
        problem: What is wrong with it, and the way out.
    """

    path: str
    problem: str


class CommitLog:
    """The commit records of a dataset.

    Args:
        objects: The dataset.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._told: set[str] = set()

    def paths(self, stage: Stage | None = None, unit: str = "") -> list[str]:
        """List the paths of records, by stage, shard or cell, and key.

        Args:
            stage: Of one stage only.
            unit: Of one shard or cell only; needs a stage.
        """
        if stage is None:
            return [path for each in Stage for path in self.paths(each)]
        folder = f"{COMMIT_FOLDER}/{stage}"
        return self._objects.paths(f"{folder}/{unit}" if unit else folder)

    def read(self, path: str) -> Commit:
        """Read one record.

        Raises:
            DataError: It is damaged, or not about the place where it lies.
            FileNotFoundError: It is not there.
        """
        return read_commit(self._objects.read(path), path)

    def scan(self, paths: Iterable[str]) -> Iterator[Commit | BadRecord]:
        """Read records one by one; one that vanished since the listing is passed over."""
        for path in paths:
            try:
                yield self.read(path)
            except FileNotFoundError:
                continue
            except DataError as error:
                yield BadRecord(path, str(error))

    def good(self, stage: Stage | None = None, unit: str = "") -> Iterator[Commit]:
        """Read the records that can be read; the others are named in the log, once."""
        return self.read_good(self.paths(stage, unit))

    def read_good(self, paths: Iterable[str]) -> Iterator[Commit]:
        """Read these records, as `good` does."""
        for found in self.scan(paths):
            if isinstance(found, BadRecord):
                if found.problem not in self._told:
                    _log.warning("%s", found.problem)
                self._told.add(found.problem)
            else:
                yield found

    def shared(self, commit: Commit) -> set[str]:
        """The files of a record that other records vouch for too.

        The name of a file follows from its bytes, and these from the samples. So a cell shares
        files with itself, and with the outputs that version 0.1 committed by shard.
        """
        if commit.stage is Stage.SHARDS or commit.object is None:
            return set()
        start = f"{COMMIT_FOLDER}/{commit.stage}/{commit.slice_id}-"
        others = [
            path
            for path in self.paths(commit.stage)
            if path.startswith(start) and path != record_path(commit)
            for unit in [path.split("/")[-2]]
            if unit == commit.shard or is_cell(unit) != is_cell(commit.shard)
        ]
        named = {ref.path for other in self.read_good(others) for ref in other.objects}
        return named & {ref.path for ref in commit.objects}

    def shards(self, slice_id: str = "") -> dict[str, Commit]:
        """The finished shards by name: one record each, the newest if there are several.

        Args:
            slice_id: Of one slice only.
        """
        newest: dict[str, Commit] = {}
        folder = f"{COMMIT_FOLDER}/{Stage.SHARDS}/"
        for commit in self.read_good(
            path for path in self.paths(Stage.SHARDS) if path.startswith(f"{folder}{slice_id}")
        ):
            known = newest.get(commit.shard)
            if known is None or (known.created, known.key) < (commit.created, commit.key):
                newest[commit.shard] = commit
        return newest


def record_path(commit: Commit) -> str:
    """Where a record lies."""
    return commit_path(commit.stage, commit.shard, commit.key)
