"""Lists of the images of a split, in the spellings that people have.

A line may be a name, with or without the ending of a file; a path with any folders in front; an
image and its label, with a blank, a tab or a comma between them; or a name and a flag, as the lists
of PASCAL VOC's `Main` have it. Names may hold blanks, and the first line titles of columns. What a
line means is decided by the files that are there.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from storage.errors import DataError, InputError
from storage.texts import split_lines

_ENDING = re.compile(r"\.(?:jpe?g|png|mat)$", re.IGNORECASE)
_FILE_AND_MORE = re.compile(r"(.+?\.(?:jpe?g|png))[\s,;]+(\S.*)", re.IGNORECASE)
_NAME_AND_FLAG = re.compile(r"(.*\S)\s+-?[01]")
_SEPARATORS = ("\t", ",", ";")
_DRIVE = re.compile(r"^[A-Za-z]:(?=/)")
_QUOTES = "\"'"
_MARK = "\ufeff"  # inside a text, where files with a byte order mark were joined
_TITLES = frozenset(
    {"image", "images", "img", "photo", "picture", "file", "filename", "name", "id", "key", "path"}
    | {"label", "labels", "mask", "masks", "seg", "segmentation", "annotation", "gt", "split"}
)
_WORD = re.compile(r"[A-Za-z]+")


def listed_names(
    text: str,
    where: str,
    is_there: Callable[[str], bool] | None = None,
    folders: Sequence[str] = (),
) -> list[str]:
    """Read the names of the images that a list has.

    Args:
        text: The list.
        where: What messages call it.
        is_there: Whether files of a name are there; without it nothing is looked up.
        folders: Names of the folders of images and labels, which paths may hold.

    Raises:
        InputError: If there is none.
        DataError: If a line has none, one occurs twice, or an image stands beside the label of
            another one.
    """
    lines = [line.strip().strip(_MARK).strip() for line in split_lines(text)]
    lines = [line for line in lines if line]
    if not lines:
        message = f"{where} names no image, expected one name a line: choose another split"
        raise InputError(message)
    reader = _Reader(is_there or (lambda name: False), tuple(folders))
    found = [reader.found(line) for line in lines]
    if found[0] is None and any(found) and _is_header(lines[0]):
        del found[0], lines[0]
    # A list in which some names hold blanks has them in the others too, whose files are missing.
    whole = any(
        name is not None and name.split() != [name] and _plain(line) == name
        for name, line in zip(found, lines, strict=True)
    )
    names = [
        reader.guessed(line, whole=whole) if name is None else name
        for name, line in zip(found, lines, strict=True)
    ]
    if "" in names:
        line = lines[names.index("")]
        message = f"{where} names no image in the line {line!r}, expected one name a line"
        raise DataError(message)
    _check_once(names, lines, where)
    _check_pairs(names, lines, where)
    return names


@dataclass(frozen=True)
class _Reader:
    """Reads lines by what is there."""

    is_there: Callable[[str], bool]
    folders: tuple[str, ...]

    def found(self, line: str) -> str | None:
        """The name of which there are files, if there are."""
        for entry in _entries(line):
            for name in _spellings(entry):
                if name and self.is_there(name):
                    return name
        return None

    def guessed(self, line: str, *, whole: bool) -> str:
        """What a line most probably names, if nothing is there."""
        pair = _FILE_AND_MORE.fullmatch(line)
        if whole:
            entry = line
        elif pair:
            entry = pair[1]
        else:
            entry = line.split()[0] if line.split() else line
        plain = _plain(_ENDING.sub("", entry.strip(_QUOTES)))
        parts = plain.split("/")
        at = max((place for place, part in enumerate(parts) if part in self.folders), default=-1)
        return "/".join(parts[at + 1 :]) or plain


def _entries(line: str) -> Iterator[str]:
    """What may name the image in a line: all of it, or its first part."""
    yield line
    for pattern in (_FILE_AND_MORE, _NAME_AND_FLAG):
        if match := pattern.fullmatch(line):
            yield match[1]
    for separator in _SEPARATORS:
        if separator in line:
            yield line.split(separator, maxsplit=1)[0]
    first, *others = line.split()
    if others:
        yield first


def _spellings(entry: str) -> Iterator[str]:
    """The names that an entry may mean: as it is, without an ending, without folders in front."""
    plain = _plain(entry.strip(_QUOTES))
    yield plain
    stem = _ENDING.sub("", plain)
    if stem != plain:
        yield stem
    parts = stem.split("/")
    for start in range(1, len(parts)):
        yield "/".join(parts[start:])


def _plain(entry: str) -> str:
    """A path with slashes alone, which leads nowhere but down."""
    path = _DRIVE.sub("", entry.strip().strip(_QUOTES).replace("\\", "/"))
    if "/" not in path:
        return path
    return "/".join(part for part in path.split("/") if part not in {"", ".", ".."})


def _is_header(line: str) -> bool:
    """Whether a line has nothing but titles of columns."""
    words = _WORD.findall(line.lower())
    return bool(words) and _TITLES.issuperset(words) and not any(map(str.isdigit, line))


def _check_once(names: Sequence[str], lines: Sequence[str], where: str) -> None:
    first: dict[str, str] = {}
    for name, line in zip(names, lines, strict=True):
        if name in first:
            as_what = "" if first[name] == line == name else f" (as {first[name]!r} and {line!r})"
            blank = " ".join(line.split()) != line.split()[0] and "/" not in line
            way_out = "leave one out" if not blank else "leave one out, or look for missing files"
            message = f"{where} names {name} twice{as_what}, expected every image once: {way_out}"
            raise DataError(message)
        first[name] = line


def _check_pairs(names: Sequence[str], lines: Sequence[str], where: str) -> None:
    """Refuse a line that gives an image the label of another name: labels go by their names."""
    for name, line in zip(names, lines, strict=True):
        pair = _FILE_AND_MORE.fullmatch(line)
        if pair is None or not _ENDING.search(pair[2].strip(_QUOTES)):
            continue
        label = PurePosixPath(_plain(_ENDING.sub("", pair[2].strip(_QUOTES)))).name
        if label != PurePosixPath(name).name:
            message = (
                f"{where} gives the image {name} the label {label} in the line {line!r}, expected "
                f"a label of the image's name: rename one of them"
            )
            raise DataError(message)
