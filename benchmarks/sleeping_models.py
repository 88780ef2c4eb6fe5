"""Models that sleep instead of working, for measurements of what lies around them."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from flows.generation_parameters import GenerationParameters
from flows.generation_run import GenerationRun, prepare
from models.labellers import on_device
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
    """

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self.painter = SleepingPainter(pace)
        self._models: dict[Role, Any] = {
            Role.WRITER: SleepingWriter(pace),
            Role.PAINTER: self.painter,
            Role.DETECTOR: SleepingDetector(pace),
            Role.SEGMENTER: SleepingSegmenter(pace),
        }

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


class SleepingPainter:
    """Paints the same noise for every text.

    Args:
        pace: How long it takes.

    Attributes:
        spans: When it worked: first and last moment of every call.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._noise = np.random.default_rng(0).integers(0, 255, (_SIDE, _SIDE, 3), dtype=np.uint8)
        self.spans: list[tuple[float, float]] = []

    def paint(self, requests: Sequence[PairRequest]) -> list[PaintedPair]:
        """Paint every pair."""
        began = time.monotonic()
        time.sleep(self._pace.painting * len(requests))
        self.spans.append((began, time.monotonic()))
        return [PaintedPair(self._noise, self._noise, unsafe=False) for _ in requests]


class SleepingDetector:
    """Finds every phrase in the whole image.

    Args:
        pace: How long it takes.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def detect(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        """Find each image's own phrases."""
        time.sleep(self._pace.labelling * len(images) / 2)  # counterfactuals are looked at too
        return [self._found(len(own)) for own in phrases]

    def _found(self, count: int) -> FoundBoxes:
        boxes = np.tile(np.array([0, 0, _SIDE, _SIDE], dtype=np.float32), (count, 1))
        scores = np.full(count, 0.9, dtype=np.float32)
        return FoundBoxes(boxes, scores, np.arange(count, dtype=np.int64), scores)


class SleepingSegmenter:
    """Divides the image among the boxes.

    Args:
        pace: How long it takes.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def segment(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    ) -> list[CutMasks]:
        """Cut one mask for each box."""
        time.sleep(self._pace.labelling * len(images))
        return [self._cut(len(own)) for own in boxes]

    def _cut(self, count: int) -> CutMasks:
        masks = np.zeros((count, _SIDE, _SIDE), dtype=np.bool_)
        for number in range(count):
            masks[number, :, number * _SIDE // count : (number + 1) * _SIDE // count] = True
        return CutMasks(masks, np.full(count, 0.9, dtype=np.float32))


@contextmanager
def sleeping_run(
    parameters: GenerationParameters, models: SleepingModels, *, devices: int = 1
) -> Iterator[GenerationRun]:
    """A run of sleeping models, to be handed on to the flow.

    Args:
        parameters: What to generate.
        models: The models.
        devices: 1 if all of them compute on one device, 2 if those that label have their own.
    """
    with prepare(parameters, models) as prepared:
        recipe = prepared.recipe
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
