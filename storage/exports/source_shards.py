"""Shards that are exported, and what people have said of their samples."""

from collections.abc import Iterator
from dataclasses import dataclass

from storage.corrections import (
    Correction,
    content_digest,
    iterate_corrected,
)
from storage.current_samples import CurrentSamples
from storage.errors import InputError
from storage.exclusions import excluded_keys, excluded_of
from storage.shards import Sample
from storage.store import Store
from storage.vocabulary import Vocabulary

__all__ = ["SourceShard", "source_shards"]


@dataclass(frozen=True)
class SourceShard:
    """A tar that is exported.

    Attributes:
        path: Path or URL.
        identity: What its contents are known by, its digest if that is known.
        excluded: Keys of the samples that are left out.
        corrected: What was corrected of its samples.
        num_bytes: Size of the tar, if that is known.
    """

    path: str
    identity: str
    excluded: frozenset[str] = frozenset()
    corrected: tuple[Correction, ...] = ()
    num_bytes: int = 0

    @property
    def name(self) -> str:
        """What the export calls it: its file name, wherever the dataset lies."""
        return self.path.rpartition("/")[2]

    @property
    def content(self) -> str:
        """What the exported part of it is known by."""
        return content_digest(self.identity, self.excluded, self.corrected)

    def samples(self, vocabulary: Vocabulary) -> Iterator[Sample]:
        """What is exported of it, one sample in memory at a time.

        Raises:
            DataError: The tar is damaged, or a class is named otherwise than in the vocabulary.
        """
        for sample in iterate_corrected(self.path, self.identity, self.corrected):
            vocabulary.check_names(sample.class_ids, sample.class_names, self.path)
            if sample.key not in self.excluded:
                yield sample


def source_shards(store: Store) -> list[SourceShard]:
    """The finished shards of a dataset that are not degraded, with what was said of them.

    Raises:
        DataError: What was said, or a manifest, is damaged.
        InputError: There is none.
    """
    shards, excluded = store.shards(), excluded_keys(store.objects)
    current = CurrentSamples(store)
    found = [
        SourceShard(
            each.path,
            each.sha256,
            excluded_of(store, each.commit, excluded),
            current.corrections(each.commit),
            each.commit.object.size,
        )
        for each in shards
        if each.path is not None and each.commit.object is not None and not each.degraded
    ]
    if not found:
        message = (
            f"{store.root} has {len(shards)} committed shards of which none can be exported: "
            "generate more; shards with a low yield are left out"
        )
        raise InputError(message)
    return found
