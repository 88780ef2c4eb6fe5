"""Phrases: what the text encoder reads for each class, and for the background.

Published works rename classes ("table" for VOC's "diningtable"), give some of them several names of
which the best counts, and let words such as "sky" stand for the background. Those lists ship as
tables, so that a score can be taken with the very names of another work.
"""

from collections.abc import Sequence
from functools import cache

from evaluation.scoring.background import BACKGROUND_WORD
from evaluation.scoring.config import OFFICIAL, PREFERRED, SeveralPhrases, TextConfig
from evaluation.scoring.predictors import TextRows
from models.student.text_embeddings import TextEmbedder, embed_phrases
from storage.class_sets import BenchmarkClasses
from storage.documents import suggest
from storage.errors import InputError
from storage.tables import read_table


def class_phrases(classes: BenchmarkClasses, names: str) -> tuple[tuple[str, ...], ...]:
    """What each class of a benchmark is called.

    Args:
        classes: The classes.
        names: As in `TextConfig.names`.

    Raises:
        InputError: If nobody calls the classes of this benchmark by that list.
    """
    if names == PREFERRED:
        return classes.phrases
    if names == OFFICIAL:
        return tuple((name,) for name in classes.names)
    lists = {
        work: used for (work, benchmark), used in _rewrites().items() if benchmark == classes.name
    }
    if names not in lists:
        known = suggest(names, [PREFERRED, OFFICIAL, *lists])
        message = f"there is no list of names {names!r} for {classes.name}; {known}"
        raise InputError(message)
    return tuple(lists[names].get(name, (name,)) for name in classes.names)


def background_words(name: str) -> tuple[str, ...]:
    """The words of a list that stands for the background.

    Raises:
        InputError: If there is no list of that name.
    """
    lists: dict[str, list[str]] = {}
    for row in read_table("background_words.csv"):
        lists.setdefault(row["list"], []).append(row["word"])
    if name not in lists:
        message = f"there is no list of background words {name!r}; {suggest(name, lists)}"
        raise InputError(message)
    return tuple(lists[name])


def text_rows(
    encoder: TextEmbedder,
    phrases: Sequence[tuple[str, ...]],
    words: Sequence[str],
    config: TextConfig,
) -> TextRows:
    """Embed classes and background words.

    Args:
        encoder: Text tower.
        phrases: What each class is called.
        words: Background words; none for a rule that has none.
        config: Templates, and what becomes of several phrases.

    Raises:
        InputError: If the templates are unknown or a class has no phrase.
    """
    rows: list[tuple[str, ...]] = [(word,) for word in words]
    owners = [BACKGROUND_WORD] * len(words)
    for position, own in enumerate(phrases):
        apart = {SeveralPhrases.FIRST: [own[:1]], SeveralPhrases.AVERAGE: [own]}
        mine = apart.get(config.several) or [(phrase,) for phrase in own]
        rows += mine
        owners += [position] * len(mine)
    return TextRows(embed_phrases(encoder, rows, config.templates), tuple(owners))


def text_words(config: TextConfig, *, words: bool) -> str:
    """Say how a class name becomes text, as it stands beside every number.

    Args:
        config: What is said.
        words: Whether background words compete.
    """
    names = {PREFERRED: "preferred names", OFFICIAL: "official names"}.get(
        config.names, f"names as {config.names} has them"
    )
    several = {
        SeveralPhrases.FIRST: "",
        SeveralPhrases.AVERAGE: ", averaged over aliases",
        SeveralPhrases.BEST: ", the best of several for each pixel",
    }[config.several]
    text = f"{names}{several} in the templates {config.templates}"
    if words:
        count = len(background_words(config.background_words))
        text += f"; background words: {config.background_words} ({count})"
    return text


@cache
def _rewrites() -> dict[tuple[str, str], dict[str, tuple[str, ...]]]:
    """(work, benchmark) -> official name -> what the work calls it, where that differs."""
    found: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
    for row in read_table("class_rewrites.csv"):
        for benchmark in row["benchmarks"].split(";"):
            own = found.setdefault((row["work"], benchmark), {})
            if row["name"]:
                own[row["name"]] = tuple(row["phrases"].split(";"))
    return found
