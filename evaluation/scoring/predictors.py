"""From an image to a label map: scores of the classes, the best one, and the background rule.

Every predictor gives a `ScoreMap`: for each pixel of the original image the best class and its
score. A background rule turns it into labels, so that one pass over the images serves every
threshold.

No score is ever held for all classes at full size: classes are taken in chunks and only the best so
far is kept, which needs megabytes where 1,204 full maps need gigabytes.

In the comments below V is the number of windows of an image, R that of text rows, C the rows of a
chunk, D the width of the embeddings, (h, w) the patch grid of a window, (H, W) its pixels, and
(rows, columns) the image's own size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from evaluation.scoring.background import BACKGROUND_WORD, ScoreMap
from evaluation.scoring.config import Background, InferenceConfig, Overlap
from evaluation.scoring.windows import View
from storage.errors import InputError

__all__ = ["Predictor", "StudentPredictor", "TextRows"]

_NEAREST = 5

_MAP_VALUES = 2**27
"""Most values of a chunk's maps, 512 MiB of float32, unless a single class has more: what is held
for a large photograph must not grow with the number of classes."""

Watch = Callable[[int, Float[torch.Tensor, "height width"]], None]
"""What is told each class's position and its scores at the image's own size."""

_Maps = Float[torch.Tensor, "maps classes height width"]


@dataclass(frozen=True)
class TextRows:
    """Text embeddings and the classes that they stand for.

    A class may own several rows, of which the best counts for each pixel; rows of background words
    compete with the classes and stand for none.

    Attributes:
        embeddings: Unit vectors.
        owners: For each row its class's position in the class set's names, or `BACKGROUND_WORD`;
            ascending.
    """

    embeddings: Float[torch.Tensor, "rows width"]
    owners: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that the two fit together."""
        if len(self.owners) != len(self.embeddings):
            message = f"{len(self.embeddings)} rows came with {len(self.owners)} owners"
            raise ValueError(message)
        if list(self.owners) != sorted(self.owners) or min(self.owners, default=0) < -1:
            message = f"owners must ascend from {BACKGROUND_WORD} at least, found {self.owners}"
            raise ValueError(message)

    @classmethod
    def one_each(cls, embeddings: Float[torch.Tensor, "classes width"]) -> "TextRows":
        """One row for each class."""
        return cls(embeddings, tuple(range(len(embeddings))))

    def among(self, candidates: Sequence[int] | None) -> "TextRows":
        """The rows of some classes, and those of the background words; all if none are named."""
        if candidates is None:
            return self
        wanted = {BACKGROUND_WORD, *candidates}
        kept = [row for row, owner in enumerate(self.owners) if owner in wanted]
        return TextRows(self.embeddings[kept], tuple(self.owners[row] for row in kept))

    def chunks(self, size: int) -> Iterator[slice]:
        """Rows in groups of at most `size`, more only where one class owns more."""
        start = stop = 0
        for _, own in groupby(self.owners):
            count = sum(1 for _ in own)
            if stop > start and stop + count - start > size:
                yield slice(start, stop)
                start = stop
            stop += count
        if stop > start:
            yield slice(start, stop)


@dataclass(frozen=True)
class ClassScores:
    """Scores of some classes.

    Attributes:
        class_ids: Their positions in the class set's names.
        scores: In [0, 1], at the image's own size; on the device where they were computed.
    """

    class_ids: tuple[int, ...]
    scores: Float[torch.Tensor, "classes height width"]


@runtime_checkable
class Predictor(Protocol):
    """Anything that can be scored on label maps."""

    def predict(
        self, image: UInt8[np.ndarray, "height width 3"], candidates: Sequence[int] | None = None
    ) -> ScoreMap:
        """Find the best class of every pixel.

        Args:
            image: RGB.
            candidates: Positions of the classes that may be predicted; all if not given.
        """
        ...


@runtime_checkable
class ClassScorer(Protocol):
    """Anything that scores each class by itself."""

    def class_scores(
        self, image: UInt8[np.ndarray, "height width 3"], candidates: Sequence[int] | None = None
    ) -> Iterator[ClassScores]:
        """Score every candidate at every pixel, a few classes at a time.

        Args:
            image: RGB.
            candidates: Positions of the classes to score; all if not given.
        """
        ...


@runtime_checkable
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


class StudentPredictor:
    """A student with the text embeddings of the classes.

    Args:
        student: The network, in eval mode, on the device that it should run on.
        rows: The embeddings, on the same device. Background words belong among them under the rule
            `words` alone.
        config: Windows and rule.
        seen: Positions of the classes from whose scores the offset is subtracted.
    """

    def __init__(
        self,
        student: TextSegmenter,
        rows: TextRows,
        config: InferenceConfig,
        seen: Sequence[int] = (),
    ) -> None:
        self._student = student
        self._rows = rows
        self._config = config
        self._seen = frozenset(seen) if config.seen_offset else frozenset[int]()

    def predict(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        candidates: Sequence[int] | None = None,
        *,
        watch: Watch | None = None,
    ) -> ScoreMap:
        """Find the best class of every pixel of one image.

        Args:
            image: RGB.
            candidates: Positions of the classes that may be predicted; all if not given.
            watch: Told the scores of each class; changes nothing.

        Raises:
            InputError: If the student's logits are not finite.
        """
        rows = self._rows.among(candidates)
        device = rows.embeddings.device
        best = torch.zeros(image.shape[:2], device=device)
        row = torch.full(image.shape[:2], -1, dtype=torch.int32, device=device)
        for own, plain in self._scored(image, rows):
            if watch is not None:
                for owner, single in _by_class(plain, rows.owners[own]):
                    watch(owner, single)
            scores = self._offset(plain, rows.owners[own])
            value, place = scores.max(dim=0)  # (C, rows, columns) -> (rows, columns) each
            # Strictly greater, so that the lowest of equal classes stays.
            better = (value > best) | (row < 0)
            best = torch.where(better, value, best)
            row = torch.where(better, place.int() + own.start, row)
        owners = np.array([*rows.owners, BACKGROUND_WORD], dtype=np.int32)
        return ScoreMap(best.cpu().numpy(), owners[row.cpu().numpy()])

    def _offset(
        self, scores: Float[torch.Tensor, "chunk height width"], owners: Sequence[int]
    ) -> Float[torch.Tensor, "chunk height width"]:
        """Lower the scores of the seen classes.

        ZegCLIP does so in each window; what is averaged and resized afterwards stays the same.
        """
        if not self._seen:
            return scores
        lower = [self._config.seen_offset * (owner in self._seen) for owner in owners]
        return scores - scores.new_tensor(lower)[:, None, None]

    def class_scores(
        self, image: UInt8[np.ndarray, "height width 3"], candidates: Sequence[int] | None = None
    ) -> Iterator[ClassScores]:
        """Score every candidate at every pixel, a few classes at a time.

        Raises:
            InputError: If the student's logits are not finite.
        """
        rows = self._rows.among(candidates)
        for own, scores in self._scored(image, rows):
            found = dict(_by_class(scores, rows.owners[own]))
            if found:
                yield ClassScores(tuple(found), torch.stack(list(found.values())))

    def _scored(
        self, image: UInt8[np.ndarray, "height width 3"], rows: TextRows
    ) -> Iterator[tuple[slice, Float[torch.Tensor, "chunk height width"]]]:
        """Scores of a chunk of rows at the image's own size, one chunk after another."""
        if not rows.owners:
            return
        config = self._config
        view = View((image.shape[0], image.shape[1]), config, self._student.patch_size)
        shown = self._student.normalise(view.resized(image).to(rows.embeddings.device))
        logits, nearest = self._logits(view.cut(shown), rows)  # (V, R, h, w), (V, R)
        require_finite(logits * config.softmax_scale, "logits")
        by_window = config.overlap is Overlap.SCORES

        def maps(own: slice) -> _Maps:
            large = view.enlarged(logits[:, own])  # (V, C, H, W)
            return large if by_window else view.merged(large)  # or (1, C, rows, columns)

        pixels = max(image.shape[0] * image.shape[1], len(logits) * view.window_pixels)
        chunks = list(rows.chunks(min(config.class_chunk, max(1, _MAP_VALUES // pixels))))
        score = _scoring(config, maps, chunks, nearest)
        for own in chunks:
            scores = score(own)
            yield own, (view.merged(scores) if by_window else scores)[0]

    @torch.no_grad()  # the network runs here alone
    def _logits(
        self, crops: Float[torch.Tensor, "windows 3 height width"], rows: TextRows
    ) -> tuple[Float[torch.Tensor, "windows rows h w"], Bool[torch.Tensor, "windows rows"]]:
        """Logits of all windows, and which rows are nearest to each of them as a whole."""
        logits, nearest = [], []
        for batch in crops.split(self._config.batch_size):
            patches, cls = self._student.encode(batch)  # (v, D, h, w), (v, D); v of V windows
            logits.append(self._student.scores(patches, cls, rows.embeddings))  # (v, R, h, w)
            alike = cls.float() @ rows.embeddings.float().T  # (v, D) (D, R) -> (v, R)
            top = alike.topk(min(_NEAREST, len(rows.owners)), dim=1).indices  # (v, at most 5)
            nearest.append(torch.zeros_like(alike, dtype=torch.bool).scatter(1, top, value=True))
        return torch.cat(logits).float(), torch.cat(nearest)


def _by_class(
    scores: Float[torch.Tensor, "chunk height width"], owners: Sequence[int]
) -> Iterator[tuple[int, Float[torch.Tensor, "height width"]]]:
    """The classes of a chunk, each with the best of its rows; background words are left out."""
    start = 0
    for owner, own in groupby(owners):
        stop = start + sum(1 for _ in own)
        if owner != BACKGROUND_WORD:
            # Nearly always one row, of which no copy is made.
            yield owner, scores[start] if stop - start == 1 else scores[start:stop].amax(dim=0)
        start = stop


def require_finite(values: torch.Tensor, what: str) -> None:
    """Refuse network outputs that are not finite: their arg-max would mean nothing.

    Args:
        values: Of any shape.
        what: What messages call them.

    Raises:
        InputError: If one is NaN or infinite.
    """
    if not values.isfinite().all():
        message = (
            f"the network's {what} for an image are not finite, so that nothing can be measured: "
            "its training has diverged, or the weights do not belong to it. Score an earlier "
            "checkpoint, or train again with a lower learning rate"
        )
        raise InputError(message)


def _scoring(
    config: InferenceConfig,
    maps: Callable[[slice], _Maps],
    chunks: Sequence[slice],
    nearest: Bool[torch.Tensor, "windows rows"],
) -> Callable[[slice], _Maps]:
    """What turns the logits of some rows into scores.

    Args:
        config: The rule says which scores.
        maps: Logits of some rows at full size.
        chunks: All rows; a denominator needs them all, but only one map.
        nearest: For each window the rows that GroupViT's rule leaves in the race.

    Returns:
        A function from some rows to their scores, (maps, C, height, width). A softmax is taken as
        exp(logit - log of the sum of all exponentials), so that no two chunks are held at once.
    """

    def scaled(own: slice) -> _Maps:
        return maps(own) * config.softmax_scale

    def left(own: slice) -> _Maps:
        return scaled(own).masked_fill(~nearest[:, own, None, None], -torch.inf)

    if config.background is Background.GROUPVIT:
        # Two softmaxes, (maps, 1, height, width) each: among all rows, and among the nearest.
        everyone = _log_total(map(scaled, chunks))
        few = _log_total(left(own) for own in chunks if nearest[:, own].any())

        def race(own: slice) -> _Maps:
            if not nearest[:, own].any():
                return torch.zeros_like(everyone).expand(-1, own.stop - own.start, -1, -1)
            # The product of both probabilities; a row that is not near has -inf here, which is 0.
            return (2 * left(own) - everyone - few).exp()

        return race
    if config.background in {Background.SOFTMAX, Background.WORDS}:
        total = _log_total(map(scaled, chunks))
        return lambda own: (scaled(own) - total).exp()
    return lambda own: maps(own).sigmoid()


def _log_total(maps: Iterator[_Maps]) -> Float[torch.Tensor, "maps 1 height width"]:
    """Logarithm of the sum of all exponentials, over all classes of all chunks."""
    total = next(maps).logsumexp(dim=1, keepdim=True)  # (maps, C, h, w) -> (maps, 1, h, w)
    for each in maps:
        total = torch.logaddexp(total, each.logsumexp(dim=1, keepdim=True))
    return total
