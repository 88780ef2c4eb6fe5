"""The shards of a dataset, with columns of their samples; the finished ones by their manifests.

Records and manifests are compared with their digests as they are read; a shard of which one of them
is damaged is named among the problems, and is left out.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from storage.commits import Commit, read_commit
from storage.errors import DataError
from storage.manifest import ManifestRow
from storage.records import Stage
from storage.sample_columns import OPEN, WRITTEN, SampleColumns
from storage.store import Store


@dataclass(frozen=True)
class SamplePart:
    """The samples of a shard, as far as its manifest, or the stages so far, tell of them.

    Attributes:
        shard: Its name.
        columns: Its samples.
        version: Changes with what is known of them; of a finished shard its manifest's digest.
        commit: Its record; None if it is not packed yet.
        rows: All that is known of each sample by its key, if it is not packed yet.
        texts: A manifest of these, to look for words in.
    """

    shard: str
    columns: SampleColumns
    version: str
    commit: Commit | None = None
    rows: Mapping[str, ManifestRow] = field(default_factory=dict[str, ManifestRow])
    texts: bytes = b""

    @cached_property
    def written(self) -> frozenset[str]:
        """Keys of the samples in its tar."""
        return self._with_fate(WRITTEN)

    @cached_property
    def excludable(self) -> frozenset[str]:
        """Keys of the samples that are in its tar, or may come into it."""
        return self.written | self._with_fate(OPEN)

    def _with_fate(self, fate: str) -> frozenset[str]:
        found = np.flatnonzero(self.columns.fates.among([fate]))
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
            version = commit.manifest.sha256
            found.append(SamplePart(name, columns[version], version, commit))
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
