"""Deterministic stand-ins for every model, for tests of what lies around the models.

The painter draws one flat rectangle for each class that a text mentions, in a colour that the
detector derives from the same class; the segmenter takes what has the colour of the box's centre.
So a counterfactual text, which mentions nothing, gives an image in which nothing is found.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from models.attention_maps import AttentionMaps, MapsWanted, TokenMaps
from models.protocols import (
    CutMasks,
    FoundBoxes,
    FoundObjects,
    ImageRequest,
    InpaintRequest,
    PaintedImage,
    PaintedPair,
    PairRequest,
    TextAnswer,
    TextRequest,
)
from models.writing.mentions import find_mentions
from storage.vocabulary import Vocabulary

UNSAFE_WORD = "unsafe"
"""The painter flags a pair whose text has this word."""
BLANK_WORD = "blank"
"""The painter paints black where a text has this word."""

_PLACES = ("at the sea", "in a garden", "on a table", "under a bridge", "near a wall", "by a road")
_SCORE = 0.9
_TOLERANCE = 12


class FakeWriter:
    """Names the classes, a place and a number."""

    @property
    def name(self) -> str:
        """Always `fake`."""
        return "fake"

    def write(self, requests: Sequence[TextRequest]) -> list[TextAnswer]:
        """Answer every request in full, with texts that are not to be avoided."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: TextRequest) -> TextAnswer:
        names = " and ".join(f"a {record.forms[0]}" for record in request.classes)
        texts: list[str] = []
        number = request.seed % 1000 + 1000 * request.round
        while len(texts) < request.count:
            text = f"{names} {_PLACES[number % len(_PLACES)]} {number}"
            if text not in request.avoid:
                texts.append(text)
            number += 1
        return TextAnswer(tuple(texts))


class FakePainter:
    """Paints a rectangle for each class mentioned, side by side on grey noise of the seed.

    Args:
        vocabulary: The classes to look for in a text.
        size: Width and height of the images in pixels.
    """

    def __init__(self, vocabulary: Vocabulary, *, size: int = 32) -> None:
        self._vocabulary = vocabulary
        self._size = size

    def paint(self, requests: Sequence[PairRequest]) -> list[PaintedPair]:
        """Paint every pair, in order."""
        return [
            PaintedPair(
                self._image(request.text, request.seed),
                self._image(request.counterfactual_text, request.seed),
                unsafe=_has_word(request.text, UNSAFE_WORD),
            )
            for request in requests
        ]

    def paint_images(self, requests: Sequence[ImageRequest]) -> list[PaintedImage]:
        """Paint every image, in order."""
        return [
            PaintedImage(
                self._image(request.text, request.seed),
                unsafe=_has_word(request.text, UNSAFE_WORD),
            )
            for request in requests
        ]

    def _image(self, text: str, seed: int) -> UInt8[np.ndarray, "size size 3"]:
        rng = np.random.default_rng(seed)
        grey = rng.integers(96, 160, (self._size, self._size, 1), dtype=np.uint8)
        image = np.repeat(grey, 3, axis=2)
        if _has_word(text, BLANK_WORD):
            return np.zeros_like(image)
        mentions = find_mentions(text, self._vocabulary.classes)
        ids = list(dict.fromkeys(mention.class_id for mention in mentions))
        quarter = self._size // 4
        for place, class_id in enumerate(ids):
            width = self._size // len(ids)
            margin = int(rng.integers(1, width // 4 + 1))
            columns = slice(place * width + margin, (place + 1) * width - margin)
            image[quarter:-quarter, columns] = _colour(self._vocabulary[class_id].detector_phrase)
        return image


class FakeRecordingPainter(FakePainter):
    """Paints as `FakePainter` does, and has looked for each class where its rectangle is."""

    def paint_recorded(
        self, requests: Sequence[PairRequest], wanted: MapsWanted
    ) -> list[PaintedPair]:
        """Paint every pair, with maps."""
        return [
            dataclasses.replace(pair, maps=self._maps(pair, request, wanted))
            for pair, request in zip(self.paint(requests), requests, strict=True)
        ]

    def _maps(self, pair: PaintedPair, request: PairRequest, wanted: MapsWanted) -> AttentionMaps:
        cells, grid = None, (0, 0)
        if wanted.cells is not None:
            cells, grid = np.eye(wanted.cells**2, dtype=np.float32), (wanted.cells, wanted.cells)
        read = [index for index, each in enumerate(request.attended) if each.spans]
        everything = range(len(request.attended))
        names = [each.name for each in request.attended]
        return AttentionMaps(
            _looked(pair.image, names, read, wanted) if wanted.mentions else None,
            _looked(pair.image, names, everything, wanted) if wanted.class_prompt else None,
            _looked(pair.counterfactual, names, everything, wanted)
            if wanted.class_prompt
            else None,
            cells,
            grid,
        )


def _looked(
    image: UInt8[np.ndarray, "size size 3"],
    names: Sequence[str],
    classes: Sequence[int],
    wanted: MapsWanted,
) -> TokenMaps:
    """One token a class, with the probability 0.9 where the image has the class's colour."""
    maps = {}
    for side in wanted.cross:
        step = len(image) // side
        own = [_alike(image, _colour(names[index]))[::step, ::step] for index in classes]
        maps[side] = np.where(np.array(own).reshape(-1, side, side), 0.9, 0.05).astype(np.float32)
    return TokenMaps(tuple(classes), maps)


class FakeInpainter:
    """Paints grey noise of the seed, and nothing of the image around."""

    def inpaint(self, requests: Sequence[InpaintRequest]) -> list[PaintedImage]:
        """Paint every region over, in order; the rest of each picture is noise too."""
        return [
            PaintedImage(self._noise(request), unsafe=_has_word(request.text, UNSAFE_WORD))
            for request in requests
        ]

    def _noise(self, request: InpaintRequest) -> UInt8[np.ndarray, "height width 3"]:
        rng = np.random.default_rng(request.seed)
        grey = rng.integers(96, 160, (*request.region.shape, 1), dtype=np.uint8)
        return np.repeat(grey, 3, axis=2)


class FakeDetector:
    """Finds the rectangle that `FakePainter` paints for a phrase, through JPEG too."""

    def detect(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
    ) -> list[FoundBoxes]:
        """Find each image's own phrases in it."""
        return [self._found(image, own) for image, own in zip(images, phrases, strict=True)]

    def _found(self, image: UInt8[np.ndarray, "height width 3"], own: Sequence[str]) -> FoundBoxes:
        like = [_alike(image, _colour(phrase)) for phrase in own]
        found = [index for index, mask in enumerate(like) if mask.any()]
        boxes = [_bounds(like[index]) for index in found]
        return FoundBoxes(
            xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
            scores=np.full(len(found), _SCORE, dtype=np.float32),
            phrases=np.array(found, dtype=np.int64),
            best_scores=np.array([_SCORE * mask.any() for mask in like], dtype=np.float32),
        )


class FakeSegmenter:
    """Cuts out what has the colour of the box's centre."""

    def segment(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    ) -> list[CutMasks]:
        """Cut one mask for each box."""
        return [self._cut(image, own) for image, own in zip(images, boxes, strict=True)]

    def _cut(
        self, image: UInt8[np.ndarray, "height width 3"], boxes: Float32[np.ndarray, "boxes 4"]
    ) -> CutMasks:
        masks = np.zeros((len(boxes), *image.shape[:2]), dtype=np.bool_)
        for index, (left, top, right, bottom) in enumerate(boxes.astype(int)):
            own = image[top:bottom, left:right]
            centre = image[(top + bottom) // 2, (left + right) // 2]
            masks[index, top:bottom, left:right] = _alike(own, centre)
        return CutMasks(masks, np.full(len(boxes), _SCORE, dtype=np.float32))


class FakeScout:
    """Says how much of an image has the colour of a class's first phrase."""

    def likeness(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
    ) -> Float32[np.ndarray, "images classes"]:
        """The share of each image's pixels that look like each class."""
        shares = [[_alike(image, _colour(own[0])).mean() for own in phrases] for image in images]
        return np.array(shares, np.float32).reshape(len(images), len(phrases))


class FakeLabeller(FakeDetector):
    """Finds what `FakeDetector` finds, and cuts it out as `FakeSegmenter` does, in one pass."""

    def label(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
    ) -> list[FoundObjects]:
        """Find each image's own phrases in it, and cut them out."""
        found = self.detect(images, phrases)
        cuts = FakeSegmenter().segment(images, [boxes.xyxy for boxes in found])
        return [FoundObjects(*each) for each in zip(found, cuts, strict=True)]


def _colour(phrase: str) -> UInt8[np.ndarray, "3"]:
    """A colour that is never grey."""
    first, second, third = hashlib.sha256(phrase.encode()).digest()[:3]
    return np.roll(np.array([255, first // 2, second // 2], dtype=np.uint8), third % 3)


def _alike(
    image: UInt8[np.ndarray, "height width 3"], colour: UInt8[np.ndarray, "3"]
) -> Bool[np.ndarray, "height width"]:
    distance = np.abs(image.astype(int) - colour.astype(int)).max(axis=2)
    return distance <= _TOLERANCE


def _bounds(mask: Bool[np.ndarray, "height width"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", text) is not None
