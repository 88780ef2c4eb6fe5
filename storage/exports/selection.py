"""What of a dataset is exported: its tars, the samples that stay out, and what to say of it all."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import Field

from storage.card import named_models
from storage.errors import DataError, InputError
from storage.exclusions import excluded_keys, excluded_of
from storage.identity import digest
from storage.plan import index_of
from storage.records import Record
from storage.shards import Sample, iterate
from storage.store import Store
from storage.vocabulary import Vocabulary

__all__ = ["ExportFacts", "ExportShard"]

_KEY = re.compile(r"[0-9a-f]{8}[0-9]{8}")
TERMS = (
    "Texts, images and masks are outputs of the models named here. The terms of those models "
    "apply to them: read their licences before sharing."
)


class ExportFacts(Record, frozen=True):
    """What every export says of the dataset that it was made from."""

    vocabulary: str
    """What its class ids index."""
    models: dict[str, str] = Field(default_factory=dict[str, str])
    """The model of each part of the generation, with its revision; empty for a folder of tars."""
    terms: str = TERMS
    """Under which terms it may be used."""

    @classmethod
    def of(cls, store: Store) -> "ExportFacts":
        """Read them from the specification of a dataset."""
        return cls(vocabulary=store.vocabulary, models=dict(named_models(store.spec)))


@dataclass(frozen=True)
class ExportShard:
    """A tar that is exported.

    Attributes:
        path: Path or URL.
        identity: What its contents are known by (its SHA-256).
        excluded: Keys of samples in it that are left out.
        num_bytes: Size of the tar, if that is known.
    """

    path: str
    identity: str
    excluded: frozenset[str] = frozenset()
    num_bytes: int = 0

    @property
    def name(self) -> str:
        """What an export calls it, wherever the dataset lies: its file name without `.tar`."""
        return self.path.rpartition("/")[2].removesuffix(".tar")

    @property
    def content(self) -> str:
        """What the exported part of it is known by."""
        return digest([self.identity, sorted(self.excluded)]) if self.excluded else self.identity

    def samples(self, vocabulary: Vocabulary) -> Iterator[Sample]:
        """Its samples without those left out, one in memory at a time.

        Raises:
            DataError: The tar is damaged, or a class is named otherwise than in the vocabulary.
        """
        for sample in iterate(self.path, self.identity):
            vocabulary.check_names(sample.class_ids, sample.class_names, self.path)
            if sample.key not in self.excluded:
                yield sample


def committed_shards(store: Store) -> list[ExportShard]:
    """The finished shards of a dataset that are not degraded, each with what is left out of it.

    Raises:
        DataError: An exclusion or a manifest is damaged.
        InputError: There is none.
    """
    shards, excluded = store.shards(), excluded_keys(store.objects)
    found: list[ExportShard] = []
    for each in shards:
        if each.path is not None and each.commit.object is not None and not each.degraded:
            left_out = excluded_of(store, each.commit, excluded)
            found.append(ExportShard(each.path, each.sha256, left_out, each.commit.object.size))
    if not found:
        message = (
            f"{store.root} has {len(shards)} committed shards of which none can be exported: "
            "generate more; shards with a low yield are left out"
        )
        raise InputError(message)
    return found


def named_shards(shards: Iterable[ExportShard]) -> dict[str, ExportShard]:
    """The shards by their names, in the order of these.

    Raises:
        InputError: Two have the same name.
    """
    ordered = sorted(shards, key=lambda shard: shard.name)
    found = {shard.name: shard for shard in ordered}
    if len(found) < len(ordered):
        message = "two of the shards have the same file name, expected those of one dataset"
        raise InputError(message)
    return found


def place_of(key: str) -> tuple[str, int]:
    """The slice of a sample and its position in it, from its key.

    Raises:
        InputError: The key is none of a generated sample.
    """
    if not _KEY.fullmatch(key):
        message = (
            f"sample key {key!r} is none of the engine's, expected 8 hex digits of the slice and 8 "
            "digits of the position in it: numbers that stay the same cannot be given to others"
        )
        raise InputError(message)
    return key[:8], index_of(key)


class SeenSamples:
    """Which samples were met: a bit for each, so that millions fit."""

    def __init__(self) -> None:
        self._bits: dict[str, bytearray] = {}

    def add(self, key: str, where: str) -> None:
        """Note a sample.

        Raises:
            DataError: It has been met before.
            InputError: The key is none of a generated sample.
        """
        series, index = place_of(key)
        bits = self._bits.setdefault(series, bytearray())
        byte, bit = index >> 3, 1 << (index & 7)
        if byte >= len(bits):
            bits.extend(bytes(byte + 1 - len(bits)))
        if bits[byte] & bit:
            message = (
                f"sample {key} of {where} is in another tar too, expected it in one: if the two "
                "are of different datasets, join these by 'magicseg merge'; if one is a copy of "
                "the other, remove it"
            )
            raise DataError(message)
        bits[byte] |= bit
