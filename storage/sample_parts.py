"""The finished shards of a dataset, with the columns of their manifests.

Records and manifests are compared with their digests as they are read; a shard of which one of them
is damaged is named among the problems, and is left out.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from storage.commits import Commit, read_commit
from storage.errors import DataError
from storage.records import Stage
from storage.sample_columns import WRITTEN, SampleColumns
from storage.store import Store


@dataclass(frozen=True)
class SamplePart:
    """A finished shard, as far as its manifest tells of it.

    Attributes:
        commit: Its record.
        columns: Its samples.
    """

    commit: Commit
    columns: SampleColumns

    @property
    def version(self) -> str:
        """Digest of its manifest."""
        return _version(self.commit)

    @cached_property
    def written(self) -> frozenset[str]:
        """Keys of the samples in its tar."""
        found = np.flatnonzero(self.columns.fates.among([WRITTEN]))
        return frozenset(self.columns.keys[row] for row in found)


def read_finished_parts(
    store: Store, known: Mapping[str, SamplePart]
) -> tuple[tuple[SamplePart, ...], tuple[str, ...]]:
    """Read the finished shards of a dataset, by name.

    Args:
        store: The dataset.
        known: Shards by their version, which are not read again.

    Returns:
        The shards, and what is wrong with those that are not among them.
    """
    problems: list[str] = []
    commits = _read_records(store, problems)
    columns = {version: part.columns for version, part in known.items()}
    wanted = {
        each.manifest.path: each
        for each in commits.values()
        if each.manifest and each.manifest.sha256 not in columns
    }
    for path, data in store.objects.read_many(list(wanted)):
        commit = wanted[path]
        try:
            columns[_version(commit)] = _read_columns(commit, data)
        except DataError as error:
            problems.append(str(error))
    found: list[SamplePart] = []
    for name in sorted(commits):
        commit = commits[name]
        if commit.manifest is None:
            problems.append(f"the record of {name} names no manifest; verify the dataset")
        elif commit.manifest.sha256 in columns:
            found.append(SamplePart(commit, columns[commit.manifest.sha256]))
    return tuple(found), tuple(problems)


def _version(commit: Commit) -> str:
    return commit.manifest.sha256 if commit.manifest else ""


def _read_records(store: Store, problems: list[str]) -> dict[str, Commit]:
    """The records of the finished shards by name, the newest of each."""
    newest: dict[str, Commit] = {}
    for path, data in store.objects.read_many(store.log.paths(Stage.SHARDS)):
        if data is None:
            continue
        try:
            commit = read_commit(data, path)
        except DataError as error:
            problems.append(str(error))
            continue
        known = newest.get(commit.shard)
        if known is None or (known.created, known.key) < (commit.created, commit.key):
            newest[commit.shard] = commit
    return newest


def _read_columns(commit: Commit, data: bytes | None) -> SampleColumns:
    ref = commit.manifest
    if ref is None or data is None:
        message = f"the manifest of {commit.shard} is committed but gone; verify the dataset"
        raise DataError(message)
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        message = f"{ref.path} is not what was committed: its digest is another; verify the dataset"
        raise DataError(message)
    return SampleColumns.read(data, ref.path)
