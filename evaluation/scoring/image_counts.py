"""Counts by image: how often each label met each other one in every image of a split.

Scores over a whole split say that cats are taken for dogs; these say in which images. A file of
them lies beside the scores, a row for each pair of labels in an image:

    key     string   name of the image
    truth   int32    true label, in scoring order
    found   int32    predicted label
    pixels  int32    counted pixels that have both
"""

# pyarrow comes without types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportArgumentType=false

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from pyarrow import parquet

from evaluation.scoring.metrics import LabelPairs
from storage.errors import DataError
from storage.files import write_whole
from storage.manifest_files import VERSION_FIELD, read_parquet_table

BY_IMAGE_AGAIN = "magicseg evaluate --run RUN --root BENCHMARK --by-image"
"""The command that makes what is missing beside older scores, or damaged."""

COUNTS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("truth", "found", "pixels")),
    ],
    metadata={VERSION_FIELD: b"1"},
)


@dataclass(frozen=True)
class ImageCounts:
    """How often labels met in the images of a split.

    Attributes:
        keys: Names of the images.
        image: Position of each pair's image among them.
        truth: True label of each pair.
        found: Predicted label.
        pixels: Counted pixels that have both.
    """

    keys: tuple[str, ...]
    image: Int64[np.ndarray, " pairs"]
    truth: Int64[np.ndarray, " pairs"]
    found: Int64[np.ndarray, " pairs"]
    pixels: Int64[np.ndarray, " pairs"]

    def matrix(self, num_classes: int) -> Int64[np.ndarray, "true predicted"]:
        """All images together: the confusion matrix."""
        counts = np.zeros((num_classes, num_classes), np.int64)
        np.add.at(counts, (self.truth, self.found), self.pixels)
        return counts

    def ious(self, num_classes: int) -> "ImageIous":
        """The IoU of every class in every image that shows it or in which it was found."""
        own = self.image * num_classes + self.truth
        other = self.image * num_classes + self.found
        places, index = np.unique(np.concatenate([own, other]), return_inverse=True)
        first, second = index[: len(own)], index[len(own) :]
        truth, found, hits = (np.zeros(len(places), np.int64) for _ in range(3))
        np.add.at(truth, first, self.pixels)
        np.add.at(found, second, self.pixels)
        same = self.truth == self.found
        np.add.at(hits, first[same], self.pixels[same])
        unions = truth + found - hits
        image, label = np.divmod(places, num_classes)
        return ImageIous(image, label, hits / unions, unions)


@dataclass(frozen=True)
class ImageIous:
    """IoUs of single images, a row for each class in an image.

    Attributes:
        image: Position of the image.
        label: The class.
        iou: In [0, 1].
        union: Pixels that have the class in the truth or in the prediction.
    """

    image: Int64[np.ndarray, " rows"]
    label: Int64[np.ndarray, " rows"]
    iou: Float64[np.ndarray, " rows"]
    union: Int64[np.ndarray, " rows"]


class CountedImages:
    """Collects what was counted, image by image."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._pairs: list[LabelPairs] = []

    def add(self, key: str, pairs: LabelPairs) -> None:
        """Add an image."""
        self._keys.append(key)
        self._pairs.append(pairs)

    def encode(self) -> bytes:
        """All of it as a Parquet file."""
        sizes = [len(each.pixels) for each in self._pairs]
        columns = {
            name: np.concatenate([np.empty(0, np.int64), *(getattr(p, name) for p in self._pairs)])
            for name in ("truth", "found", "pixels")
        }
        keys = np.repeat(np.arange(len(self._keys)), sizes)
        arrays = [
            pa.array(self._keys, pa.string()).take(pa.array(keys)),
            *(pa.array(column.astype(np.int32)) for column in columns.values()),
        ]
        buffer = io.BytesIO()
        table = pa.Table.from_arrays(arrays, schema=COUNTS_SCHEMA)
        # Pixels stay as they are: a reader trusts no file that claims more rows than it has bytes.
        compression = {"key": "zstd", "truth": "zstd", "found": "zstd", "pixels": "none"}
        packed = ["key", "truth", "found"]
        parquet.write_table(table, buffer, compression=compression, use_dictionary=packed)
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Write the file; it appears whole or not at all."""
        write_whole(path, self.encode())


def read_counts(path: Path, num_classes: int) -> ImageCounts:
    """Read the counts of a split.

    Args:
        path: The file beside the scores.
        num_classes: Labels are below it.

    Raises:
        DataError: If it is missing, damaged, or holds what cannot be.
    """
    way_out = f"score again: {BY_IMAGE_AGAIN}"
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        message = f"{path} is missing, though the scores name it; {way_out}"
        raise DataError(message) from error
    table = read_parquet_table(data, COUNTS_SCHEMA, str(path), way_out=way_out)
    encoded = table.column("key").combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # of no rows there are no chunks
        encoded = pa.array([], pa.dictionary(pa.int32(), pa.string()))
    image = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    keys = tuple(encoded.dictionary.to_pylist())
    truth, found, pixels = (
        table.column(name).to_numpy().astype(np.int64) for name in ("truth", "found", "pixels")
    )
    for labels in (truth, found):
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if wrong.size:
            message = f"{path} holds label {wrong[0]}, expected 0 to {num_classes - 1}; {way_out}"
            raise DataError(message)
    if (pixels <= 0).any():
        message = f"{path} holds a count of {pixels.min()} pixels, expected 1 or more; {way_out}"
        raise DataError(message)
    return ImageCounts(keys, image, truth, found, pixels)
