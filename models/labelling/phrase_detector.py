"""Phrase scores: what a network that is asked one text a phrase says becomes boxes of phrases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from models.labelling.boxes import corners_of
from models.labelling.captions import plain_phrases
from models.labelling.config import Owlv2Config
from models.labelling.phrase_boxes import Proposals, boxes_of_phrases
from models.protocols import FoundBoxes
from storage.errors import InputError


@dataclass(frozen=True)
class PhraseScores:
    """What a network says about one picture.

    Attributes:
        scores: Of each phrase asked for, for each query, in [0, 1].
        boxes: Centre and extent of each query, relative to the picture.
    """

    scores: Float32[np.ndarray, "queries phrases"]
    boxes: Float32[np.ndarray, "queries 4"]


@runtime_checkable
class PhraseBackend(Protocol):
    """A network that scores phrases; what becomes of the scores is not its part."""

    @property
    def max_tokens(self) -> int:
        """Longest text that the network reads, special tokens included."""
        ...

    def count_tokens(self, text: str) -> int:
        """Count a text's tokens, special tokens included."""
        ...

    def score(
        self, pictures: Sequence[Image.Image], texts: Sequence[Sequence[str]]
    ) -> list[PhraseScores]:
        """Score each picture's own texts, at least one, on it."""
        ...


class PhraseDetector:
    """Finds phrases that are asked for one by one, batched over images with different phrases.

    Args:
        config: Thresholds, batch size, and the words around a phrase.
        backend: The network.
    """

    def __init__(self, config: Owlv2Config, backend: PhraseBackend) -> None:
        self.config = config
        self._backend = backend

    def detect(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
    ) -> list[FoundBoxes]:
        """Find each image's own phrases in it.

        Args:
            images: RGB; sizes may differ.
            phrases: For each image what to look for; case does not matter, "." and "?" are blanks.

        Returns:
            For each image its boxes, best score first.

        Raises:
            InputError: If a phrase is empty or longer than the network reads, or the two lists
                differ in length.
        """
        plain = plain_phrases(len(images), phrases)
        for phrase in dict.fromkeys(phrase for own in plain for phrase in own):
            self._require_short(phrase)
        asked = [index for index, own in enumerate(plain) if own]
        passes: dict[int, list[Proposals]] = {index: [] for index in range(len(images))}
        for first in range(0, len(asked), self.config.batch_size):
            batch = asked[first : first + self.config.batch_size]
            different = [tuple(dict.fromkeys(plain[index])) for index in batch]
            found = self._propose([images[index] for index in batch], different)
            for index, own in zip(batch, found, strict=True):
                passes[index].append(own)
        return [
            boxes_of_phrases(passes[index], own, self.config.nms_iou)
            for index, own in enumerate(plain)
        ]

    def _require_short(self, phrase: str) -> None:
        text = self.config.text.format(phrase)
        length, limit = self._backend.count_tokens(text), self._backend.max_tokens
        if length > limit:
            message = (
                f"phrase {phrase!r} is asked for as {text!r}, which has {length} tokens, expected "
                f"at most {limit}: set `text` of the detector to fewer words, or `detector_phrase` "
                "of the class"
            )
            raise InputError(message)

    def _propose(
        self, images: Sequence[np.ndarray], phrases: Sequence[tuple[str, ...]]
    ) -> list[Proposals]:
        pictures = [Image.fromarray(image) for image in images]
        texts = [[self.config.text.format(phrase) for phrase in own] for own in phrases]
        return [
            Proposals(
                own,
                corners_of(found.boxes, picture.size),
                found.scores,
                found.scores > self.config.threshold,
            )
            for own, found, picture in zip(
                phrases, self._backend.score(pictures, texts), pictures, strict=True
            )
        ]
