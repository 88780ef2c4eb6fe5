"""Shards that are exported, and what people have said of their samples."""

from dataclasses import dataclass

from storage.corrections import Correction, content_digest

__all__ = ["SourceShard"]


@dataclass(frozen=True)
class SourceShard:
    """A tar that is exported.

    Attributes:
        path: Path or URL.
        identity: What its contents are known by, its digest if that is known.
        excluded: Keys of the samples that are left out.
        corrected: What was corrected of its samples.
    """

    path: str
    identity: str
    excluded: frozenset[str] = frozenset()
    corrected: tuple[Correction, ...] = ()

    @property
    def name(self) -> str:
        """What the export calls it: its file name, wherever the dataset lies."""
        return self.path.rpartition("/")[2]

    @property
    def content(self) -> str:
        """What the exported part of it is known by."""
        return content_digest(self.identity, self.excluded, self.corrected)
