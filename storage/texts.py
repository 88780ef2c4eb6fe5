"""Texts that people and their programs write: UTF-8 or UTF-16, with or without a byte order mark.

What people have comes from editors and shells of every system: PowerShell and Excel write UTF-16,
Notepad a mark in front of UTF-8. Other encodings cannot be told from one another, so that a text in
one of them is refused with the byte that shows it.
"""

import codecs
import re
from pathlib import Path

from storage.errors import DataError, InputError

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_EVIDENT = 0.5
"""Share of the characters that must be of ASCII or Latin-1 in a text of UTF-16 without a mark."""
_LOOKED_AT = 1 << 16
_LINE_END = re.compile(r"\r\n|\r|\n")
_EXPECTED = "expected UTF-8 or UTF-16: save it as UTF-8"


def decode_text(data: bytes, name: str) -> str:
    """Decode a text file.

    Args:
        data: The file.
        name: What messages call it.

    Returns:
        The text without a byte order mark; ends of lines as they are.

    Raises:
        DataError: If the text is in another encoding, or holds a NUL; names the byte.
    """
    mark, encoding = text_encoding(data)
    if encoding.startswith("utf-32"):
        message = f"{name} is a text in UTF-32, {_EXPECTED}"
        raise DataError(message)
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        line = len(_LINE_END.findall(data[len(mark) : at].decode(encoding, "replace"))) + 1
        message = (
            f"{name} holds the byte 0x{data[at]:02x} at position {at} (line {line}), which is no "
            f"{encoding.upper()}; {_EXPECTED}"
        )
        raise DataError(message) from error
    if "\0" in text:
        line = len(_LINE_END.findall(text[: text.index("\0")])) + 1
        message = f"{name} holds the byte 0x00 (NUL) in line {line}, which is no text; {_EXPECTED}"
        raise DataError(message)
    return text


def read_text_file(file: Path, expected: str) -> str:
    """Read a text file that somebody names.

    Args:
        file: Its path.
        expected: What should be in it, for messages.

    Raises:
        InputError: There is no such file, it is no ordinary one, or it cannot be read as text.
    """
    if not file.is_file():
        found = "is no ordinary file" if file.exists() or file.is_symlink() else "does not exist"
        message = f"{file} {found}, expected a file with {expected}"
        raise InputError(message)
    try:
        return decode_text(file.read_bytes(), str(file))
    except (OSError, DataError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"{file} cannot be read ({reason}), expected a file with {expected}"
        raise InputError(message) from error


def text_encoding(data: bytes) -> tuple[bytes, str]:
    """Tell the byte order mark and the encoding of a text by its first bytes, or all of them.

    Args:
        data: A text, or its beginning.

    Returns:
        The mark, which may be empty, and ``utf-8``, or ``utf-16-`` or ``utf-32-`` with ``le`` or
        ``be`` behind it.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return mark, encoding
    pairs = min(len(data), _LOOKED_AT) // 2
    first, second = (data[start : 2 * pairs : 2].count(0) for start in (0, 1))
    if pairs and not first and second > _EVIDENT * pairs:
        return b"", "utf-16-le"
    if pairs and not second and first > _EVIDENT * pairs:
        return b"", "utf-16-be"
    return b"", "utf-8"


def split_lines(text: str) -> list[str]:
    """Split a text at the ends of lines of every system, and nowhere else."""
    return _LINE_END.split(text)
