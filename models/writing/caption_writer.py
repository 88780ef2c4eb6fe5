"""The prompt writer that takes its texts from a file of captions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from models.protocols import TextAnswer, TextRequest
from models.writing.caption_files import (
    CaptionFilter,
    CaptionPool,
    captions_digest,
    read_captions,
    shipped_banned_words,
)
from storage.identity import derive_seed
from storage.paths import local_path


class CaptionWriterConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Takes captions from a file: offline, free, and always the same."""

    kind: Literal["captions"] = "captions"
    """Tells this writer from the others."""
    file: str = Field(min_length=1)
    """Captions: one a line (.txt), JSON lines (.jsonl), or a table (.csv, .tsv)."""
    column: str = "caption"
    """Field or column that has the caption, in JSON lines and tables."""
    within_words: int | None = Field(default=5, ge=1)
    """A class must be named within so many words from the beginning (DiffuMask has 5); of two
    classes the first. Empty means anywhere."""
    max_words: int = Field(default=50, ge=1)
    """Most words of a caption, as DiffuMask has it."""
    banned_words: tuple[str, ...] | None = None
    """Captions with one of these as a word of its own are left out; empty means the shipped list:
    vector, stock, 3d, blur, close-up, interior, cartoon, headlight, and the dash."""
    prefix: str = ""
    """Stands before each caption, such as "Photo of "; what is said of words is said without it."""

    def identity(self) -> dict[str, Any]:
        """Say what the texts depend on: the contents of the file, and the filter.

        Raises:
            InputError: If there is no such file.
        """
        return {
            "captions": captions_digest(self.path),
            "column": self.column,
            "within_words": self.within_words,
            "max_words": self.max_words,
            "banned_words": sorted(self.filter.banned_words),
            "prefix": self.prefix,
        }

    def check(self) -> str:
        """Read the file; say how many captions pass the filter.

        Raises:
            InputError: If there is no such file, or it holds no captions.
        """
        read = read_captions(self.path, self.column)
        return f"{len(CaptionPool(read, self.filter))} of {len(read)} captions of {self.file}"

    @property
    def path(self) -> Path:
        """Where the file is."""
        return local_path(self.file, "the file of captions")

    @property
    def filter(self) -> CaptionFilter:
        """Which captions are of use."""
        banned = shipped_banned_words() if self.banned_words is None else self.banned_words
        words = frozenset(word.casefold() for word in banned)
        return CaptionFilter(self.within_words, self.max_words, words)


class CaptionWriter:
    """Gives captions of a file that name the classes.

    Args:
        config: Which file, and which of its captions.

    Raises:
        InputError: If there is no such file, or it holds no captions.
    """

    def __init__(self, config: CaptionWriterConfig) -> None:
        self._config = config
        self._pool = CaptionPool(read_captions(config.path, config.column), config.filter)

    @property
    def name(self) -> str:
        """``captions:`` and the file's name."""
        return f"captions:{self._config.path.name}"

    def write(self, requests: Sequence[TextRequest]) -> list[TextAnswer]:
        """Answer every request, in order; see `PromptWriter`."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: TextRequest) -> TextAnswer:
        seed = derive_seed(request.seed, request.round)
        known = set(request.avoid)
        about = [self._config.prefix + caption for caption in self._pool.about(request.classes)]
        fresh = sorted(
            (text for text in about if " ".join(text.split()) not in known),
            key=lambda text: derive_seed(seed, text),
        )
        texts = tuple(fresh[: request.count])
        if len(texts) == request.count:
            return TextAnswer(texts)
        names = " and ".join(record.name for record in request.classes)
        early = f" within {self._config.within_words} words" if self._config.within_words else ""
        failure = (
            f"failed: {self._config.file} has {len(about)} captions that name {names}{early}, "
            f"{len(fresh)} of them unused, expected {request.count}: add captions, loosen "
            "within_words, max_words or banned_words, or ask for fewer samples"
        )
        return TextAnswer(texts, failure)
