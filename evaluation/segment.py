"""Segmentation: a trained student finds whatever words name in an image of any size.

from evaluation.segment import Student

found = Student.load("runs/demo/run").segment("photo.jpg", ["cat", "red boat"])
found.labels == 2  # where the red boat is
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8, UInt16

from evaluation.scoring.background import ScoreMap, apply_background
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.scoring.phrases import background_words, text_rows
from evaluation.scoring.predictors import StudentPredictor, TextRows, TextSegmenter, Watch
from models.devices import pick_device
from models.profiles import load_profile, profile_names
from models.student.config import StudentConfig
from models.student.released import load_released
from models.student.text_embeddings import TextEmbedder, TextEncoder
from models.student.trained import load_student
from storage.documents import validate
from storage.errors import InputError
from storage.photographs import read_photograph
from storage.records import IGNORE_LABEL

__all__ = ["Segmentation", "Student", "WordScores", "scoring_settings"]


WordWatch = Callable[[str, Float32[np.ndarray, "height width"]], None]
"""What is told each word with its scores in [0, 1] at every pixel, one word after another."""


@dataclass(frozen=True)
class Segmentation:
    """What was found in an image.

    Attributes:
        words: What was asked for.
        labels: 0 where nothing of it is, else k + 1 for the k-th word.
        scores: The best word's score in [0, 1], above the threshold or not; 0 where a background
            word won.
    """

    words: tuple[str, ...]
    labels: UInt16[np.ndarray, "height width"]
    scores: Float32[np.ndarray, "height width"]

    def shares(self) -> dict[str, float]:
        """The share of the image's pixels that each word has, in [0, 1]."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.words) + 1)
        return {
            word: float(count / self.labels.size)
            for word, count in zip(self.words, counts[1:], strict=True)
        }


@dataclass(frozen=True)
class WordScores:
    """How well words fit the pixels of an image; any threshold can be applied, without a network.

    Attributes:
        words: What was asked for.
        best: The best word of each pixel.
        best_scores: For each word its highest score anywhere, in [0, 1].
        rule: When a pixel is background.
        threshold: The threshold that is meant for the rule.
    """

    words: tuple[str, ...]
    best: ScoreMap
    best_scores: tuple[float, ...]
    rule: Background
    threshold: float

    def at(self, threshold: float) -> Segmentation:
        """What is found with a threshold in [0, 1]; of no effect under the rule `none`."""
        return _apply(self.words, self.best, self.rule, threshold)


@runtime_checkable
class WordFinder(Protocol):
    """Whatever finds words in images."""

    def look(
        self, image: np.ndarray, words: Sequence[str], *, watch: WordWatch | None = None
    ) -> WordScores:
        """Score words at every pixel, see `Student.look`."""
        ...


@runtime_checkable
class WatchedPredictor(Protocol):
    """A predictor that can tell the scores of each class while it works."""

    def predict(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        candidates: Sequence[int] | None = None,
        *,
        watch: Watch | None = None,
    ) -> ScoreMap:
        """Find the best class of every pixel; `watch` changes nothing."""
        ...


def score_words(
    predictor: WatchedPredictor,
    image: np.ndarray,
    words: tuple[str, ...],
    rule: tuple[Background, float],
    watch: WordWatch | None,
) -> WordScores:
    """Ask a predictor of which each class is a word.

    Args:
        predictor: Its classes are the words, in their order.
        image: RGB, bytes of shape (height, width, 3).
        words: As `checked_words` gives them.
        rule: Background rule, and the threshold that is meant for it.
        watch: Told the scores of each word; only one map is held at a time.

    Raises:
        InputError: If the image is no RGB image of bytes, or the predictor refuses it.
    """
    _refuse_image(image)
    best: dict[int, torch.Tensor] = {}

    def tell(position: int, scores: torch.Tensor) -> None:
        best[position] = scores.max()  # read at the end: a GPU is not waited for here
        if watch is not None:
            watch(words[position], scores.cpu().numpy())

    found = predictor.predict(image, watch=tell)
    highest = tuple(float(best[position]) for position in range(len(words)))
    return WordScores(words, found, highest, *rule)


class Student:
    """A student with its text encoder.

    The embeddings of the last words are kept, so that many images can be asked for the same words.
    Threads may share it.

    Args:
        student: The network, in evaluation mode.
        encoder: Text tower of the CLIP under it, on the same device.
        config: Templates, windows, background rule and threshold; the rest of it is not read.
    """

    def __init__(
        self, student: TextSegmenter, encoder: TextEmbedder, config: ScoringConfig
    ) -> None:
        self.config = config
        self._student = student
        self._encoder = encoder
        self._known: tuple[tuple[str, ...], TextRows] | None = None

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        profile: str | None = None,
        config: ScoringConfig | None = None,
        device: str = "auto",
    ) -> Self:
        """Load the newest checkpoint of a training run.

        Args:
            run: Folder of the run, or of one checkpoint.
            profile: Name or YAML file of the profile that the student is of: its scoring settings
                are taken. Not given, it is the shipped one whose student stands on the same CLIP,
                or else the settings are those of the released MagicSeg.
            config: Scoring settings instead.
            device: auto, cpu, cuda, cuda:1 ...

        Raises:
            DataError: If the checkpoint is damaged.
            InputError: If there is none, CLIP's weights are missing, or a setting does not fit.
        """
        place = pick_device(device)
        if config is None and profile is not None:
            config = scoring_settings(profile)  # a wrong name is told before anything is loaded
        student, meta = load_student(run)
        clip = StudentConfig.model_validate(meta["config"]["student"])
        settings = config or scoring_settings(_shipped_profile(clip.clip))
        encoder = TextEncoder.load(clip.clip, clip.revision)
        return cls(student.to(place), encoder.to(place), settings)

    @classmethod
    def load_checkpoint(
        cls,
        file: str | Path,
        *,
        profile: str,
        config: ScoringConfig | None = None,
        device: str = "auto",
    ) -> Self:
        """Load a released ZegCLIP checkpoint.

        Args:
            file: The authors' file, see `models.student.released.load_released`.
            profile: Name or YAML file of a profile whose student stands on the same CLIP, such as
                `sd15`: words are read by that one.
            config: Scoring settings instead of the profile's.
            device: auto, cpu, cuda, cuda:1 ...

        Raises:
            InputError: If the file is no such checkpoint or stands on another CLIP, CLIP's weights
                are missing, or a setting does not fit.
        """
        place = pick_device(device)
        settings = config or scoring_settings(profile)
        own = load_profile(profile).student
        student = load_released(file, own)
        encoder = TextEncoder.load(own.clip, own.revision)
        return cls(student.to(place), encoder.to(place), settings)

    def segment(self, image: np.ndarray | str | Path, words: Sequence[str]) -> Segmentation:
        """Find what words name.

        Args:
            image: RGB, bytes of shape (height, width, 3), of any size; or the path of a JPEG or PNG
                file, which is turned upright.
            words: Any words or short phrases without an article, each once.

        Raises:
            DataError: If the file is no picture, or damaged.
            InputError: If the file cannot be read, the image is no RGB image of bytes or too thin
                for the windows, a word is empty or stands there twice, or the network's answer is
                not finite.
        """
        pixels = image if isinstance(image, np.ndarray) else read_photograph(image)
        _refuse_image(pixels)
        asked, inference = checked_words(words), self.config.inference
        # Not by `look`: the best score of each word takes a fifth of the time, and nobody asks.
        found = self._predictor(asked).predict(pixels)
        return _apply(asked, found, inference.background, inference.threshold)

    def segment_all(
        self, images: Iterable[np.ndarray | str | Path], words: Sequence[str]
    ) -> list[Segmentation]:
        """Find what words name in each of several images.

        The network sees one image at a time: its last bits depend on how many stand beside each
        other, and a mask must not. What the words mean is computed once.

        Args:
            images: As `segment` takes them; sizes may differ.
            words: As `segment` takes them.

        Returns:
            One result an image, in their order, each what `segment` gives.

        Raises:
            DataError: As `segment` raises it.
            InputError: As `segment` raises it.
        """
        asked = checked_words(words)
        return [self.segment(image, asked) for image in images]

    def look(
        self, image: np.ndarray, words: Sequence[str], *, watch: WordWatch | None = None
    ) -> WordScores:
        """Score words at every pixel; a threshold then says what is found.

        Args:
            image: RGB, bytes of shape (height, width, 3), of any size.
            words: Any words or short phrases without an article, each once.
            watch: Told the scores of each word; for heat maps. Only one map is held at a time,
                however many words there are.

        Raises:
            InputError: As `segment` raises it.
        """
        asked, inference = checked_words(words), self.config.inference
        rule = (inference.background, inference.threshold)
        return score_words(self._predictor(asked), image, asked, rule, watch)

    def _predictor(self, words: tuple[str, ...]) -> StudentPredictor:
        return StudentPredictor(self._student, self._rows(words), self.config.inference)

    def _rows(self, words: tuple[str, ...]) -> TextRows:
        known = self._known  # read once: another thread may ask for other words meanwhile
        if known is not None and known[0] == words:
            return known[1]
        others = ()
        if self.config.inference.background is Background.WORDS:
            others = background_words(self.config.background_words)
        rows = text_rows(self._encoder, [(word,) for word in words], others, self.config)
        self._known = (words, rows)
        return rows


def _apply(
    words: tuple[str, ...], found: ScoreMap, rule: Background, threshold: float
) -> Segmentation:
    labels = apply_background(found, rule, threshold, background=True)
    return Segmentation(words, labels.astype(np.uint16), found.best)


def scoring_settings(profile: str | None) -> ScoringConfig:
    """The scoring settings of a profile; those of the released MagicSeg without one.

    Raises:
        InputError: If there is no such profile, or a setting does not fit.
    """
    document = {} if profile is None else load_profile(profile).scoring
    return validate(ScoringConfig, document, f"scoring settings of {profile}")


def _shipped_profile(clip: str) -> str | None:
    """The first shipped profile whose student stands on a CLIP."""
    return next((name for name in profile_names() if load_profile(name).student.clip == clip), None)


def checked_words(words: Sequence[str]) -> tuple[str, ...]:
    """Words as they are asked for: each once, with single spaces.

    Raises:
        InputError: If there are none or too many, one is empty or no text, or stands there twice.
    """
    if isinstance(words, str):
        message = f"words are the text {words!r}, expected a list of texts such as [{words!r}]"
        raise InputError(message)
    asked = tuple(" ".join(word.split()) for word in words)
    if not asked or not all(asked) or len(set(asked)) < len(asked):
        message = f"words are {list(words)}, expected one or more, none empty and each once"
        raise InputError(message)
    if any(0xD800 <= ord(letter) < 0xE000 for word in asked for letter in word):
        message = f"words are {list(words)}, expected text: one of them is not UTF-8"
        raise InputError(message)
    if len(asked) >= IGNORE_LABEL:
        message = f"{len(asked)} words are too many, expected at most {IGNORE_LABEL - 1}"
        raise InputError(message)
    return asked


def _refuse_image(image: np.ndarray) -> None:
    shape = image.shape
    if image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or not image.size:
        message = (
            f"the image is an array of {image.dtype} and shape {shape}, expected uint8 and "
            "(height, width, 3); storage.photographs.read_photograph(path) gives one"
        )
        raise InputError(message)
