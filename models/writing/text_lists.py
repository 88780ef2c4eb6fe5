"""Lists of texts in what a model wrote: JSON, broken JSON, or one text a line."""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.writing.instructions import whole_characters

READER_VERSION = "2"
"""Raised when the same answer is read in another way; the ledger keeps which reader read it."""

Form = Literal["json", "repaired json", "lines", "nothing"]

_DEPTH = 6  # of lists in objects in lists
_NAMES = ("text", "caption", "prompt", "sentence", "description", "scene", "content", "value")
_LIST_NAMES = (*(f"{name}s" for name in _NAMES), "items", "results", "data", "answers", "outputs")
_WORDS_OF_A_TEXT = 4  # on average; lists of shorter strings are words, of names for one
_LETTER = re.compile(r"[^\W\d_]")
_FENCE = re.compile(r"```[\w-]*")
_LIST_BEGINS = re.compile(r'"[^"\\\n]{1,40}"\s*:\s*\[|\[')
_ENDS = re.compile(r'\s*(?:,\s*(?=["\u201c\'\]}{]|$)|(?=[\]}]|$|"\s*\n|"[^\s,\]}]))', re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_LAST_COMMA = re.compile(r",(?=\s*[\]}])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": " ", "f": " "}
_MARKED = re.compile(
    r"^\s*(?:[-*+\u2022\u2013\u00b7]\s+|\(?\d{1,3}\s*[.):\u3001]\s*|\*{0,2}(?:caption|text|prompt|"
    r"scene|image)\s*#?\d*\s*[:.)]\*{0,2}\s*)(?P<text>.+)$",
    re.IGNORECASE,
)
_TALK = re.compile(
    r"\W*(?:sure|here\b|certainly|of course|okay|ok\b|great|absolutely|i hope|let me|note|these|"
    r"below|the following|as requested|hope)",
    re.IGNORECASE,
)
_SHORTEST_LINE = 6  # words of a line without a mark that may be a text
_QUOTES = {'"': '"', "\u201c": "\u201d", "'": "'", "\u00ab": "\u00bb", "`": "`"}


@dataclass(frozen=True)
class FoundTexts:
    """Texts, and how they were written."""

    texts: Sequence[str]
    form: Form


def find_texts(content: str, *, cut_off: bool = False) -> FoundTexts:
    """Find the list of texts in what a model wrote.

    Args:
        content: What it wrote.
        cut_off: Whether it ended before its time; then the last line is only a part.
    """
    content = _unwrapped(content)
    found = FoundTexts(_whole_json(content), "json")
    if not _begins_whole(content):
        repaired = max(_whole_json(_repaired(content)), _broken_json(content), key=len)
        if repaired and len(repaired) >= len(found.texts):
            found = FoundTexts(repaired, "repaired json")
    if not found.texts:
        found = FoundTexts(_lines(content, cut_off=cut_off), "lines")
    if not found.texts:
        return FoundTexts([], "nothing")
    return FoundTexts([whole_characters(text) for text in found.texts], found.form)


def _unwrapped(content: str) -> str:
    """What a JSON string holds, if the content is nothing else."""
    stripped = _FENCE.sub("", content).strip()
    try:
        inner = json.loads(stripped, strict=False) if stripped.startswith('"') else None
    except (ValueError, RecursionError):
        return content
    return inner if isinstance(inner, str) else content


def _begins_whole(content: str) -> bool:
    """Whether the first bracket opens a whole JSON value."""
    begin = _next_bracket(content, 0)
    try:
        json.JSONDecoder(strict=False).raw_decode(content, begin or 0)
    except (ValueError, RecursionError):
        return False
    return True


def _repaired(content: str) -> str:
    """The content with escapes that JSON does not know, and commas before an end, taken out."""

    def escape(match: re.Match[str]) -> str:
        return match[0] if len(match[1]) > 1 or match[1] in '"\\/bfnrt' else match[1]

    return _LAST_COMMA.sub("", _ESCAPE.sub(escape, content))


def _whole_json(content: str) -> list[str]:
    """The texts of the JSON value that holds most of them; the later one if two hold as many.

    Objects that hold one text each, one after the other, are read as one list.
    """
    lists = [texts for value in _values(content) if (texts := _texts(value))]
    if len(lists) > 1 and all(len(texts) == 1 for texts in lists):
        return [text for texts in lists for text in texts]
    return max(reversed(lists), key=len, default=[])


def _values(content: str) -> Iterator[Any]:
    """The JSON objects and arrays in a text."""
    decoder, position = json.JSONDecoder(strict=False), 0
    while (begin := _next_bracket(content, position)) is not None:
        try:
            value, position = decoder.raw_decode(content, begin)
        except (ValueError, RecursionError):
            position = begin + 1
        else:
            yield value


def _next_bracket(content: str, position: int) -> int | None:
    places = [place for each in "{[" if (place := content.find(each, position)) >= 0]
    return min(places, default=None)


def _texts(value: Any, depth: int = 0) -> list[str]:
    """The texts in a JSON value: the longest list of strings, or of objects with one, in it."""
    if depth > _DEPTH:
        return []
    if isinstance(value, str):
        return _of_string(value, depth)
    if isinstance(value, list):
        return _of_list(value, depth)
    if isinstance(value, Mapping):
        return _of_object(value, depth)
    return []


def _of_string(text: str, depth: int) -> list[str]:
    if text.lstrip()[:1] in {"{", "["}:
        for inner in _values(text):
            if texts := _texts(inner, depth + 1):
                return texts
    return [text] if _LETTER.search(text) else []


def _of_list(items: list[Any], depth: int) -> list[str]:
    if all(isinstance(each, str) for each in items):
        return [each for each in items if _LETTER.search(each)]
    lists = [_texts(each, depth + 1) for each in items]
    if all(len(texts) <= 1 for texts in lists):
        return [text for texts in lists for text in texts]
    return max(lists, key=len, default=[])


def _of_object(fields: Mapping[str, Any], depth: int) -> list[str]:
    """The list that is named as one; else the text; else what else there is."""
    lists = {
        name: texts
        for name, value in fields.items()
        if isinstance(value, dict | list) and (texts := _texts(value, depth + 1))
    }
    named = [texts for name, texts in lists.items() if name.lower() in _LIST_NAMES]
    longest = max(named or lists.values(), key=len, default=[])
    if longest and (named or _are_long(longest)):
        several = not named and len(lists) == len(fields)  # a list for each place, say
        return [text for texts in lists.values() for text in texts] if several else longest
    return _own_text(fields, depth) or longest


def _own_text(fields: Mapping[str, Any], depth: int) -> list[str]:
    """The string that is named as a text; else all that have several words."""
    strings = {name.lower(): text for name, text in fields.items() if isinstance(text, str)}
    for name in (*_NAMES, *_LIST_NAMES):
        if name in strings:
            return _of_string(strings[name], depth + 1)
    return [text for text in strings.values() if len(text.split()) > 1]


def _are_long(texts: Sequence[str]) -> bool:
    """Whether these are more than words or names."""
    return sum(len(text.split()) for text in texts) >= _WORDS_OF_A_TEXT * len(texts)


def _broken_json(content: str) -> list[str]:
    """The strings of the longest list that is no JSON: cut off, or with a fault in a text.

    Each text is repaired by itself, so that a fault in one costs none of the others.
    """
    found: list[str] = []
    if (texts := _python_list(content)) is not None:
        return texts
    for begin in _LIST_BEGINS.finditer(content):
        texts = list(_strings(content, begin.end()))
        if len(texts) >= len(found):
            found = texts
    return [text for text in found if _LETTER.search(text)]


def _python_list(content: str) -> list[str] | None:
    """The texts of a list or dictionary as Python writes it, with single quotes."""
    begin, end = _next_bracket(content, 0), max(content.rfind("]"), content.rfind("}"))
    if begin is None or end < begin:
        return None
    try:
        return _texts(ast.literal_eval(content[begin : end + 1])) or None
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _strings(content: str, position: int) -> Iterator[str]:
    """The strings of a list from a position on, until it ends or a string is cut off."""
    while True:
        while position < len(content) and content[position] not in '"\u201c[]{}:':
            position += 1
        if position >= len(content) or content[position] in "[]{}:":
            return
        close = _end_of_string(content, position)
        if close is None:
            return
        yield _unescaped(content[position + 1 : close])
        position = close + 1


def _end_of_string(content: str, begin: int) -> int | None:
    """Where a string ends: at a quote after which the list goes on or ends."""
    quotes = {'"', _QUOTES[content[begin]]}
    place = begin + 1
    while place < len(content):
        if content[place] == "\\":
            place += 2
            continue
        if content[place] in quotes and _ENDS.match(content, place + 1):
            return place
        place += 1
    return None


def _unescaped(text: str) -> str:
    """Resolve the escapes that JSON knows; of others, the character that is escaped stays."""

    def character(match: re.Match[str]) -> str:
        escape = match[1]
        if len(escape) > 1:
            return chr(int(escape[1:], 16))
        return _ESCAPES.get(escape, escape)

    return _ESCAPE.sub(character, text)


def _lines(content: str, *, cut_off: bool) -> list[str]:
    """One text a line: those with a number or a bullet, or else those long enough to be one."""
    lines = [line.strip() for line in _FENCE.sub("", content).splitlines() if line.strip()]
    if cut_off:
        lines = lines[:-1]
    marked = [match["text"] for line in lines if (match := _MARKED.match(line))]
    plain = (line for line in lines if _is_text(line))
    return [text for text in map(_bare, marked or plain) if _LETTER.search(text)]


def _is_text(line: str) -> bool:
    if line.endswith(":") or line[0] in "{}[]<#" or _TALK.match(line):
        return False
    return len(line.split()) >= _SHORTEST_LINE


def _bare(text: str) -> str:
    """Without the quotes and stars around it."""
    text = text.strip().rstrip(",").strip("*").strip()
    closing = _QUOTES.get(text[:1])
    if closing and len(text) > 1 and text.endswith(closing):
        return text[1:-1].strip()
    return text
