"""Words found in pictures: what `magicseg segment` makes, one picture after another.

A folder of results belongs to one question: the words, what finds them and the rule, which stand in
`asked.json`. Each picture has its files there, named after the picture and its bytes, so that
pictures of the same name never meet; its record is written last and says that the others are whole.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.reports.found_words import LegendEntry, draw_heat, draw_overlay
from evaluation.scoring.config import Background
from evaluation.scoring.results import slug
from evaluation.segment import Segmentation, WordFinder, checked_words
from flows.word_finders import FinderChoice
from storage.codecs import encode_label_map, encode_rle
from storage.errors import DataError, EngineError, IncompleteError, InputError
from storage.files import write_whole
from storage.locks import hold_folder, refuse_other_files
from storage.photographs import decode_photograph
from storage.picture_headers import image_format
from storage.records import Record, RecordT, read_record

ASKED_FILE = "asked.json"
"""Name of the file that says what a folder's results answer."""

_FORMAT = 1
_NAME_LETTERS, _WORD_LETTERS, _DIGITS = 80, 40, 12
_SIGNATURE_BYTES = 16


class Asked(Record, frozen=True):
    """What a folder of results answers; equal ones have equal results for equal pictures."""

    format: int = _FORMAT
    """Version of the files; raised when the same question gets other files."""
    words: tuple[str, ...]
    """What was asked for, in the order of the labels."""
    student: str
    """Fingerprint of what finds them, and after an @ the step of a student, or its kind."""
    rule: dict[str, Any]
    """Templates, windows, background rule and threshold."""


class FoundWord(Record, frozen=True):
    """What was found of a word."""

    word: str
    """The word."""
    label: int
    """What stands for it in the label map."""
    area: int
    """Its pixels."""
    share: float
    """Its share of the picture, in [0, 1]."""
    mean_score: float | None
    """Mean score of its pixels, in [0, 1]; null if it has none."""
    best_score: float
    """Its highest score anywhere in the picture, over the threshold or not, best word or not."""
    segmentation: dict[str, Any] | None
    """Its mask as COCO's compressed run lengths: size (rows, columns) and counts; null if it has no
    pixel."""


class Found(Record, frozen=True):
    """What was found in a picture."""

    picture: str
    """Its file, as it was named."""
    sha256: str
    """Digest of its bytes."""
    width: int
    """Pixels of the upright picture."""
    height: int
    """Pixels of the upright picture."""
    background: Background
    """The background rule."""
    threshold: float
    """Its threshold."""
    background_area: int
    """Pixels that have no word."""
    words: tuple[FoundWord, ...]
    """Each word, in the order of the labels."""
    files: dict[str, str]
    """Name of each file made, and the digest of its bytes."""
    heat: bool
    """Whether the heat maps are among them."""
    asked: Asked
    """The question."""


@dataclass(frozen=True)
class _Picture:
    """A picture's file.

    Attributes:
        path: Where it is.
        data: Its bytes.
        sha256: Their digest.
    """

    path: Path
    data: bytes
    sha256: str

    @classmethod
    def read(cls, path: Path) -> "_Picture":
        """Read a file; of what is no picture only the first bytes.

        Raises:
            DataError: It is no picture.
            InputError: It cannot be read.
        """
        try:
            with path.open("rb") as file:
                start = file.read(_SIGNATURE_BYTES)
                image_format(start, str(path))
                data = start + file.read()
        except OSError as error:
            message = f"{path} cannot be read ({error.strerror}); give another path"
            raise InputError(message) from error
        return cls(path, data, hashlib.sha256(data).hexdigest())

    @property
    def stem(self) -> str:
        """How the names of its results begin."""
        return f"{slug(self.path.stem)[:_NAME_LETTERS]}-{self.sha256[:_DIGITS]}"


class Segmenting:
    """A question about pictures, and the folder for the answers.

    Args:
        words: What to find.
        finder: What finds them.
        out: Folder for the results; made if missing.
        heat: Whether each word gets a heat map.

    Raises:
        DataError: If the finder's files are damaged.
        InputError: If words mean nothing, the folder holds something else, or the finder's files
            are not there or do not fit.
    """

    def __init__(
        self,
        words: Sequence[str],
        finder: FinderChoice,
        *,
        out: Path,
        heat: bool,
    ) -> None:
        self._choice = finder
        self._out = out
        self._heat = heat
        words = checked_words(words)
        refuse_other_files(out, "results of 'magicseg segment'", marks=(ASKED_FILE,))
        finder.check_words(words)
        self._asked = Asked(words=words, student=finder.fingerprint(), rule=finder.rule())

    def answer(self, pictures: Sequence[Path], tell: Callable[[str], None]) -> None:
        """Segment pictures; what is there already is found.

        Args:
            pictures: Their files.
            tell: Told a line about each picture.

        Raises:
            IncompleteError: Some have no result; names them. The others have theirs.
            InputError: The folder holds the answers to another question.
            LeaseHeldError: Somebody else is at work in the folder.
        """
        failed: list[str] = []
        with hold_folder(self._out):
            self._refuse_other_question()
            for path in pictures:
                outcome = self._answer_one(path)
                if isinstance(outcome, EngineError):
                    failed.append(f"{path}: {outcome}")
                    outcome = f"{path}: failed"
                tell(outcome)
        if failed:
            message = (
                f"{len(failed)} of {len(pictures)} pictures have no result, the others have theirs "
                f"in {self._out}: {'; '.join(failed)}"
            )
            raise IncompleteError(message)

    def _answer_one(self, path: Path) -> str | EngineError:
        """Find or make the answer for a picture: a line about it, or what is wrong with it."""
        try:
            picture = _Picture.read(path)
        except EngineError as error:
            return error
        record = self._out / f"{picture.stem}.json"
        if (there := self._found(record, picture)) is not None:
            return f"{path}: {_shares(there)} (was there, {record})"
        finder = self._finder  # one that cannot be loaded stops everything
        self._claim()
        try:
            found = self._make(picture, finder)
        except EngineError as error:
            return error
        _write(record, found)
        return f"{path}: {_shares(found)} ({record})"

    def _claim(self) -> None:
        """Say in the folder which question its results answer."""
        file = self._out / ASKED_FILE
        if not file.exists():
            _write(file, self._asked)

    def _refuse_other_question(self) -> None:
        file = self._out / ASKED_FILE
        if not file.exists():
            return
        there = _read(Asked, file)
        if there != self._asked:
            other = [name for name, value in there if value != getattr(self._asked, name)]
            message = (
                f"{self._out} holds what was found with other settings ({', '.join(other)}): "
                f"choose another folder with --out; {ASKED_FILE} there says which they were"
            )
            raise InputError(message)

    def _found(self, record: Path, picture: _Picture) -> Found | None:
        """The record of a picture if it is there and all its files are whole."""
        if not record.is_file():
            return None
        try:
            found = _read(Found, record)
        except DataError:  # cut by whoever copied it: it is made again
            return None
        if (found.asked, found.sha256) != (self._asked, picture.sha256) or found.heat < self._heat:
            return None
        whole = all(_digest(self._out / name) == found.files[name] for name in found.files)
        return found if whole else None

    def _make(self, picture: _Picture, finder: WordFinder) -> Found:
        image = decode_photograph(picture.data, str(picture.path))
        files: dict[str, str] = {}

        def keep(name: str, contents: bytes) -> None:
            # The record holds its digest: what a loss of power takes is made again.
            write_whole(self._out / name, contents, durable=False)
            files[name] = hashlib.sha256(contents).hexdigest()

        numbers = count(1)

        def watch(word: str, scores: np.ndarray) -> None:
            name = f"{picture.stem}.heat-{next(numbers):03}-{slug(word)[:_WORD_LETTERS]}.png"
            keep(name, draw_heat(scores))

        looked = finder.look(image, self._asked.words, watch=watch if self._heat else None)
        result = looked.at(looked.threshold)
        words = _describe_words(result, looked.best_scores)
        legend = [LegendEntry(each.word, each.label, each.share) for each in words]
        keep(f"{picture.stem}.labels.png", encode_label_map(result.labels))
        keep(f"{picture.stem}.overlay.png", draw_overlay(image, result.labels, legend))
        height, width = result.labels.shape
        return Found(
            picture=_readable(picture.path),
            sha256=picture.sha256,
            width=width,
            height=height,
            background=looked.rule,
            threshold=looked.threshold,
            background_area=width * height - sum(each.area for each in words),
            words=words,
            files=files,
            heat=self._heat,
            asked=self._asked,
        )

    @cached_property
    def _finder(self) -> WordFinder:
        """Loaded for the first picture that has no result yet."""
        return self._choice.load()


def _describe_words(result: Segmentation, best: Sequence[float]) -> tuple[FoundWord, ...]:
    shares = result.shares()
    words = []
    for label, word in enumerate(result.words, start=1):
        mask = result.labels == label if shares[word] else None
        area = 0 if mask is None else int(mask.sum())
        words.append(
            FoundWord(
                word=word,
                label=label,
                area=area,
                share=shares[word],
                mean_score=(
                    None if mask is None else float(result.scores[mask].mean(dtype=np.float64))
                ),
                best_score=best[label - 1],
                segmentation=(
                    None if mask is None else {"size": list(mask.shape), "counts": encode_rle(mask)}
                ),
            )
        )
    return tuple(words)


def _shares(found: Found) -> str:
    shown = [f"{each.word} {each.share:.1%}" for each in found.words if each.area]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more if shown else "nothing found"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _read(kind: type[RecordT], file: Path) -> RecordT:
    way_out = "choose another folder with --out"
    return read_record(kind, file.read_bytes(), str(file), way_out=way_out)


def _write(file: Path, record: Record) -> None:
    write_whole(file, (record.model_dump_json(indent=1) + "\n").encode())


def _readable(path: Path) -> str:
    """A path as text; bytes that are no UTF-8 are shown as such."""
    return os.fsencode(path).decode("utf-8", "replace")
