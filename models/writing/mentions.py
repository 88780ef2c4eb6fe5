"""Where a text names its classes, and the same text without them.

The counterfactual text of MagicSeg (arXiv 2603.19575) is the text with each class word
replaced by "nothing". Here the replacement starts from character spans, so that plurals, synonyms
and names inside other names come out right and two classes cannot damage each other's words.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from storage.records import Mention
from storage.vocabulary import ClassRecord

NOTHING = "nothing"
"""Stands for a class in a counterfactual text."""

CounterfactualRule = Literal["nothing", "remove"]
"""``nothing``: write "nothing" for a mention (the paper's rule); ``remove``: leave it out."""

Span = tuple[int, int]

_HYPHENS = "\\-\u2010\u2011"
_APOSTROPHES = "'\u2019"
_OPENING = "\"'(\\[\u2018\u201c"
_CLOSING = "\"')\\]\u2019\u201d"
_DETERMINERS = (
    "a few|a pair of|an?|the|this|that|these|those|some|each|every|another|many|several|one|two|"
    "three|four|five|six|seven|eight|nine|ten|his|her|its|their|my|our|your"
)
_SENTENCE_START = re.compile(rf"(?:^|[.!?][{_CLOSING}]*\s)[\s{_OPENING}]*$")
_ARTICLE = re.compile(rf"\b([Aa])[Nn](?=\s+[{_OPENING}]*$)")
_DETERMINER = re.compile(rf"(?<![\w{_APOSTROPHES}{_HYPHENS}])(?:{_DETERMINERS})\s+$", re.IGNORECASE)
_POSSESSIVE = re.compile(rf"[{_APOSTROPHES}]s\b", re.IGNORECASE)
_PLURAL_POSSESSIVE = re.compile(rf"[{_APOSTROPHES}](?=\s+\w)")
_QUOTES = {*zip("\"'([\u2018\u201c", "\"')]\u2019\u201d", strict=True)}
_WORD = re.compile(r"\w+")
_OPEN_QUOTE = re.compile(r"(?:^|\s)['\u2018]\w")


def find_mentions(text: str, classes: Sequence[ClassRecord]) -> tuple[Mention, ...]:
    """Find every place where a text names one of the classes.

    All surface forms of all classes compete in one pass; the longest wins and mentions never
    overlap, so "a school bus" does not mention the class bus when school bus is asked for too.
    A form counts as a whole word in any capitals; accents, the kind of apostrophe, and hyphen or
    blank inside a form make no difference. A word tied to others by a hyphen is another word:
    "cat-shaped" mentions no cat. A form that several classes share goes to the one with the fewest
    mentions so far, so that "a bow and a bow" names both kinds of bow.

    Args:
        text: Any text; offsets refer to it exactly as it is given.
        classes: The classes to look for.

    Returns:
        The mentions, by start.
    """
    folded, offsets = _fold(text)
    found: dict[Span, list[int]] = {}
    for pattern, class_id in _patterns(tuple(classes)):
        for match in pattern.finditer(folded):
            found.setdefault(match.span(), []).append(class_id)
    counts = {record.class_id: 0 for record in classes}
    mentions = []
    for start, end in sorted(_longest(found)):
        class_id = min(found[start, end], key=lambda candidate: counts[candidate])
        counts[class_id] += 1
        mentions.append(Mention(class_id=class_id, start=offsets[start], end=offsets[end]))
    return tuple(mentions)


def counterfactual_text(
    text: str, mentions: Sequence[Mention], *, rule: CounterfactualRule = "nothing"
) -> str:
    """Write the text of the counterfactual image.

    ``nothing`` puts "nothing" for each mention, singular or plural. An indefinite article directly
    before it becomes "a" ("an airplane" -> "a nothing"), a capital at the start of a sentence stays
    ("Airplanes fly" -> "Nothing fly"), the possessive of a plural becomes regular ("the buses'
    doors" -> "the nothing's doors"). Every other character is untouched.

    ``remove`` drops each mention with its possessive ending and with the article, number or other
    determiner directly before it, and tidies the blanks and punctuation around the gap. A text
    that held nothing else becomes empty.

    Args:
        text: The text of the positive image.
        mentions: All its mentions, by start, as `find_mentions` returns them.
        rule: How a mention is replaced.

    Returns:
        The counterfactual text.

    Raises:
        ValueError: If the mentions overlap, are out of order, or lie outside the text.
    """
    spans = [(mention.start, mention.end) for mention in mentions]
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    if any(left > right for left, right in pairwise(edges)) or any(s == e for s, e in spans):
        message = f"mentions {spans} do not lie in order inside a text of {len(text)} characters"
        raise ValueError(message)
    return _without(text, spans) if rule == "remove" else _with_nothing(text, spans)


def _with_nothing(text: str, spans: Sequence[Span]) -> str:
    pieces, done = [], 0
    for start, end in spans:
        pieces.append(_ARTICLE.sub(r"\1", text[done:start]))
        capital = text[start].isupper() and _SENTENCE_START.search(text[:start])
        pieces.append(NOTHING.capitalize() if capital else NOTHING)
        done = end
        if _is_plural_possessive(text, start, end):
            pieces.append(text[end] + "s")
            done = end + 1
    return "".join(pieces) + text[done:]


def _without(text: str, spans: Sequence[Span]) -> str:
    kept, rest = len(text), ""
    for start, end in reversed(spans):
        determiner = _DETERMINER.search(text, 0, start)
        began = determiner.start() if determiner else start
        possessive = _POSSESSIVE.match(text, end)
        ended = possessive.end() if possessive else end + _is_plural_possessive(text, start, end)
        capital = text[began].isupper() and _SENTENCE_START.search(text[:began])
        left, rest = _joined(text[:began], text[ended:kept] + rest)
        rest = _with_capital(rest) if capital else rest
        kept = len(left)
    return text[:kept] + rest


def _joined(left: str, right: str) -> tuple[str, str]:
    """Close a gap: what stays on its left, and what follows, with the blank between them."""
    blank = " " if left[-1:].isspace() else ""
    left, right = left.rstrip(), right.lstrip()
    if left and right and (left[-1], right[0]) in _QUOTES:
        return _joined(left[:-1], right[1:])
    if not left or left[-1] in ".!?":
        right = right.lstrip(" ,;:.!?")
    elif right[:1] in tuple(",;:.!?"):
        left = left.rstrip(" ,;:")
    alone = not left or not right or right[0] in ",;:.!?)]\u2019\u201d"
    return left, right if alone else blank + right


def _with_capital(text: str) -> str:
    letter = len(text) - len(text.lstrip())
    return text[:letter] + text[letter : letter + 1].upper() + text[letter + 1 :]


def _is_plural_possessive(text: str, start: int, end: int) -> bool:
    """Whether the apostrophe after a plural is a possessive and not a closing quotation mark."""
    return (
        text[end - 1] in "sS"
        and _PLURAL_POSSESSIVE.match(text, end) is not None
        and _OPEN_QUOTE.search(text[:start] + "x") is None
    )


def _longest(found: dict[Span, list[int]]) -> list[Span]:
    """The spans that stay when the longest is taken first and none may overlap."""
    kept: list[Span] = []
    for start, end in sorted(found, key=lambda span: (span[0] - span[1], span[0])):
        if all(end <= left or start >= right for left, right in kept):
            kept.append((start, end))
    return kept


def _fold(text: str) -> tuple[str, list[int]]:
    """Lower case without accents, and for each character of it the offset in the text.

    The list of offsets is one longer than the folded text: its last is the length of the text.
    """
    if text.isascii():
        return text.lower(), list(range(len(text) + 1))
    letters, offsets = [], []
    for offset, character in enumerate(text):
        if unicodedata.combining(character):
            continue
        base, *marks = unicodedata.normalize("NFD", character)
        base = base if all(map(unicodedata.combining, marks)) else character
        lower = base.lower()
        letters.append(lower if len(lower) == 1 else base)
        offsets.append(offset)
    return "".join(letters), [*offsets, len(text)]


class ClassWords:
    """The words by which texts are found that may name a class."""

    @staticmethod
    def of_text(text: str) -> set[str]:
        """All words of a text, as forms are compared."""
        return set(_WORD.findall(_fold(text)[0]))

    @staticmethod
    def first_of(record: ClassRecord) -> set[str]:
        """The first word of each form of a class; a text without any of them does not name it."""
        firsts = (_WORD.search(_fold(form)[0]) for form in record.forms)
        return {first[0] for first in firsts if first is not None}


class ClassFinder:
    """Says which of many classes a text names, in the way of `find_mentions`.

    Args:
        classes: A whole vocabulary, say: only those are looked for one of whose forms begins with
            a word of the text.
    """

    def __init__(self, classes: Iterable[ClassRecord]) -> None:
        self._by_word: dict[str, dict[int, ClassRecord]] = {}
        for record in classes:
            for word in ClassWords.first_of(record):
                self._by_word.setdefault(word, {})[record.class_id] = record

    def named(self, text: str) -> frozenset[int]:
        """The ids of the classes that a text names."""
        near: dict[int, ClassRecord] = {}
        for word in ClassWords.of_text(text):
            near |= self._by_word.get(word, {})
        mentions = find_mentions(text, [near[class_id] for class_id in sorted(near)])
        return frozenset(mention.class_id for mention in mentions)


@lru_cache(maxsize=4096)
def _patterns(classes: tuple[ClassRecord, ...]) -> tuple[tuple[re.Pattern[str], int], ...]:
    return tuple(
        (_pattern(form), record.class_id)
        for record in classes
        for form in dict.fromkeys(_fold(form)[0] for form in record.forms)
    )


@lru_cache(maxsize=16384)
def _pattern(form: str) -> re.Pattern[str]:
    words = (
        re.sub(rf"[{_APOSTROPHES}]", f"[{_APOSTROPHES}]", re.escape(word))
        for word in re.split(rf"[\s{_HYPHENS}]+", form)
    )
    joined = rf"[\s{_HYPHENS}]+".join(words)
    return re.compile(rf"(?<!\w)(?<!\w[{_HYPHENS}]){joined}(?!\w)(?![{_HYPHENS}]\w)")
