"""Segmentation: a trained student finds whatever words name in an image of any size.

from evaluation.segment import ImageSegmenter

segmenter = ImageSegmenter.load("runs/demo/run", profile="miniature")
found = segmenter.segment(image, ["cat", "red boat"])
found.labels == 2  # where the red boat is
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float32, UInt16

from evaluation.scoring.background import apply_background
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.scoring.phrases import background_words, text_rows
from evaluation.scoring.predictors import StudentPredictor, TextRows, TextSegmenter
from models.devices import pick_device
from models.profiles import load_profile
from models.student.config import StudentConfig
from models.student.released import load_released
from models.student.text_embeddings import TextEmbedder, TextEncoder
from models.student.trained import load_student
from storage.documents import validate
from storage.errors import InputError
from storage.records import IGNORE_LABEL

__all__ = ["ImageSegmenter", "Segmentation", "scoring_settings"]


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


class ImageSegmenter:
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
                are taken.
            config: Scoring settings instead; without either those of the released MagicSeg.
            device: auto, cpu, cuda, cuda:1 ...

        Raises:
            DataError: If the checkpoint is damaged.
            InputError: If there is none, CLIP's weights are missing, or a setting does not fit.
        """
        place = pick_device(device)
        settings = config or scoring_settings(profile)
        student, meta = load_student(run)
        clip = StudentConfig.model_validate(meta["config"]["student"])
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

    def segment(
        self, image: np.ndarray, words: Sequence[str], *, watch: WordWatch | None = None
    ) -> Segmentation:
        """Find what words name.

        Args:
            image: RGB, bytes of shape (height, width, 3), of any size.
            words: Any words or short phrases without an article, each once.
            watch: Told the scores of each word; for heat maps. Only one map is held at a time,
                however many words there are.

        Raises:
            InputError: If the image is no RGB image of bytes or too thin for the windows, a word is
                empty or stands there twice, or the network's answer is not finite.
        """
        _refuse_image(image)
        asked = checked_words(words)
        inference = self.config.inference
        predictor = StudentPredictor(self._student, self._rows(asked), inference)

        def tell(position: int, scores: torch.Tensor) -> None:
            if watch is not None:
                watch(asked[position], scores.cpu().numpy())

        found = predictor.predict(image, watch=None if watch is None else tell)
        labels = apply_background(found, inference.background, inference.threshold, background=True)
        return Segmentation(asked, labels.astype(np.uint16), found.best)

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


def scoring_settings(profile: str | None) -> ScoringConfig:
    """The scoring settings of a profile; those of the released MagicSeg without one.

    Raises:
        InputError: If there is no such profile, or a setting does not fit.
    """
    document = {} if profile is None else load_profile(profile).scoring
    return validate(ScoringConfig, document, f"scoring settings of {profile}")


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
