"""Names that must not be negatives of an image, though nobody asked for them.

Category random sampling (MagicSeg, arXiv 2603.19575) draws an image's negatives from the whole
vocabulary. Some of them are no evidence of absence: another name of an object that is there, a
broader or a narrower one, or the name of something that the text mentions without having been asked
for it. The released code does not tell them apart; here each kind can be kept out by itself.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import product

from storage.tables import read_table
from storage.vocabulary import ClassRecord, Vocabulary
from training.config import NegativesConfig

_WORD = re.compile(r"\w+")

Words = tuple[str, ...]
_Pair = tuple[int, int]


class Exclusions:
    """What must not be a negative of an image, by its classes and its text.

    Args:
        vocabulary: The classes.
        config: Which kinds of names are kept out.
    """

    def __init__(self, vocabulary: Vocabulary, config: NegativesConfig) -> None:
        names = _class_names(vocabulary)
        self._related = related_classes(vocabulary, config)
        self._owners = _owners(names) if config.mentioned else {}
        self._longest = max(map(len, self._owners), default=0)
        self._every = frozenset(range(len(vocabulary))) if config.unjudged else frozenset[int]()

    def of(
        self,
        class_ids: Sequence[int],
        text: str,
        judged: Sequence[int] | None = None,
        others: Sequence[int] = (),
    ) -> tuple[int, ...]:
        """List the names that must not be negatives of an image.

        Args:
            class_ids: Vocabulary indices of the image's own classes.
            text: What the image shows.
            judged: Classes that were looked for in the image; None means all.
            others: Classes that were found in it though nobody asked for them.

        Returns:
            Vocabulary indices, ascending; own classes may be among them.
        """
        found = {j for i in class_ids for j in self._related[i]}.union(others)
        if self._owners:
            words = _words(text)
            found.update(
                class_id
                for part in _parts(words, self._longest)
                for class_id in self._owners.get(part, ())
            )
        if judged is not None:
            found |= self._every.difference(judged)
        return tuple(sorted(found))


def related_classes(vocabulary: Vocabulary, config: NegativesConfig) -> tuple[tuple[int, ...], ...]:
    """Find for each class the others that its picture is no evidence against.

    Names are compared word by word, without case and accents. Broader classes come from the table
    of hypernyms and from names that end in another name ("school bus" is a bus).

    Returns:
        For each class, in order, the positions of its related classes, ascending.
    """
    names = _class_names(vocabulary)
    owners = _owners(names)
    pairs: set[_Pair] = set()
    if config.synonyms:
        pairs |= _sharing(owners)
    if config.contained_names:
        within = _within(names, owners)
        pairs |= within | _turned(within)
    if config.broader or config.narrower:
        broader = _closure(_hypernyms(vocabulary) | _heads(names, owners))
        pairs |= broader if config.broader else set()
        pairs |= _turned(broader) if config.narrower else set()
    return _by_first(pairs, len(vocabulary))


def _by_first(pairs: set[_Pair], count: int) -> tuple[tuple[int, ...], ...]:
    """For each class the second ones of its pairs, ascending; a class is not related to itself."""
    related: list[list[int]] = [[] for _ in range(count)]
    for i, j in sorted(pairs):
        if i != j:
            related[i].append(j)
    return tuple(map(tuple, related))


def _turned(pairs: set[_Pair]) -> set[_Pair]:
    return {(j, i) for i, j in pairs}


def _sharing(owners: dict[Words, set[int]]) -> set[_Pair]:
    """Pairs of classes that have a name in common."""
    return {pair for own in owners.values() for pair in product(own, own)}


def _within(names: Sequence[set[Words]], owners: dict[Words, set[int]]) -> set[_Pair]:
    """(class, class that has a part of its name as a name)."""
    return {(i, j) for form, i in _forms(names) for j in _owning(owners, _parts(form))}


def _hypernyms(vocabulary: Vocabulary) -> set[_Pair]:
    """(class, broader class) of the shipped table."""
    return {
        (vocabulary.by_name(row["class"]).class_id, vocabulary.by_name(name).class_id)
        for row in read_table("hypernyms.csv")
        if row["vocabulary"] == vocabulary.name
        for name in row["broader"].split(";")
    }


def _heads(names: Sequence[set[Words]], owners: dict[Words, set[int]]) -> set[_Pair]:
    """(class, broader class) where a name ends in another class's name."""
    return {
        (i, j)
        for form, i in _forms(names)
        for start in range(1, len(form))
        for j in owners.get(form[start:], ())
    }


def _closure(pairs: set[_Pair]) -> set[_Pair]:
    """All pairs that a chain of pairs connects."""
    direct: dict[int, set[int]] = {}
    for i, j in pairs:
        direct.setdefault(i, set()).add(j)
    reached: set[_Pair] = set()
    for start in direct:
        ahead = list(direct[start])
        while ahead:
            place = ahead.pop()
            if (start, place) not in reached:
                reached.add((start, place))
                ahead.extend(direct.get(place, ()))
    return reached


def _class_names(classes: Iterable[ClassRecord]) -> list[set[Words]]:
    return [{_words(form) for form in record.forms} for record in classes]


def _forms(names: Sequence[set[Words]]) -> list[tuple[Words, int]]:
    return [(form, i) for i, own in enumerate(names) for form in own]


def _owners(names: Sequence[set[Words]]) -> dict[Words, set[int]]:
    """The classes that have a name."""
    owners: dict[Words, set[int]] = {}
    for form, i in _forms(names):
        owners.setdefault(form, set()).add(i)
    return owners


def _owning(owners: dict[Words, set[int]], parts: Iterable[Words]) -> set[int]:
    return {i for part in parts for i in owners.get(part, ())}


def _words(text: str) -> Words:
    plain = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return tuple(_WORD.findall(bare))


def _parts(words: Words, longest: int | None = None) -> set[Words]:
    """All runs of at most `longest` consecutive words."""
    count = len(words)
    reach = longest or count
    return {
        words[start:end]
        for start in range(count)
        for end in range(start + 1, min(start + reach, count) + 1)
    }
