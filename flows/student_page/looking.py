"""What the page works out for a picture: scores once, then masks for any threshold."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from evaluation.reports.found_words import LegendEntry, draw_overlay
from evaluation.segment import Segmentation, WordFinder, WordScores, checked_words
from storage.codecs import encode_label_map
from storage.errors import IncompleteError, InputError
from storage.photographs import decode_photograph
from storage.picture_headers import read_header

MOST_BYTES = 32 * 2**20
"""Largest file that is taken."""
MOST_PIXELS = 16_000_000
"""Most pixels of a picture; scores of two students are 15 bytes a pixel while they are kept."""
MOST_WORDS = 64
"""Most words at once; the heat map of each is kept."""

_HEAT_SIDE = 640
_BETWEEN_WORDS = re.compile(r"[,\n]")


@dataclass(frozen=True)
class WordRow:
    """A word in the table.

    Attributes:
        word: The word.
        label: What stands for it in label maps.
        area: Its pixels.
        share: Its share of the picture, in [0, 1].
        mean_score: Mean score of its pixels; None if it has none.
        best_score: Its highest score anywhere.
    """

    word: str
    label: int
    area: int
    share: float
    mean_score: float | None
    best_score: float


@dataclass(frozen=True)
class Shown:
    """What one student found with a threshold.

    Attributes:
        overlay: PNG with a legend.
        rows: Each word, in the order of the labels.
    """

    overlay: bytes
    rows: tuple[WordRow, ...]


@dataclass(frozen=True)
class Kept:
    """What is kept of a picture while somebody looks at it.

    Attributes:
        image: RGB, upright.
        scores: What each student says, by its name.
        heat: For each student and each of its words the levels 0..255 for scores 0..1, at most 640
            pixels wide and high.
    """

    image: UInt8[np.ndarray, "height width 3"]
    scores: Mapping[str, WordScores]
    heat: Mapping[tuple[str, str], UInt8[np.ndarray, "rows columns"]]

    @property
    def num_bytes(self) -> int:
        """The memory that it takes."""
        maps = [part for each in self.scores.values() for part in (each.best.best, each.best.index)]
        return sum(each.nbytes for each in (self.image, *maps, *self.heat.values()))

    @property
    def words(self) -> tuple[str, ...]:
        """What was asked for."""
        return next(iter(self.scores.values())).words

    def surest(self, name: str) -> str:
        """The word that a student is surest of anywhere."""
        own = self.scores[name]
        return max(zip(own.best_scores, own.words, strict=True), key=lambda pair: pair[0])[1]

    def at(self, name: str, threshold: float) -> Segmentation:
        """What a student finds with a threshold."""
        return self.scores[name].at(threshold)

    def show(self, name: str, threshold: float) -> Shown:
        """Draw what a student finds with a threshold."""
        scores, found = self.scores[name], self.at(name, threshold)
        rows = _rows(found, scores.best_scores)
        legend = [LegendEntry(row.word, row.label, row.share) for row in rows]
        return Shown(draw_overlay(self.image, found.labels, legend), rows)

    def label_map(self, name: str, threshold: float) -> bytes:
        """The label map as `magicseg segment` writes it."""
        return encode_label_map(self.at(name, threshold).labels)

    def show_heat(self, name: str, word: str) -> UInt8[np.ndarray, "rows columns 3"]:
        """The picture in grey, the redder the surer a student is of a word."""
        levels = self.heat[name, word]
        small = _shrunk(Image.fromarray(self.image), levels.shape)
        grey = np.asarray(small.convert("L"), dtype=np.float32)[..., None] * 0.6 + 60
        share = levels[..., None].astype(np.float32) / 255
        red = np.array([235, 30, 20], np.float32)
        drawn = (grey * (1 - share) + red * share).round().astype(np.uint8)
        times = max(1, _HEAT_SIDE // max(levels.shape))  # small ones keep sharp pixels
        return drawn.repeat(times, 0).repeat(times, 1)


def read_words(text: str) -> tuple[str, ...]:
    """Words as people type them: between commas or on lines of their own.

    Raises:
        InputError: If there are none or too many, or one stands there twice.
    """
    words = [word.strip() for word in _BETWEEN_WORDS.split(text)]
    words = [word for word in words if word]
    if not words:
        message = "there are no words yet: type some, between commas or on lines of their own"
        raise InputError(message)
    if len(words) > MOST_WORDS:
        message = (
            f"{len(words)} words are too many for the page, expected at most {MOST_WORDS}: "
            "'magicseg segment' takes more"
        )
        raise InputError(message)
    return checked_words(words)


def read_picture(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Read an uploaded picture, upright.

    Raises:
        DataError: If it is no JPEG or PNG, or damaged.
        InputError: If it is too large for the page.
    """
    way_out = "choose another picture"
    if len(data) > MOST_BYTES:
        message = f"the file has {len(data):,} bytes, expected at most {MOST_BYTES:,}: {way_out}"
        raise InputError(message)
    header = read_header(data, "the picture", way_out=way_out)
    if header.width * header.height > MOST_PIXELS:
        message = (
            f"the picture has {header.width} x {header.height} pixels, expected at most "
            f"{MOST_PIXELS:,}: make it smaller, or use 'magicseg segment'"
        )
        raise InputError(message)
    return decode_photograph(data, "the picture", way_out=way_out)


def look(
    data: bytes,
    text: str,
    finders: Mapping[str, WordFinder],
    is_over: Callable[[], bool] = lambda: False,
) -> Kept:
    """Ask students about a picture.

    Args:
        data: The file, JPEG or PNG.
        text: Words as they were typed.
        finders: The students by name.
        is_over: Asked after each word whether nobody wants an answer any more.

    Raises:
        DataError: As `read_picture` raises it.
        IncompleteError: It is over.
        InputError: As `read_picture`, `read_words` and the students raise it.
    """
    words, image = read_words(text), read_picture(data)
    heat: dict[tuple[str, str], np.ndarray] = {}
    scores: dict[str, WordScores] = {}
    height, width = image.shape[:2]
    scale = min(1.0, _HEAT_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    for name, finder in finders.items():

        def watch(word: str, values: np.ndarray, name: str = name) -> None:
            if is_over():
                message = "the page is closing"
                raise IncompleteError(message)
            small = np.asarray(_shrunk(Image.fromarray(values), size))
            heat[name, word] = np.rint(small.clip(0, 1) * 255).astype(np.uint8)

        scores[name] = finder.look(image, words, watch=watch)
    return Kept(image, scores, heat)


def shrink_for_screen(
    image: UInt8[np.ndarray, "height width 3"], side: int = 1024
) -> UInt8[np.ndarray, "rows columns 3"]:
    """A picture no longer than `side` pixels."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return np.asarray(_shrunk(Image.fromarray(image), size))


def as_picture(png: bytes) -> Image.Image:
    """Decode a PNG of ours."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def _shrunk(image: Image.Image, size: Sequence[int]) -> Image.Image:
    rows, columns = size
    if image.size == (columns, rows):
        return image
    return image.resize((columns, rows), Image.Resampling.BOX)


def _rows(found: Segmentation, best: Sequence[float]) -> tuple[WordRow, ...]:
    labels: UInt16[np.ndarray, " pixels"] = found.labels.ravel()
    areas = np.bincount(labels, minlength=len(found.words) + 1)
    sums = np.bincount(labels, weights=found.scores.ravel(), minlength=len(found.words) + 1)
    return tuple(
        WordRow(
            word=word,
            label=label,
            area=int(areas[label]),
            share=float(areas[label] / labels.size),
            mean_score=float(sums[label] / areas[label]) if areas[label] else None,
            best_score=best[label - 1],
        )
        for label, word in enumerate(found.words, start=1)
    )
