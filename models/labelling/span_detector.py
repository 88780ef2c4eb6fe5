"""Span scores: what a network says of the tokens of a caption becomes boxes of phrases.

The released MagicSeg code keeps whatever fires and throws the phrases away, so that an image of two
classes passes when one of them is there. Here every phrase has its own tokens in the caption and
every box its own score for each phrase (the given-phrase mode of Grounding DINO). All of it is the
same in front of every network of this kind, whichever package computes it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, UInt8

from models.labelling.boxes import corners_of
from models.labelling.captions import Caption, Captions, plain_phrases
from models.labelling.config import SpanConfig
from models.labelling.phrase_boxes import Proposals, boxes_of_phrases
from models.protocols import FoundBoxes


@dataclass(frozen=True)
class TokenScores:
    """What a network says about one picture with one caption.

    Attributes:
        scores: Of each token for each query, in [0, 1].
        boxes: Centre and extent of each query, relative to the picture.
    """

    scores: Float[np.ndarray, "queries tokens"]
    boxes: Float32[np.ndarray, "queries 4"]


@runtime_checkable
class SpanBackend(Protocol):
    """A network that scores the tokens of captions; what becomes of the scores is not its part."""

    @property
    def tokenizer(self) -> Any:
        """A fast tokenizer of BERT's kind, which tells where each token stands in the text."""
        ...

    @property
    def max_tokens(self) -> int:
        """Longest caption that the network reads, special tokens included."""
        ...

    def encode(self, images: Sequence[UInt8[np.ndarray, "height width 3"]]) -> list[Any]:
        """Look at images of one size, whatever they will be asked for."""
        ...

    def score(self, encoded: Sequence[Any], captions: Sequence[Caption]) -> list[TokenScores]:
        """Score captions.

        Args:
            encoded: For each caption what `encode` gave for its image.
            captions: As many.
        """
        ...


class SpanDetector:
    """Finds phrases by their span scores, batched over images that have different phrases.

    A batch holds images of one size, so that no image is padded. Phrases that do not fit into one
    caption are spread over several, and each costs a pass; an image is prepared and encoded once
    for all of its captions. A phrase's score for a query is the mean (or maximum) of the scores of
    the phrase's own tokens.

    Args:
        config: Thresholds and batch size.
        backend: The network.
    """

    def __init__(self, config: SpanConfig, backend: SpanBackend) -> None:
        self.config = config
        self._backend = backend
        self._captions = Captions(backend.tokenizer, backend.max_tokens)

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
        captions = [
            caption for index, own in enumerate(plain) for caption in self._captions.of(index, own)
        ]
        passes: dict[int, list[Proposals]] = {i: [] for i in range(len(images))}
        for batch, encoded in self._batches(captions, images):
            for caption, found in zip(batch, self._backend.score(encoded, batch), strict=True):
                height, width = images[caption.image].shape[:2]
                boxes = corners_of(found.boxes, (width, height))
                passes[caption.image].append(self._proposals(caption, found.scores, boxes))
        return [
            boxes_of_phrases(passes[i], own, self.config.nms_iou) for i, own in enumerate(plain)
        ]

    def _batches(
        self, captions: Iterable[Caption], images: Sequence[np.ndarray]
    ) -> Iterator[tuple[list[Caption], list[Any]]]:
        """Captions on images of one size, each with its image as the network sees it."""
        by_size: dict[tuple[int, ...], list[Caption]] = {}
        for caption in captions:
            by_size.setdefault(images[caption.image].shape, []).append(caption)
        size = self.config.batch_size
        for same in by_size.values():
            seen: dict[int, Any] = {}
            for first in range(0, len(same), size):
                batch = same[first : first + size]
                seen = self._seen(dict.fromkeys(own.image for own in batch), images, seen)
                yield batch, [seen[own.image] for own in batch]

    def _seen(
        self, wanted: Iterable[int], images: Sequence[np.ndarray], before: Mapping[int, Any]
    ) -> dict[int, Any]:
        """The images of a batch, encoded; captions of one image may go on from the batch before."""
        fresh = [index for index in wanted if index not in before]
        encoded = self._backend.encode([images[index] for index in fresh]) if fresh else []
        known = {**before, **dict(zip(fresh, encoded, strict=True))}
        return {index: known[index] for index in wanted}

    def _proposals(
        self,
        caption: Caption,
        token_scores: Float[np.ndarray, "queries tokens"],
        boxes: Float32[np.ndarray, "queries 4"],
    ) -> Proposals:
        own = [token_scores[:, span] for span in caption.spans]
        best_token = np.stack([scores.max(axis=1) for scores in own], axis=1)
        mean = np.stack([scores.mean(axis=1) for scores in own], axis=1)
        scores = mean if self.config.phrase_score == "mean" else best_token
        passing = (best_token > self.config.box_threshold) & (scores > self.config.text_threshold)
        return Proposals(caption.phrases, boxes, scores, passing)
