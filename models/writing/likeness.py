"""How alike two texts are, by their pairs of neighbouring words."""

import re
from functools import lru_cache
from itertools import pairwise

_SHORT_WORDS = 8
_WORD = re.compile(r"\w+")


def likeness(text: str, other: str) -> float:
    """Shared word pairs of two texts, as a part of all that either has (Jaccard), in [0, 1].

    Capitals and punctuation do not count. Texts of which one has fewer than 8 words are either
    word for word the same, which is 1, or not alike, which is 0.
    """
    (words, pairs), (other_words, other_pairs) = _word_pairs(text), _word_pairs(other)
    if min(len(words), len(other_words)) < _SHORT_WORDS:
        return float(words == other_words)
    return len(pairs & other_pairs) / len(pairs | other_pairs)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, in order, without capitals."""
    return tuple(_WORD.findall(text.casefold()))


@lru_cache(maxsize=8192)
def _word_pairs(text: str) -> tuple[tuple[str, ...], frozenset[tuple[str, str]]]:
    words = words_of(text)
    return words, frozenset(pairwise(words))
