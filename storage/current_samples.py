"""Samples as they count now: what lies in the tars, with the masks that people have corrected.

Whoever shows or uses masks of a dataset reads them here, or through what is exported
(`storage.exports.source_shards`) or trained on (`training.data.find_shards`), which lay the same
corrections over the same tars. The first masks are read, by `storage.shards.iterate`, where the
bytes that were made are meant: to verify them, to merge them, and to import a correction of them.
"""

from collections.abc import Iterator

from storage.commits import Commit
from storage.corrections import (
    Correction,
    correct_row,
    corrections_of,
    current_classes,
    current_corrections,
    iterate_corrected,
)
from storage.manifest import ManifestRow
from storage.shards import Sample
from storage.store import Store
from storage.summaries import CommittedShard

__all__ = ["CurrentSamples"]


class CurrentSamples:
    """Reads the finished shards of a dataset as they are corrected when this is made.

    Args:
        store: The dataset.

    Raises:
        DataError: A file of the corrections is damaged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._corrections = current_corrections(store.objects)

    def corrections(self, commit: Commit) -> tuple[Correction, ...]:
        """What was corrected of a finished shard.

        Raises:
            DataError: Its manifest is damaged, or a correction was made for other pictures.
        """
        return corrections_of(self._store, commit, self._corrections)

    def of(self, shard: CommittedShard) -> Iterator[Sample]:
        """Stream the samples of a shard, one in memory at a time; none if it has no tar.

        Raises:
            DataError: The tar is damaged, or as `corrections`.
        """
        if shard.path is not None:
            corrected = self.corrections(shard.commit)
            yield from iterate_corrected(shard.path, shard.sha256, corrected)

    def rows(self, shard: CommittedShard) -> list[ManifestRow]:
        """The manifest of a shard; rows of corrected samples speak of their corrected masks.

        Digests stay those of the tar.

        Raises:
            DataError: As `corrections`.
        """
        corrected = {each.key: each for each in self.corrections(shard.commit)}
        return [
            correct_row(row, corrected[row.key]) if row.key in corrected else row
            for row in self._store.manifest(shard.commit)
        ]

    def classes(self, shard: CommittedShard) -> dict[str, tuple[int, ...]]:
        """Vocabulary indices of the classes in the masks of a shard, by sample key.

        Raises:
            DataError: As `corrections`.
        """
        return current_classes(self._store, shard.commit, self.corrections(shard.commit))

    def __iter__(self) -> Iterator[Sample]:
        """Stream the samples of all finished shards.

        Raises:
            DataError: As `of`.
        """
        for shard in self._store.shards():
            yield from self.of(shard)
