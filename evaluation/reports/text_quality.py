"""How good the texts of a dataset are: length, variety, repetition, and what else they name.

Every figure is of the texts that were accepted; what was refused at once is in the yields. The
figures of two writers compare only at about the same number of texts: variety falls as texts grow
more. So at most `MAX_TEXTS` are measured, whole class sets from all over the dataset.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean, quantiles

from models.writing.likeness import likeness, words_of
from models.writing.mentions import ClassFinder
from storage.manifest import ManifestRow
from storage.vocabulary import Vocabulary

MAX_TEXTS = 1000
"""Most texts of a writer that are measured."""

DUPLICATE_LIKENESS = 0.8
"""Texts of the same classes that are at least so alike are near-duplicates."""

_FEW, _TENTHS = 10, 10


TEXT_HEADS = (
    "writer",
    "texts",
    "words, mean",
    "words, 10 to 90 %",
    "distinct-1",
    "distinct-2",
    "near-duplicates",
    "classes named",
    "name other classes",
)
"""What the cells of `TextQuality` are about."""


@dataclass(frozen=True)
class SceneText:
    """A text of a sample.

    Attributes:
        writer: What wrote it.
        class_ids: The classes of the sample.
        text: The text.
    """

    writer: str
    class_ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class TextQuality:
    """How good the texts of a writer are.

    Attributes:
        writer: Who wrote them.
        num_texts: Texts that were looked at.
        measured: Of these, texts that were measured.
        mean_words: Words of a text.
        least_words: Words that nine of ten texts reach.
        most_words: Words that nine of ten texts do not pass.
        distinct_1: Different words, as a part of all words (distinct-1 of Li et al. 2016).
        distinct_2: Different pairs of neighbouring words, as a part of all words (distinct-2).
        near_duplicates: Share of the texts that are nearly as another one of the same classes.
        classes_named: Classes of the vocabulary that a text names; None without a vocabulary.
        other_classes: Share of the texts that name a class which their sample does not have: it is
            painted and stays without a mask. None without a vocabulary.
    """

    writer: str
    num_texts: int
    measured: int
    mean_words: float
    least_words: int
    most_words: int
    distinct_1: float
    distinct_2: float
    near_duplicates: float
    classes_named: float | None
    other_classes: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The figures as a row of a table, below `TEXT_HEADS`."""
        looked_at = "" if self.measured == self.num_texts else f" of {self.num_texts:,}"
        return (
            self.writer,
            f"{self.measured:,}{looked_at}",
            f"{self.mean_words:.1f}",
            f"{self.least_words} to {self.most_words}",
            f"{self.distinct_1:.3f}",
            f"{self.distinct_2:.3f}",
            f"{self.near_duplicates:.1%}",
            "-" if self.classes_named is None else f"{self.classes_named:.2f}",
            "-" if self.other_classes is None else f"{self.other_classes:.1%}",
        )


def texts_of(rows: Iterable[ManifestRow]) -> Iterator[SceneText]:
    """The accepted texts of planned samples, whatever became of their pictures."""
    for row in rows:
        if row.text:
            yield SceneText(row.writer, row.class_ids, row.text)


def measure_texts(
    texts: Iterable[SceneText], vocabulary: Vocabulary | None
) -> tuple[TextQuality, ...]:
    """Measure the texts of each writer.

    Args:
        texts: In plan order, so that those of a class set stand together.
        vocabulary: What the class ids mean; without it nobody knows which classes a text names.

    Returns:
        One measurement for each writer, by name.
    """
    by_writer: defaultdict[str, list[SceneText]] = defaultdict(list)
    for each in texts:
        by_writer[each.writer].append(each)
    finder = ClassFinder(vocabulary) if vocabulary is not None else None
    return tuple(_measure(writer, by_writer[writer], finder) for writer in sorted(by_writer))


def distinct(texts: Iterable[Sequence[str]], length: int) -> float:
    """Different runs of words, as a part of all words (distinct-n of Li et al. 2016).

    Args:
        texts: Their words.
        length: Words of a run.
    """
    runs: set[tuple[str, ...]] = set()
    total = 0
    for words in texts:
        total += len(words)
        runs.update(zip(*(words[start:] for start in range(length)), strict=False))
    return len(runs) / total if total else 0.0


def _measure(writer: str, texts: Sequence[SceneText], finder: ClassFinder | None) -> TextQuality:
    chosen = _chosen(texts)
    words = [words_of(each.text) for each in chosen]
    lengths = [len(each) for each in words]
    named = [finder.named(each.text) for each in chosen] if finder is not None else None
    least, most = _tenths(lengths)
    return TextQuality(
        writer=writer,
        num_texts=len(texts),
        measured=len(chosen),
        mean_words=mean(lengths),
        least_words=least,
        most_words=most,
        distinct_1=distinct(words, 1),
        distinct_2=distinct(words, 2),
        near_duplicates=_near_duplicates(chosen),
        classes_named=None if named is None else mean(map(len, named)),
        other_classes=None
        if named is None
        else mean(
            bool(found - set(each.class_ids)) for found, each in zip(named, chosen, strict=True)
        ),
    )


def _chosen(texts: Sequence[SceneText]) -> list[SceneText]:
    """All texts, or whole class sets from all over."""
    if len(texts) <= MAX_TEXTS:
        return list(texts)
    sets = [list(members) for _, members in groupby(texts, key=lambda each: each.class_ids)]
    step = len(texts) / MAX_TEXTS
    kept: list[SceneText] = []
    passed = 0
    for members in sets:
        if passed >= len(kept) * step and len(kept) + len(members) <= MAX_TEXTS:
            kept += members
        passed += len(members)
    return kept or list(texts[:MAX_TEXTS])


def _tenths(lengths: Sequence[int]) -> tuple[int, int]:
    """What nine of ten reach, and what nine of ten do not pass."""
    if len(lengths) < _FEW:
        return min(lengths), max(lengths)
    cuts = quantiles(lengths, n=_TENTHS, method="inclusive")
    return round(cuts[0]), round(cuts[-1])


def _near_duplicates(texts: Sequence[SceneText]) -> float:
    by_classes: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for each in texts:
        by_classes[each.class_ids].append(each.text)
    return sum(map(_count_alike, by_classes.values())) / len(texts)


def _count_alike(texts: Sequence[str]) -> int:
    """How many of some texts are nearly as another of them."""
    alike: set[int] = set()
    for index, text in enumerate(texts):
        for other in range(index + 1, len(texts)):
            both_known = index in alike and other in alike
            if not both_known and likeness(text, texts[other]) >= DUPLICATE_LIKENESS:
                alike |= {index, other}
    return len(alike)
