"""YAML as people mean it: the core schema of version 1.2 (yaml.org/spec/1.2.2, section 10.3.2).

PyYAML reads version 1.1, in which `no` and `off` are false, `10:20` is 620, `010` is 8, `1e3` is a
text and `2024-01-01` a date. Here `true` and `false` are truth values, `null`, `~` and nothing are
nothing, numbers are decimal (or `0o17`, `0x1f`), and everything else is text. A number that is not
spelt as Python would spell it remembers its spelling, so that a field for text can take that. Keys
are always text, and none may stand in a mapping twice.
"""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import yaml
from yaml import events

from storage.errors import InputError

MAX_VALUES = 100_000
"""A document with more, which an alias of aliases can reach in a few lines, is refused."""
MAX_DEPTH = 50
"""So many lists and mappings may lie in one another."""

_TAG = "tag:yaml.org,2002:"


class SpeltInt(int):
    """A whole number with its spelling, such as `010`."""

    spelling: str

    def __new__(cls, value: int, spelling: str = "") -> "SpeltInt":
        """Args: the number, and how it was written."""
        number = super().__new__(cls, value)
        number.spelling = spelling or int.__repr__(value)
        return number


class SpeltFloat(float):
    """A number with its spelling, such as `1e3`."""

    spelling: str

    def __new__(cls, value: float, spelling: str = "") -> "SpeltFloat":
        """Args: the number, and how it was written."""
        number = super().__new__(cls, value)
        number.spelling = spelling or float.__repr__(value)
        return number


def spelling(value: bool | float) -> str:
    """How a number or a truth value was written; as JSON writes it, where that is not known."""
    if isinstance(value, SpeltInt | SpeltFloat):
        return value.spelling
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def parse_yaml(text: str, where: str) -> Any:
    """Read a YAML document.

    Args:
        text: The document.
        where: What messages call it.

    Returns:
        Mappings with text as keys, lists, texts, numbers, truth values and None.

    Raises:
        InputError: If the text is not YAML, a key stands twice in one mapping or is not a text, a
            tag is unknown, or the document is too large or holds itself.
    """
    try:
        return _Reading(text).document()
    except (yaml.YAMLError, ValueError) as error:
        message = f"{where} is not YAML: {' '.join(str(error).split())}"
        raise InputError(message) from error


def parse_value(text: str, where: str) -> Any:
    """Read a value that stands on a command line.

    A list in `[]`, a mapping in `{}` and text in quotes are YAML. Anything else is a single value
    as it stands, `#`, `:` and `*` included: nothing, a truth value, a number, or text.

    Raises:
        InputError: If a list, mapping or quoted text is not YAML.
    """
    stripped = text.strip()
    if stripped.startswith(("[", "{", '"', "'")):
        return parse_yaml(stripped, where)
    try:
        return _plain(stripped)
    except ValueError as error:
        message = f"{where} is not a number that can be read ({error})"
        raise InputError(message) from error


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    number = int(text, base)
    return number if text == str(number) else SpeltInt(number, text)


def _float(text: str) -> float:
    # YAML writes .inf and .nan with a point
    number = float(text.replace(".", "") if text[-1:].isalpha() else text)
    return number if text == repr(number) else SpeltFloat(number, text)


_PATTERNS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
"""What the core schema takes for something else than text."""

_BUILD: dict[str, Callable[[str], Any]] = {
    "null": lambda _text: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": _float,
}

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is ten times as fast


class _Reading:
    """Builds the values of one document from the events of the parser, which does not recurse."""

    def __init__(self, text: str) -> None:
        parse = cast("Any", yaml).parse  # its types are unknown
        self._events: Iterator[Any] = parse(text, Loader=_Loader)
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0
        self._depth = 0

    def document(self) -> Any:
        """The document; None if there is nothing."""
        self._next(events.StreamStartEvent)
        if isinstance(self._next(), events.StreamEndEvent):
            return None
        value = self._value(self._next())
        self._next(events.DocumentEndEvent)
        self._next(events.StreamEndEvent)
        return value

    def _next(self, expected: type[Any] = object) -> Any:
        event = next(self._events)
        if not isinstance(event, expected):
            raise _fault(event, "a second document begins, expected one")
        return event

    def _value(self, event: Any) -> Any:
        """The value that begins with an event."""
        if isinstance(event, events.AliasEvent):
            return self._alias(event)
        before = self._count
        self._add(event, 1)
        single = isinstance(event, events.ScalarEvent)
        value = _scalar(event) if single else self._collection(event)
        if event.anchor:
            self._anchors[event.anchor] = value, self._count - before
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise _fault(event, f"*{event.anchor} stands for nothing that is whole before it")
        value, count = self._anchors[event.anchor]
        self._add(event, count)
        return copy.deepcopy(value)

    def _add(self, event: Any, count: int) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            raise _fault(event, f"it holds more than {MAX_VALUES} values")

    def _collection(self, event: Any) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _fault(event, f"more than {MAX_DEPTH} lists and mappings lie in one another")
        is_list = isinstance(event, events.SequenceStartEvent)
        if event.tag not in {None, "!", f"{_TAG}{'seq' if is_list else 'map'}"}:
            raise _fault(event, f"the tag {event.tag} is unknown")
        value = self._list() if is_list else self._mapping()
        self._depth -= 1
        return value

    def _list(self) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := self._next(), events.SequenceEndEvent):
            values.append(self._value(event))
        return values

    def _mapping(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(key := self._next(), events.MappingEndEvent):
            if not isinstance(key, events.ScalarEvent):
                raise _fault(key, "a key is not a text")
            if key.value == "<<" and key.implicit[0]:
                for each in _merged(self._value(self._next()), key):
                    merged = {**each, **merged}
            elif key.value in given:
                raise _fault(key, f"the key {key.value!r} stands there twice, keep one of them")
            else:
                given[key.value] = self._value(self._next())
        return {**merged, **given}


def _merged(value: Any, event: Any) -> list[dict[str, Any]]:
    """The mappings behind `<<`, of which the first ones win."""
    mappings = cast("list[Any]", value if isinstance(value, list) else [value])
    if not all(isinstance(each, dict) for each in mappings):
        raise _fault(event, "<< wants a mapping, or a list of mappings")
    return mappings


def _scalar(event: Any) -> Any:
    if event.tag is None:
        return _plain(event.value) if event.implicit[0] else event.value
    kind = event.tag.removeprefix(_TAG)
    if kind in {"str", "!"}:
        return event.value
    pattern = _PATTERNS.get(kind)
    if pattern is None or not pattern.fullmatch(event.value):
        raise _fault(event, f"{event.value!r} with the tag {event.tag} means nothing")
    return _BUILD[kind](event.value)


def _plain(text: str) -> Any:
    """What a text without quotes and tag means."""
    kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(text)), None)
    return _BUILD[kind](text) if kind else text


def _fault(event: Any, problem: str) -> ValueError:
    mark = event.start_mark
    return ValueError(f"{problem} (line {mark.line + 1}, column {mark.column + 1})")
