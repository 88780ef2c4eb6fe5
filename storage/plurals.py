"""English plurals of class names."""

import re
from functools import cache

from storage.tables import read_table

_LAST_WORD = re.compile(r"[A-Za-z]+$")
_ALREADY_PLURAL = re.compile(r"[^su]s$", re.IGNORECASE)
_SIBILANT = re.compile(r"(s|x|z|ch|sh)$", re.IGNORECASE)
_CONSONANT_Y = re.compile(r"(?<=[^aeiou])y$", re.IGNORECASE)


def plural_forms(phrase: str) -> tuple[str, ...]:
    """List the plurals of a noun phrase.

    The last word carries the plural ("school bus" -> "school buses"). A word of
    `data/plurals.csv` has the plurals listed there; any other one that ends in a single s after
    anything but u is a plural already ("scissors", "skis"); the rest follows the regular rules.

    Args:
        phrase: A noun phrase in the singular, or one that exists in the plural alone.

    Returns:
        The plurals, commonest first. The phrase itself stands for its plural where the two are
        the same or nobody counts the thing ("sheep", "broccoli", "scissors").
    """
    last = _LAST_WORD.search(phrase)
    if last is None:
        return (phrase,)
    head, word = phrase[: last.start()], last.group()
    if word.lower() in _irregular():
        return tuple(head + plural for plural in _irregular()[word.lower()])
    return (head + _regular(word),)


def _regular(word: str) -> str:
    if _ALREADY_PLURAL.search(word):
        return word
    if _SIBILANT.search(word):
        return word + "es"
    if _CONSONANT_Y.search(word):
        return word[:-1] + "ies"
    return word + "s"


@cache
def _irregular() -> dict[str, tuple[str, ...]]:
    return {row["word"]: tuple(row["plurals"].split(";")) for row in read_table("plurals.csv")}
