"""Finders of words besides the student: a labeller, and a network with a closed set of classes."""

from collections.abc import Sequence

import numpy as np
import torch

from evaluation.scoring.baseline import DetectedSegments
from evaluation.scoring.config import Background, ViewConfig
from evaluation.scoring.on_closed_sets import ClosedSetPredictor
from evaluation.segment import WordScores, WordWatch, checked_words, score_words
from models.closed_sets.networks import ClosedSetNetwork
from models.protocols import Labeller
from storage.class_sets import BenchmarkClasses
from storage.documents import suggest
from storage.errors import InputError
from storage.exports.closed_sets import ClosedSet
from storage.vocabulary import load_vocabulary

__all__ = ["ClosedSetFinder", "LabellerFinder"]

LABELLER_RULE = (Background.CONSTANT, 0.0)
"""A pixel without a box is background, as `evaluate` has it."""
CLOSED_SET_RULE = (Background.NONE, 0.0)
"""The network has learned what is background."""


class LabellerFinder:
    """A labeller that is asked for words; a pixel's score is that of the best box on it.

    Its own thresholds decide what is found. Of a word that it does not find the best score is 0.

    Args:
        labeller: Finds phrases and cuts them out.
    """

    def __init__(self, labeller: Labeller) -> None:
        self._labeller = labeller

    def look(
        self, image: np.ndarray, words: Sequence[str], *, watch: WordWatch | None = None
    ) -> WordScores:
        """Score words at every pixel.

        Args:
            image: RGB, bytes of shape (height, width, 3), of any size.
            words: Any words or short phrases without an article, each once.
            watch: Told the scores of each word.

        Raises:
            InputError: If the image is no RGB image of bytes, a word is empty, stands there twice
                or is longer than the labeller reads, or its numbers are not finite.
        """
        asked = checked_words(words)
        predictor = DetectedSegments(self._labeller, asked)
        return score_words(predictor, image, asked, LABELLER_RULE, watch)


class ClosedSetFinder:
    """A network with one output a class that is asked for some of its classes.

    A pixel at which background, or a class that was not asked for, scores highest is background.

    Args:
        network: The network, in eval mode, on the device.
        closed_set: Its classes.
        view: At which size an image is shown.
        device: Where the network is.
    """

    def __init__(
        self,
        network: ClosedSetNetwork,
        closed_set: ClosedSet,
        view: ViewConfig,
        device: torch.device,
    ) -> None:
        self._network = network
        self._closed_set = closed_set
        self._view = view
        self._device = device

    def look(
        self, image: np.ndarray, words: Sequence[str], *, watch: WordWatch | None = None
    ) -> WordScores:
        """Score words at every pixel.

        Args:
            image: RGB, bytes of shape (height, width, 3), of any size.
            words: Names of classes, each class once.
            watch: Told the scores of each word.

        Raises:
            InputError: If the image is no RGB image of bytes, a word is none of the classes, a
                class stands there twice, or scores are not finite.
        """
        asked = checked_words(words)
        classes = asked_classes(self._closed_set, asked)
        predictor = ClosedSetPredictor(
            self._network, self._closed_set, classes, self._view, self._device
        )
        return score_words(predictor, image, asked, CLOSED_SET_RULE, watch)


def asked_classes(closed_set: ClosedSet, words: tuple[str, ...]) -> BenchmarkClasses:
    """The classes of a closed set that words name, in the order of the words.

    Args:
        closed_set: The classes there are.
        words: Their names there, or what the vocabulary calls the same classes.

    Raises:
        InputError: If a word is none of them, or two words are the same class.
    """
    ids = tuple(_class_id(closed_set, word) for word in words)
    if len(set(ids)) < len(ids):
        message = f"words are {list(words)}, expected each class of {closed_set.name} once"
        raise InputError(message)
    return BenchmarkClasses(
        name=f"words of {closed_set.name}",
        names=words,
        phrases=tuple((word,) for word in words),
        vocabulary=closed_set.vocabulary,
        class_ids=ids,
        background=True,
    )


def _class_id(closed_set: ClosedSet, word: str) -> int:
    known = dict(zip(closed_set.names, closed_set.class_ids, strict=True))
    found = known.get(word)
    if word not in known:
        try:
            found = load_vocabulary(closed_set.vocabulary).by_name(word).class_id
        except InputError:  # whether ambiguous or unknown, it is no class of the set
            found = None
        found = found if found in closed_set.class_ids else None
    if found is None:
        trained = [name for name, class_id in known.items() if class_id is not None]
        message = (
            f"the word {word!r} is no class that the network was trained on, and it knows no "
            f"others; {suggest(word, trained)}. A student (--run) or a labeller (--labeller) finds "
            "any word"
        )
        raise InputError(message)
    return found
