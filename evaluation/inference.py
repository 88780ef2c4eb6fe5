"""From an image to a label map: windows, scores, the best class and the background rule.

Every predictor gives a `ScoreMap`: for each pixel of the original image the best foreground class
and its score. A background rule turns it into labels, so that one pass over the images serves every
threshold.

No score is ever held for all classes at full size: classes are taken in chunks and only the best so
far is kept, which needs megabytes where 1,204 full maps need gigabytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int32, UInt8
from pydantic import BaseModel, Field, model_validator

from models.protocols import Detector, Segmenter
from storage.records import BACKGROUND_LABEL


class Background(StrEnum):
    """When a pixel is background."""

    RAW = "raw"
    """The best class's sigmoid score is below the threshold."""
    SOFTMAX = "softmax"
    """The best class's probability among all classes is below the threshold."""
    CONSTANT = "constant"
    """A channel of constant score stands before the classes and wins ties: the best sigmoid score
    must exceed the threshold (TCL's rule)."""
    NONE = "none"
    """Never; for class sets without background."""


class InferenceConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How an image is shown to the student and how its scores become labels.

    The defaults are those of the released MagicSeg and ZegCLIP settings: short side 512, windows of
    512 at a stride of 426; no offset is subtracted from seen classes.
    """

    short_side: int = Field(default=512, ge=8)
    """Pixels of the shorter side after resizing, the ratio kept."""
    long_side: int = Field(default=2048, ge=8)
    """Most pixels of the longer side; it wins over `short_side`."""
    window: int | None = Field(default=512, ge=8)
    """Side of the square windows in pixels; the whole image at once when empty."""
    stride: int = Field(default=426, ge=1)
    """Pixels from one window to the next."""
    background: Background = Background.RAW
    """The background rule."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """The background rule's threshold on the score."""
    softmax_scale: float = Field(default=1.0, gt=0)
    """What logits are multiplied by before the softmax of the rule `softmax`."""
    batch_size: int = Field(default=8, ge=1)
    """Windows in one forward pass."""
    class_chunk: int = Field(default=8, ge=1)
    """Classes whose full-size scores are held at once; changes speed and memory only. 8 maps of
    512 x 512 fit a CPU's cache, 32 a large GPU's."""

    @model_validator(mode="after")
    def _windows_touch(self) -> "InferenceConfig":
        if self.window is not None and self.stride > self.window:
            message = (
                f"stride {self.stride} is larger than window {self.window}: pixels between the "
                f"windows would have no score, choose a stride of at most {self.window}"
            )
            raise ValueError(message)
        return self


@dataclass(frozen=True)
class ScoreMap:
    """The best foreground class of each pixel.

    Attributes:
        best: Its score in [0, 1].
        index: Its position in the class set's names, without background; the lowest of equals.
    """

    best: Float32[np.ndarray, "height width"]
    index: Int32[np.ndarray, "height width"]


class Predictor(Protocol):
    """Anything that can be scored."""

    def predict(self, image: UInt8[np.ndarray, "height width 3"]) -> ScoreMap:
        """Find the best foreground class of every pixel."""
        ...


class TextSegmenter(Protocol):
    """The student as inference needs it."""

    patch_size: int

    def normalise(
        self, pixels: UInt8[torch.Tensor, "batch 3 height width"]
    ) -> Float[torch.Tensor, "batch 3 height width"]:
        """Turn RGB levels 0..255 into what `encode` takes."""
        ...

    def encode(
        self, image: Float[torch.Tensor, "batch 3 height width"]
    ) -> tuple[Float[torch.Tensor, "batch embed rows columns"], Float[torch.Tensor, "batch embed"]]:
        """Embed the patches and the whole of normalised images."""
        ...

    def scores(
        self,
        patches: Float[torch.Tensor, "batch embed rows columns"],
        cls: Float[torch.Tensor, "batch embed"],
        text: Float[torch.Tensor, "classes embed"],
    ) -> Float[torch.Tensor, "batch classes rows columns"]:
        """Logits of each class at the patch grid, before they are enlarged to the image."""
        ...


def apply_background(
    scores: ScoreMap, rule: Background, threshold: float, *, background: bool
) -> Int32[np.ndarray, "height width"]:
    """Turn scores into the labels of a class set.

    Args:
        scores: The best class of each pixel.
        rule: The background rule; of no effect on a class set without background.
        threshold: Its threshold, compared in float32.
        background: Whether the class set scores background, as label 0 before the others.
    """
    if not background:
        return scores.index
    limit = np.float32(threshold)
    if rule is Background.NONE:
        return scores.index + 1
    found = scores.best > limit if rule is Background.CONSTANT else scores.best >= limit
    return np.where(found, scores.index + 1, np.int32(BACKGROUND_LABEL))


class StudentPredictor:
    """A student with its class embeddings.

    Args:
        student: The network, in eval mode, on the device that it should run on.
        text: Unit text embeddings of the classes, background not among them.
        config: Windows and rule.
    """

    def __init__(
        self,
        student: TextSegmenter,
        text: Float[torch.Tensor, "classes width"],
        config: InferenceConfig,
    ) -> None:
        self._student = student
        self._text = text
        self._config = config

    @torch.no_grad()
    def predict(self, image: UInt8[np.ndarray, "height width 3"]) -> ScoreMap:
        """Find the best class of every pixel of one image."""
        size = _shown_size(image.shape[:2], self._config, self._student.patch_size)
        shown = self._student.normalise(_resized(image, size).to(self._text.device))
        windows = _windows(size, self._config)
        logits = self._logits(shown, windows)
        side = (windows[0].stop_row - windows[0].row, windows[0].stop_column - windows[0].column)
        canvas = _Canvas(windows, size, side)
        scored = _scored_chunks(logits, side, self._config)
        return _best(scored, canvas, (image.shape[0], image.shape[1]))

    def _logits(
        self, shown: Float[torch.Tensor, "1 3 height width"], windows: Sequence["_Window"]
    ) -> Float[torch.Tensor, "windows classes rows columns"]:
        crops = torch.cat(
            [shown[:, :, w.row : w.stop_row, w.column : w.stop_column] for w in windows]
        )
        batches = crops.split(self._config.batch_size)
        found = [
            self._student.scores(*self._student.encode(batch), self._text) for batch in batches
        ]
        return torch.cat(found).float()


class DetectedSegments:
    """A detector's boxes cut out by a segmenter: the baseline Grounding DINO + SAM.

    A pixel's score is the detector's score of the best box whose mask covers it, 0 where there is
    none.

    Args:
        detector: Finds the classes' phrases.
        segmenter: Cuts each box.
        phrases: What each class is called.
    """

    def __init__(self, detector: Detector, segmenter: Segmenter, phrases: Sequence[str]) -> None:
        self._detector = detector
        self._segmenter = segmenter
        self._phrases = tuple(phrases)

    def predict(self, image: UInt8[np.ndarray, "height width 3"]) -> ScoreMap:
        """Detect all classes in one image and cut them out."""
        best = np.zeros(image.shape[:2], dtype=np.float32)
        index = np.zeros(image.shape[:2], dtype=np.int32)
        [found] = self._detector.detect([image], [self._phrases])
        if not len(found.xyxy):
            return ScoreMap(best, index)
        [cut] = self._segmenter.segment([image], [found.xyxy])
        # Worse boxes first, and of equal ones the higher class first: the last writer wins.
        for box in np.lexsort((-found.phrases, found.scores)):
            best[cut.masks[box]] = found.scores[box]
            index[cut.masks[box]] = found.phrases[box]
        return ScoreMap(best, index)


@dataclass(frozen=True)
class _Window:
    row: int
    column: int
    stop_row: int
    stop_column: int


class _Canvas:
    """Averages the scores of overlapping windows."""

    def __init__(
        self, windows: Sequence[_Window], size: tuple[int, int], side: tuple[int, int]
    ) -> None:
        self._windows = windows
        self._size = size
        self._side = side

    def average(
        self, scores: Float[torch.Tensor, "windows classes rows columns"]
    ) -> Float[torch.Tensor, "1 classes height width"]:
        if self._side == self._size:
            return scores
        total = scores.new_zeros(1, scores.shape[1], *self._size)
        count = scores.new_zeros(1, 1, *self._size)
        for window, score in zip(self._windows, scores, strict=True):
            rows = slice(window.row, window.stop_row)
            columns = slice(window.column, window.stop_column)
            total[0, :, rows, columns] += score
            count[0, :, rows, columns] += 1
        return total / count


def _shown_size(
    original: tuple[int, ...], config: InferenceConfig, patch_size: int
) -> tuple[int, int]:
    """Rows and columns at which an image is shown, its ratio kept to the pixel or the patch."""
    short, long = min(original), max(original)
    scale = min(config.short_side / short, config.long_side / long)
    if config.window is None:
        rows, columns = (round(side * scale / patch_size) * patch_size for side in original)
        return max(rows, patch_size), max(columns, patch_size)
    # Every window must be full, so that the window is the least short side.
    scale = max(scale, config.window / short)
    rows, columns = (max(config.window, int(side * scale + 0.5)) for side in original)
    return rows, columns


def _resized(
    image: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]
) -> UInt8[torch.Tensor, "1 3 rows columns"]:
    """The image at the size in which it is shown."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    if image.shape[:2] == size:
        return pixels
    return F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)


def _windows(size: tuple[int, int], config: InferenceConfig) -> list[_Window]:
    """Windows that cover the image; the last of each row and column is moved inside."""
    if config.window is None:
        return [_Window(0, 0, *size)]
    side = config.window
    rows, columns = (_starts(length, side, config.stride) for length in size)
    return [_Window(row, column, row + side, column + side) for row in rows for column in columns]


def _starts(length: int, side: int, stride: int) -> list[int]:
    count = 1 + -(-(length - side) // stride)
    return [min(index * stride, length - side) for index in range(count)]


def _scored_chunks(
    logits: Float[torch.Tensor, "windows classes rows columns"],
    side: tuple[int, int],
    config: InferenceConfig,
) -> Iterator[Float[torch.Tensor, "windows chunk height width"]]:
    """Scores of a chunk of classes at the windows' size, one chunk after another."""
    chunks = logits.split(config.class_chunk, dim=1)
    if config.background is not Background.SOFTMAX:
        for chunk in chunks:
            yield _enlarged(chunk, side).sigmoid()
        return
    # The denominator first: it needs all classes, but only one map.
    total = logits.new_full((logits.shape[0], 1, *side), -torch.inf)
    for chunk in chunks:
        scaled = _enlarged(chunk, side) * config.softmax_scale
        total = torch.logaddexp(total, scaled.logsumexp(dim=1, keepdim=True))
    for chunk in chunks:
        yield (_enlarged(chunk, side) * config.softmax_scale - total).exp()


def _enlarged(
    logits: Float[torch.Tensor, "windows classes rows columns"], side: tuple[int, int]
) -> Float[torch.Tensor, "windows classes height width"]:
    return F.interpolate(logits, side, mode="bilinear", align_corners=False)


def _best(
    scored: Iterator[Float[torch.Tensor, "windows chunk rows columns"]],
    canvas: _Canvas,
    size: tuple[int, int],
) -> ScoreMap:
    """The running maximum over the chunks, at the image's own size."""
    best: torch.Tensor | None = None
    index: torch.Tensor | None = None
    first = 0
    for chunk in scored:
        scores = canvas.average(chunk)
        if scores.shape[2:] != size:
            scores = F.interpolate(scores, size, mode="bilinear", align_corners=False)
        value, place = scores[0].max(dim=0)
        place = place.int() + first
        first += scores.shape[1]
        if best is None or index is None:
            best, index = value, place
            continue
        # Strictly greater, so that the lowest of equal classes stays.
        better = value > best
        best, index = torch.where(better, value, best), torch.where(better, place, index)
    if best is None or index is None:
        message = "no class to choose from, expected at least one text embedding"
        raise ValueError(message)
    return ScoreMap(best.cpu().numpy(), index.cpu().numpy())
