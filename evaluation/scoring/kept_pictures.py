"""Kept pictures: the images that a reader of the scores wants to see, with truth and prediction.

While a split is scored nobody knows yet which images are the best and the worst of a class. So an
image is kept, in small, as long as it is among the best or the worst of one of its classes so far,
or has more pixels of one class taken for another than any image before. What is left in the end
goes into one file, a row an image:

    key         string   name of the image
    image       binary   JPEG, its longer side `SIDE` at most
    truth       binary   label map of the same size, 16-bit PNG
    prediction  binary   the same of what was predicted
"""

# pyarrow comes without types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportArgumentType=false

import heapq
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, Integer, UInt8
from PIL import Image
from pyarrow import parquet

from evaluation.scoring.image_counts import BY_IMAGE_AGAIN
from evaluation.scoring.metrics import LabelPairs
from storage.codecs import encode_label_map
from storage.errors import DataError
from storage.files import write_whole
from storage.manifest_files import VERSION_FIELD, read_parquet_table

SIDE = 256
"""Most pixels of a kept picture's longer side."""

_QUALITY = 88
_FEW, _MANY = 40, 200
_MAX_PAIRS = 300
_SHOWN_PAIRS = 32

PICTURES_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        *(pa.field(name, pa.binary(), nullable=False) for name in ("image", "truth", "prediction")),
    ],
    metadata={VERSION_FIELD: b"1"},
)


@dataclass(frozen=True)
class KeptPicture:
    """An image in small, with its truth and what was predicted.

    Attributes:
        key: Name of the image.
        image: JPEG.
        truth: Label map of the same size, 16-bit PNG.
        prediction: The same of the prediction.
    """

    key: str
    image: bytes
    truth: bytes
    prediction: bytes


class PictureKeeper:
    """Keeps the images that are worth a look while a split is scored.

    Args:
        num_classes: Labels are below it.
        background: Whether label 0 is background, of which no image is the best or the worst.
    """

    def __init__(self, num_classes: int, *, background: bool) -> None:
        self._first = 1 if background else 0
        self._each = 3 if num_classes <= _FEW else 2 if num_classes <= _MANY else 1
        self._ends: dict[tuple[int, bool], list[tuple[tuple[float, int], int, str]]] = {}
        self._pairs: dict[tuple[int, int], tuple[int, int, str]] = {}
        self._totals: Counter[tuple[int, int]] = Counter()
        self._wanted: Counter[str] = Counter()
        self._pictures: dict[str, KeptPicture] = {}
        self._number = 0

    def offer(
        self,
        key: str,
        image: UInt8[np.ndarray, "height width 3"],
        labels: tuple[Integer[np.ndarray, "height width"], Integer[np.ndarray, "height width"]],
        pairs: LabelPairs,
    ) -> None:
        """Look at an image; it is kept if it is worth it so far.

        Args:
            key: Its name.
            image: RGB.
            labels: Truth and prediction.
            pairs: How often their labels met.
        """
        self._number += 1
        for label, iou, union in _class_ious(pairs):
            if label >= self._first:
                # Of equal ones the larger thing is shown, then the earlier image.
                self._place((label, True), (iou, union), key)
                self._place((label, False), (-iou, union), key)
        for true, found, pixels in zip(*map(np.ndarray.tolist, _wrong(pairs)), strict=True):
            self._totals[true, found] += pixels
            if pixels > self._pairs.get((true, found), (0, 0, ""))[0]:
                self._change(self._pairs.get((true, found), (0, 0, ""))[2], key)
                self._pairs[true, found] = (pixels, self._number, key)
        self._forget_rare_pairs()
        if self._wanted[key]:
            self._pictures[key] = _small(key, image, *labels)
        for other in [each for each in self._pictures if not self._wanted[each]]:
            del self._pictures[other]

    def kept(self, matrix: Int64[np.ndarray, "true predicted"]) -> list[KeptPicture]:
        """The pictures, by key.

        Args:
            matrix: Of the whole split: of the pairs of labels those with the largest share of the
                true label are illustrated.
        """
        keys = {key for heap in self._ends.values() for _, _, key in heap}
        shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
        ordered = sorted(self._pairs, key=lambda pair: (-shares[pair], pair))
        keys |= {self._pairs[pair][2] for pair in ordered[:_SHOWN_PAIRS]}
        return [self._pictures[key] for key in sorted(keys)]

    def _place(self, end: tuple[int, bool], worth: tuple[float, int], key: str) -> None:
        heap = self._ends.setdefault(end, [])
        entry = (worth, -self._number, key)
        if len(heap) < self._each:
            heapq.heappush(heap, entry)
            self._wanted[key] += 1
        elif entry > heap[0]:
            self._change(heapq.heapreplace(heap, entry)[2], key)

    def _change(self, before: str, key: str) -> None:
        self._wanted[key] += 1
        if before:
            self._wanted[before] -= 1

    def _forget_rare_pairs(self) -> None:
        if len(self._pairs) <= 2 * _MAX_PAIRS:
            return
        for pair in sorted(self._pairs, key=lambda pair: -self._totals[pair])[_MAX_PAIRS:]:
            self._wanted[self._pairs.pop(pair)[2]] -= 1


def write_pictures(pictures: list[KeptPicture], path: Path) -> None:
    """Write kept pictures; the file appears whole or not at all."""
    columns = {
        field.name: [getattr(each, field.name) for each in pictures] for field in PICTURES_SCHEMA
    }
    buffer = io.BytesIO()
    table = pa.table(columns, schema=PICTURES_SCHEMA)
    parquet.write_table(table, buffer, compression="none", use_dictionary=["key"])
    write_whole(path, buffer.getvalue())


def read_pictures(path: Path) -> dict[str, KeptPicture]:
    """Read kept pictures, by key.

    Raises:
        DataError: If the file is missing or damaged.
    """
    way_out = f"score again: {BY_IMAGE_AGAIN}"
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        message = f"{path} is missing, though the scores name it; {way_out}"
        raise DataError(message) from error
    table = read_parquet_table(data, PICTURES_SCHEMA, str(path), way_out=way_out)
    return {row["key"]: KeptPicture(**row) for row in table.to_pylist()}


def _class_ious(pairs: LabelPairs) -> Iterator[tuple[int, float, int]]:
    """Label, IoU and union of each class that an image shows or in which it was found."""
    labels = np.unique(np.concatenate([pairs.truth, pairs.found]))
    for label in labels.tolist():
        true, found = pairs.truth == label, pairs.found == label
        hits = int(pairs.pixels[true & found].sum())
        union = int(pairs.pixels[true | found].sum())
        yield label, hits / union, union


def _wrong(pairs: LabelPairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    differ = pairs.truth != pairs.found
    return pairs.truth[differ], pairs.found[differ], pairs.pixels[differ]


def _small(
    key: str,
    image: UInt8[np.ndarray, "height width 3"],
    truth: Integer[np.ndarray, "height width"],
    prediction: Integer[np.ndarray, "height width"],
) -> KeptPicture:
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    buffer = io.BytesIO()
    picture = Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(np.intp)
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(np.intp)
    small = [
        encode_label_map(np.ascontiguousarray(each[np.ix_(rows, columns)]).astype(np.uint16))
        for each in (truth, prediction)
    ]
    return KeptPicture(key, buffer.getvalue(), *small)
