"""Caption files: what people or other models have written, read and filtered as DiffuMask does.

DiffuMask (ICCV 2023) takes captions of real images for classes whose scenes templates do not
reach. It keeps those that name the class among their first words, are short, and have none of
some words that stand for pictures of another sort. Here the class is found by the engine's own
finder of mentions, with its plurals and synonyms.
"""

import csv
import hashlib
import json
import threading
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from models.writing.mentions import ClassWords, find_mentions
from storage.errors import InputError
from storage.texts import read_text_file
from storage.vocabulary import ClassRecord

SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv")
"""What a file of captions may end in."""

_BANNED_FILE = Path(__file__).parents[1] / "data" / "captions" / "banned.txt"
_EDGES = "\"'()[].,;:!?\u2018\u2019\u201c\u201d"
_EXPECTED = f"captions: {', '.join(SUFFIXES)}"


@dataclass(frozen=True)
class CaptionFilter:
    """Which captions are of use.

    Attributes:
        within_words: A class must be named within so many words from the beginning; None anywhere.
        max_words: Most words of a caption.
        banned_words: A caption with one of these as a word of its own is left out.
    """

    within_words: int | None
    max_words: int
    banned_words: frozenset[str]

    def admits(self, caption: str) -> bool:
        """Whether a caption may be used, whatever it is about."""
        words = caption.casefold().split()
        plain = {word.strip(_EDGES) or word for word in words}
        return 0 < len(words) <= self.max_words and not self.banned_words & {*words, *plain}

    def is_about(self, caption: str, classes: Sequence[ClassRecord]) -> bool:
        """Whether a caption names all the classes, and the first of them early enough."""
        mentions = find_mentions(caption, classes)
        if len({mention.class_id for mention in mentions}) < len(classes):
            return False
        place = len(caption[: mentions[0].start + 1].split())
        return self.within_words is None or place <= self.within_words


@cache
def shipped_banned_words() -> tuple[str, ...]:
    """The words that keep a caption out unless a profile names others."""
    return tuple(_BANNED_FILE.read_text(encoding="utf-8").split())


class CaptionPool:
    """The captions of a file that the filter admits, found by what they name.

    Threads may share it.

    Args:
        captions: In the order of the file; what is there twice counts once.
        rules: Which are of use.
    """

    def __init__(self, captions: Iterable[str], rules: CaptionFilter) -> None:
        self._rules = rules
        self._captions = [each for each in dict.fromkeys(captions) if rules.admits(each)]
        self._by_word: dict[str, array[int]] = {}
        for number, caption in enumerate(self._captions):
            for word in ClassWords.of_text(caption):
                self._by_word.setdefault(word, array("L")).append(number)
        self._found: dict[tuple[ClassRecord, ...], tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._captions)

    def about(self, classes: Sequence[ClassRecord]) -> tuple[str, ...]:
        """The captions that name all of some classes, in the order of the file."""
        key = tuple(classes)
        with self._lock:
            if key not in self._found:
                near = set[int].intersection(*(self._near(record) for record in classes))
                self._found[key] = tuple(
                    self._captions[number]
                    for number in sorted(near)
                    if self._rules.is_about(self._captions[number], classes)
                )
            return self._found[key]

    def _near(self, record: ClassRecord) -> set[int]:
        """Captions with a word that one of the class's forms begins with."""
        return {
            number for word in ClassWords.first_of(record) for number in self._by_word.get(word, ())
        }


def read_captions(file: Path, column: str) -> list[str]:
    """Read the captions of a file, each as one line with single blanks.

    Args:
        file: Captions one a line (.txt); JSON lines that are texts, or objects with a caption
            under `column` (.jsonl); or a table with such a column (.csv, .tsv).
        column: Its name.

    Raises:
        InputError: The file is missing, of another kind, cannot be read, or has no captions; names
            the line.
    """
    kind = file.suffix.lower()
    if kind not in SUFFIXES:
        message = f"{file} ends in {kind or 'nothing'!r}, expected a file of {_EXPECTED}"
        raise InputError(message)
    text = read_text_file(file, _EXPECTED)
    if kind == ".txt":
        raw: Iterator[str] = iter(text.splitlines())
    elif kind == ".jsonl":
        raw = _of_json_lines(file, text, column)
    else:
        raw = _of_table(file, text, column, "\t" if kind == ".tsv" else ",")
    captions = [caption for each in raw if (caption := _cleaned(each))]
    if not captions:
        message = f"{file} is empty, expected {_EXPECTED}"
        raise InputError(message)
    return captions


def captions_digest(file: Path) -> str:
    """SHA-256 of a file of captions; read again only if it changed.

    Raises:
        InputError: There is no such file.
    """
    if not file.is_file():
        read_text_file(file, _EXPECTED)  # says what is wrong with it
    stat = file.stat()
    return _digest(file.absolute(), stat.st_mtime_ns, stat.st_size)


@cache
def _digest(file: Path, changed: int, size: int) -> str:
    del changed, size
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _of_json_lines(file: Path, text: str, column: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            message = f"line {number} of {file} is not JSON ({error}), expected one value a line"
            raise InputError(message) from error
        caption = found.get(column) if isinstance(found, dict) else found
        if not isinstance(caption, str):
            message = (
                f"line {number} of {file} has no text under {column!r}, expected an object with "
                "one: name the field with column"
            )
            raise InputError(message)
        yield caption


def _of_table(file: Path, text: str, column: str, delimiter: str) -> Iterator[str]:
    rows = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        header = next(rows, [])
        if column not in header:
            names = ", ".join(map(repr, islice(header, 8)))
            message = f"{file} has the columns {names}, expected {column!r}: name it with column"
            raise InputError(message)
        place = header.index(column)
        for row in rows:
            if row and len(row) <= place:
                message = (
                    f"line {rows.line_num} of {file} has {len(row)} cells, expected {len(header)}"
                )
                raise InputError(message)
            if row:
                yield row[place]
    except csv.Error as error:
        message = f"line {rows.line_num} of {file} is no table's ({error}), expected {_EXPECTED}"
        raise InputError(message) from error


def _cleaned(text: str) -> str:
    """One line, composed characters, single blanks, as the prompts stage compares texts."""
    return " ".join(unicodedata.normalize("NFC", text).split())
