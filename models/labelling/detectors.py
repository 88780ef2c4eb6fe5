"""Detectors: Grounding DINO, asked for a closed set of phrases per image.

The released MagicSeg code keeps whatever fires and throws the phrases away, so that an image of two
classes passes when one of them is there. Here every phrase has its own tokens in the caption and
every box its own score for each phrase (the given-phrase mode of Grounding DINO).
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from models.arithmetic import rounding_of
from models.devices import pick_device
from models.labelling.config import DetectorConfig
from models.networks import load_network
from models.processors import load_image_processor, load_whole_tokenizer, require_fit
from models.protocols import FoundBoxes
from models.threads import in_threads
from models.weights import resolve_weights
from storage.errors import InputError

_log = logging.getLogger(__name__)

_SEPARATORS = str.maketrans(".?", "  ")  # what the network takes for the end of a phrase
_SPECIAL_TOKENS = 2


@dataclass(frozen=True)
class _Caption:
    """Some phrases of one image, in the words of the tokenizer.

    Attributes:
        image: Index of the image.
        phrases: What stands in it, all different.
        token_ids: The caption `p1. p2. p3.` with special tokens.
        spans: For each phrase the positions of its tokens.
    """

    image: int
    phrases: tuple[str, ...]
    token_ids: list[int]
    spans: tuple[list[int], ...]


@dataclass(frozen=True)
class _Scored:
    """What one forward pass says about one caption: xyxy in pixels, one row a query."""

    boxes: Float32[np.ndarray, "queries 4"]
    best_token: Float32[np.ndarray, "queries phrases"]
    score: Float32[np.ndarray, "queries phrases"]

    @property
    def finite(self) -> bool:
        """Whether no box and no score is NaN or infinite."""
        return all(np.isfinite(a).all() for a in (self.boxes, self.best_token, self.score))


class GroundingDino:
    """Grounding DINO of `transformers`, batched over images that have different phrases.

    A batch holds images of one size, so that no image is padded. Phrases that do not fit into one
    caption are spread over several, and each costs a pass. A phrase's score for a query is the
    mean (or maximum) of the sigmoid over the phrase's own tokens; a query belongs to the phrase
    that scores best, to several only if they tie.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If the checkpoint is missing, incomplete, or of another architecture.
    """

    def __init__(self, config: DetectorConfig) -> None:
        from transformers import GroundingDinoForObjectDetection

        self.config = config
        self.device = pick_device(config.device)
        weights = resolve_weights(config.model, config.revision)
        network = load_network(
            GroundingDinoForObjectDetection,
            weights,
            model_type="grounding-dino",
            dtype=config.dtype,
        )
        self._network = network.to(self.device)
        self._images: Any = load_image_processor(weights, "GroundingDinoImageProcessor")
        self._tokenizer: Any = load_whole_tokenizer(weights, "BertTokenizer")
        require_fit(self._tokenizer, network.config.text_config.vocab_size, weights)
        _log.info("detector %s loaded from %s", config.model, weights.source)

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
        if len(images) != len(phrases):
            message = f"{len(images)} images came with phrases of {len(phrases)}, expected as many"
            raise InputError(message)
        plain = [[_plain(phrase) for phrase in own] for own in phrases]
        captions = [
            caption for index, own in enumerate(plain) for caption in self._captions(index, own)
        ]
        scored: dict[int, list[tuple[_Caption, _Scored]]] = {i: [] for i in range(len(images))}
        for batch in self._batches(captions, images):
            for caption, found in zip(batch, self._score(batch, images), strict=True):
                scored[caption.image].append((caption, found))
        return [self._found(scored[i], own) for i, own in enumerate(plain)]

    def _captions(self, image: int, phrases: Sequence[str]) -> Iterator[_Caption]:
        limit = self._network.config.max_text_len - _SPECIAL_TOKENS
        chunk: list[str] = []
        used = 0
        for phrase in dict.fromkeys(phrases):
            length = len(self._tokenizer(f"{phrase}.", add_special_tokens=False).input_ids)
            if length > limit:
                message = f"phrase {phrase!r} has {length} tokens, expected at most {limit}"
                raise InputError(message)
            if used + length > limit:
                yield self._caption(image, chunk)
                chunk, used = [], 0
            chunk.append(phrase)
            used += length
        if chunk:
            yield self._caption(image, chunk)

    def _caption(self, image: int, phrases: Sequence[str]) -> _Caption:
        text, starts = "", []
        for phrase in phrases:
            starts.append(len(text))
            text += f"{phrase}. "
        encoded = self._tokenizer(text.rstrip(), return_offsets_mapping=True)
        spans = tuple(
            [
                position
                for position, (first, last) in enumerate(encoded.offset_mapping)
                if start <= first < last <= start + len(phrase)
            ]
            for phrase, start in zip(phrases, starts, strict=True)
        )
        unread = [phrase for phrase, span in zip(phrases, spans, strict=True) if not span]
        if unread:
            message = f"phrase {unread[0]!r} has no token, expected words that the network knows"
            raise InputError(message)
        return _Caption(image, tuple(phrases), encoded.input_ids, spans)

    def _batches(
        self, captions: Iterable[_Caption], images: Sequence[np.ndarray]
    ) -> Iterator[list[_Caption]]:
        by_size: dict[tuple[int, ...], list[_Caption]] = {}
        for caption in captions:
            by_size.setdefault(images[caption.image].shape, []).append(caption)
        size = self.config.batch_size
        for same in by_size.values():
            yield from (same[first : first + size] for first in range(0, len(same), size))

    @torch.inference_mode()
    def _score(self, batch: Sequence[_Caption], images: Sequence[np.ndarray]) -> list[_Scored]:
        pictures = [Image.fromarray(images[caption.image]) for caption in batch]
        pixels = self._pixels(pictures)
        tokens = self._tokenizer.pad(
            {"input_ids": [caption.token_ids for caption in batch]},
            return_tensors="pt",
            verbose=False,
        )
        with rounding_of(self.config.dtype, self.device):
            outputs = self._network(
                pixel_values=pixels["pixel_values"].to(self.device, self._network.dtype),
                pixel_mask=pixels["pixel_mask"].to(self.device),
                input_ids=tokens["input_ids"].to(self.device),
                attention_mask=tokens["attention_mask"].to(self.device),
            )
        token_scores = outputs.logits.float().sigmoid().cpu().numpy()
        relative = outputs.pred_boxes.float().cpu().numpy()
        return [
            self._scored(caption, token_scores[row], _corners(relative[row], picture.size))
            for row, (caption, picture) in enumerate(zip(batch, pictures, strict=True))
        ]

    def _pixels(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Prepare pictures of one size, each by itself."""
        prepared = in_threads(lambda own: self._images(images=[own], return_tensors="pt"), pictures)
        return {
            name: torch.cat([own[name] for own in prepared])
            for name in ("pixel_values", "pixel_mask")
        }

    def _scored(
        self,
        caption: _Caption,
        token_scores: Float[np.ndarray, "queries tokens"],
        boxes: Float32[np.ndarray, "queries 4"],
    ) -> _Scored:
        own = [token_scores[:, span] for span in caption.spans]
        best_token = np.stack([scores.max(axis=1) for scores in own], axis=1)
        mean = np.stack([scores.mean(axis=1) for scores in own], axis=1)
        return _Scored(
            boxes, best_token, mean if self.config.phrase_score == "mean" else best_token
        )

    def _found(
        self, scored: Sequence[tuple[_Caption, _Scored]], phrases: Sequence[str]
    ) -> FoundBoxes:
        best = np.zeros(len(phrases), np.float32)
        finite = all(found.finite for _, found in scored)
        boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
        owners = [np.zeros(0, np.int64)]
        for caption, found in scored if finite else ():
            for column, text in enumerate(caption.phrases):
                rows = self._rows(found, column)
                for index in (i for i, phrase in enumerate(phrases) if phrase == text):
                    best[index] = found.score[:, column].max()
                    boxes.append(found.boxes[rows])
                    scores.append(found.score[rows, column])
                    owners.append(np.full(len(rows), index))
        order = np.argsort(-np.concatenate(scores), kind="stable")
        return FoundBoxes(
            xyxy=np.concatenate(boxes)[order],
            scores=np.concatenate(scores)[order],
            phrases=np.concatenate(owners)[order],
            best_scores=best,
            finite=finite,
        )

    def _rows(self, found: _Scored, column: int) -> np.ndarray:
        """Queries that belong to a phrase, pass the thresholds and survive its suppression."""
        score = found.score[:, column]
        width, height = (found.boxes[:, 2:] - found.boxes[:, :2]).T
        candidates = np.flatnonzero(
            (score == found.score.max(axis=1))
            & (found.best_token[:, column] > self.config.box_threshold)
            & (score > self.config.text_threshold)
            & (width > 0)
            & (height > 0)
        )
        keep = suppress(found.boxes[candidates], score[candidates], self.config.nms_iou)
        return candidates[keep]


def suppress(
    boxes: Float[np.ndarray, "boxes 4"], scores: Float[np.ndarray, " boxes"], limit: float
) -> list[int]:
    """Keep the better of every two boxes that overlap too much (greedy non-maximum suppression).

    Args:
        boxes: xyxy.
        scores: Higher is better; of equal ones the earlier is better.
        limit: IoU above which the worse box goes.

    Returns:
        Indices of the boxes that stay, best first.
    """
    left, top, right, bottom = boxes.astype(np.float64).T
    areas = (right - left) * (bottom - top)
    keep: list[int] = []
    rest = np.argsort(-scores, kind="stable")
    while len(rest):
        best, rest = int(rest[0]), rest[1:]
        keep.append(best)
        width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
        height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
        common = width.clip(0) * height.clip(0)
        union = areas[best] + areas[rest] - common
        rest = rest[common <= limit * union]
    return keep


def _plain(phrase: str) -> str:
    plain = " ".join(phrase.lower().translate(_SEPARATORS).split())
    if not plain:
        message = f"phrase {phrase!r} has no words, expected what the detector should look for"
        raise InputError(message)
    return plain


def _corners(
    boxes: Float32[np.ndarray, "queries 4"], size: tuple[int, int]
) -> Float32[np.ndarray, "queries 4"]:
    """Turn centre and extent, relative to the image, into corners in pixels, clipped to it."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    corners = np.concatenate([centre - half, centre + half], axis=1).clip(0, 1)
    return (corners * np.array(size * 2)).astype(np.float32)
