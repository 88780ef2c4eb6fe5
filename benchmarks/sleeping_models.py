"""Models that sleep instead of working, for measurements of what lies around them."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from flows.generation_parameters import GenerationParameters
from flows.generation_run import GenerationRun, prepare
from models.labellers import on_device
from models.masks import PackedMasks
from models.protocols import (
    CutMasks,
    FoundBoxes,
    PaintedPair,
    PairRequest,
    TextAnswer,
    TextRequest,
    TokenCounter,
)
from models.registry import Role, kind_of
from storage.objects import ObjectStore
from tasks.machine import Machine
from tasks.recipe import Recipe
from tasks.resident import ResidentModels
from tasks.turns import Turns

_SIDE = 16

Span = tuple[float, float]
"""First and last moment of a call."""

Pictures = Sequence[UInt8[np.ndarray, "side side 3"]]


@dataclass(frozen=True)
class Pace:
    """How long the models take.

    Attributes:
        writing: Seconds for a text.
        painting: Seconds for a pair.
        labelling: Seconds for an image, for the detector and the segmenter each.
        hiccup: Seconds for which the writer answers nothing, once.
        hiccup_after: Texts that are written before that.
    """

    writing: float = 0.0
    painting: float = 0.0
    labelling: float = 0.0
    hiccup: float = 0.0
    hiccup_after: int = 0


class SleepingModels(ResidentModels):
    """One sleeping model for each role.

    Args:
        pace: How long they take.
        pictures: What is painted, in turn, square and of one size; small noise by default.
    """

    def __init__(self, pace: Pace, pictures: Pictures = ()) -> None:
        super().__init__()
        self.painter = SleepingPainter(pace, pictures or [_noise()])
        self._detector, self._segmenter = SleepingDetector(pace), SleepingSegmenter(pace)
        self._models: dict[Role, Any] = {
            Role.WRITER: SleepingWriter(pace),
            Role.PAINTER: self.painter,
            Role.DETECTOR: self._detector,
            Role.SEGMENTER: self._segmenter,
        }

    @property
    def spans(self) -> list[Span]:
        """When a network computed, in order."""
        return sorted(self.painter.spans + self._detector.spans + self._segmenter.spans)

    def model(self, config: Any, objects: ObjectStore) -> Any:
        """The model of the configuration's role."""
        return self._models[kind_of(config).role]

    def tokens(self, config: Any) -> TokenCounter:
        """A counter to which every text is short."""
        return _Short()


class _Short:
    max_tokens = 77

    def count_tokens(self, text: str) -> int:
        return 1


class SleepingWriter:
    """Names the classes and a number; any number of callers sleep side by side.

    Args:
        pace: How long it takes, and when it has its hiccup.
    """

    name = "sleeping"

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._lock = threading.Lock()
        self._written = 0
        self._back_at: float | None = None

    def write(self, requests: Sequence[TextRequest]) -> list[TextAnswer]:
        """Answer every request in full."""
        count = sum(request.count for request in requests)
        time.sleep(self._pace.writing * count)
        with self._lock:
            self._written += count
            if self._pace.hiccup and self._written > self._pace.hiccup_after:
                self._back_at = self._back_at or time.monotonic() + self._pace.hiccup
        time.sleep(max(0.0, (self._back_at or 0.0) - time.monotonic()))
        return [self._answer(request) for request in requests]

    def _answer(self, request: TextRequest) -> TextAnswer:
        names = " and ".join(f"a {record.forms[0]}" for record in request.classes)
        texts = (f"{names} {request.seed} {number}" for number in range(request.count))
        return TextAnswer(tuple(texts))


def _noise() -> UInt8[np.ndarray, "side side 3"]:
    return np.random.default_rng(0).integers(0, 255, (_SIDE, _SIDE, 3), dtype=np.uint8)


class SleepingPainter:
    """Paints the same pictures again and again.

    Args:
        pace: How long it takes.
        pictures: What is painted, in turn.

    Attributes:
        spans: When it worked.
    """

    def __init__(self, pace: Pace, pictures: Pictures) -> None:
        self._pace = pace
        self._pictures = itertools.cycle(pictures)
        self.spans: list[Span] = []

    def paint(self, requests: Sequence[PairRequest]) -> list[PaintedPair]:
        """Paint every pair."""
        began = time.monotonic()
        time.sleep(self._pace.painting * len(requests))
        self.spans.append((began, time.monotonic()))
        return [
            PaintedPair(next(self._pictures), next(self._pictures), unsafe=False) for _ in requests
        ]


class SleepingDetector:
    """Finds every phrase in the whole image.

    Args:
        pace: How long it takes.

    Attributes:
        spans: When it worked.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.spans: list[Span] = []

    def detect(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        """Find each image's own phrases."""
        began = time.monotonic()
        time.sleep(self._pace.labelling * len(images) / 2)  # counterfactuals are looked at too
        self.spans.append((began, time.monotonic()))
        return [
            self._found(len(own), image.shape[0])
            for image, own in zip(images, phrases, strict=True)
        ]

    def _found(self, count: int, side: int) -> FoundBoxes:
        boxes = np.tile(np.array([0, 0, side, side], dtype=np.float32), (count, 1))
        scores = np.full(count, 0.9, dtype=np.float32)
        return FoundBoxes(boxes, scores, np.arange(count, dtype=np.int64), scores)


class SleepingSegmenter:
    """Gives each box the disc of its own part of the image.

    Args:
        pace: How long it takes.

    Attributes:
        spans: When it worked.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.spans: list[Span] = []

    def segment(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    ) -> list[CutMasks]:
        """Cut one mask for each box."""
        began = time.monotonic()
        time.sleep(self._pace.labelling * len(images))
        self.spans.append((began, time.monotonic()))
        return [
            CutMasks(_discs(len(own), image.shape[0]), np.full(len(own), 0.9, dtype=np.float32))
            for image, own in zip(images, boxes, strict=True)
        ]


@cache
def _discs(count: int, side: int) -> PackedMasks:
    """Discs side by side, as a segmenter hands masks on."""
    rows, columns = np.mgrid[:side, :side] + 0.5
    radius = side / (2 * count)
    places = (2 * np.arange(count) + 1) * radius
    return PackedMasks.of(
        np.stack([np.hypot(rows - side / 2, columns - place) < radius for place in places])
    )


@contextmanager
def sleeping_run(
    parameters: GenerationParameters,
    models: SleepingModels,
    *,
    devices: int = 1,
    image_format: str = "png",
) -> Iterator[GenerationRun]:
    """A run of sleeping models, to be handed on to the flow.

    Args:
        parameters: What to generate.
        models: The models.
        devices: 1 if all of them compute on one device, 2 if those that label have their own.
        image_format: How pictures are stored; that of large profiles is "jpg".
    """
    with prepare(parameters, models) as prepared:
        profile = prepared.recipe.profile.model_copy(update={"image_format": image_format})
        recipe = prepared.recipe.model_copy(update={"profile": profile})
        folder = Path(parameters.root)
        with Machine(models) as machine:
            machine.turns = Turns(
                lambda: machine.progress.check("the wait for a device"), name=str, folder=folder
            )
            yield GenerationRun(
                parameters,
                _on_two(recipe) if devices > 1 else recipe,
                prepared.classes,
                store=prepared.store,
                keys=prepared.keys,
                machine=machine,
            )


def _on_two(recipe: Recipe) -> Recipe:
    labeller = on_device(recipe.profile.labeller, {"device": "other"})
    profile = recipe.profile.model_copy(update={"labeller": labeller})
    return recipe.model_copy(update={"profile": profile})
