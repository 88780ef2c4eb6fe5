"""Open Images V7: single points with answers, from the official files.

    oidv7-<split>-annotations-point-labels.csv    ImageId,X,Y,Label,EstimatedYesNo and more
    oidv7-class-descriptions.csv                  LabelName,DisplayName
    validation/<ImageId>.jpg                      or train/, test/

The folder that FiftyOne makes of the same files is read too: `validation/labels/points.csv`,
`validation/metadata/point_classes.csv` and `validation/data/<ImageId>.jpg`.

A row is one answer: is the point (X, Y), relative to the image with the origin at the top left, on
the class `Label`? The answer `unsure` and rows without a label (questions in free text) are left
out and counted. Images are turned by their EXIF data, as all photographs are; whether the points of
the images that Open Images lists as rotated refer to the stored or to the turned image is not
documented.

Tables may have gone through a spreadsheet: other delimiters, decimal commas, UTF-16, a byte order
mark, columns in another order.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from jaxtyping import Bool, Float64, Int8, Int32, Int64, UInt8

from evaluation.benchmarks.near_misses import files_hint, is_file, root_hint
from evaluation.benchmarks.split_files import (
    coverage_words,
    describe_files,
    picture_file,
    read_image,
    read_text,
    require_files,
    spread,
)
from evaluation.benchmarks.table_forms import table_form
from storage.class_sets import BenchmarkClasses
from storage.errors import DataError, InputError
from storage.texts import split_lines
from storage.vocabulary import load_vocabulary

_VOCABULARY = "lvis1205"
_SERVER = "https://storage.googleapis.com/openimages/v7"
_BUCKET = "s3://open-images-dataset"
_FOLDERS = {"train": "train", "val": "validation", "test": "test"}
_NAMES = "oidv7-class-descriptions.csv"
_ANSWERS = {"yes": 1, "no": 0, "unsure": -1}
_TEXT = pa.dictionary(pa.int32(), pa.string())
_COLUMNS = {
    "ImageId": _TEXT,
    "X": pa.float64(),
    "Y": pa.float64(),
    "Label": _TEXT,
    "EstimatedYesNo": _TEXT,
}
_PUBLISHED_SIZES = range(36_000, 37_000)
_BLOCK_BYTES = 1 << 24
_HEAD_BYTES = 1 << 16
_MOST_NAMED, _LONGEST_SHOWN = 12, 100
_NAME_COLUMNS = ("LabelName", "DisplayName")


@dataclass(frozen=True)
class Answers:
    """The rows of a point file, images one after another.

    Takes 25 bytes a row and, while the file is read, up to 90: 4 million rows took 0.4 GB at the
    peak, the 66 million of all splits together would take some 6 GB.

    Attributes:
        images: Names of the images, in the order in which the file first names them.
        labels: Names of the classes, likewise.
        image: Image of each row, ascending.
        label: Class of each row; -1 where the question was free text.
        answer: 1 yes, 0 no, -1 unsure.
        x: From the left edge, as a share of the width.
        y: From the upper edge, as a share of the height.
    """

    images: tuple[str, ...]
    labels: tuple[str, ...]
    image: Int32[np.ndarray, " rows"]
    label: Int32[np.ndarray, " rows"]
    answer: Int8[np.ndarray, " rows"]
    x: Float64[np.ndarray, " rows"]
    y: Float64[np.ndarray, " rows"]

    @cached_property
    def counted(self) -> Bool[np.ndarray, " rows"]:
        """Whether a row is a yes or a no about a class."""
        return (self.answer >= 0) & (self.label >= 0)


@dataclass(frozen=True)
class PointSample:
    """One image and the answers at its points.

    Attributes:
        key: Name of the image.
        image: RGB.
        class_ids: Class of each point, as a position in the class set's names.
        rows: Pixel row of each point.
        columns: Pixel column of each point.
        is_yes: Whether the point is on the class.
        num_unsure: Answers left out because people were unsure.
        num_unnamed: Answers left out because they are about no class.
    """

    key: str
    image: UInt8[np.ndarray, "height width 3"]
    class_ids: Int32[np.ndarray, " points"]
    rows: Int64[np.ndarray, " points"]
    columns: Int64[np.ndarray, " points"]
    is_yes: Bool[np.ndarray, " points"]
    num_unsure: int
    num_unnamed: int


class OpenImages:
    """The points of one split and their images.

    The class set is the classes with a yes or a no in the split, whatever the limit.

    Args:
        root: Folder of the files.
        split: train, val or test.
        limit: Use only this many images, evenly spread; all when None.
        available: Use the images that are there, of a split that is not whole.

    Raises:
        InputError: If the split is unknown or a table is missing.
    """

    def __init__(
        self, root: Path, split: str, limit: int | None, *, available: bool = False
    ) -> None:
        if split not in _FOLDERS:
            message = f"split {split} does not exist, expected one of {', '.join(_FOLDERS)}"
            raise InputError(message)
        self.split = split
        self._limit = limit
        self._available = available
        self._files = _files(root, split)
        missing = [path for path in (self._files.answers, self._files.names) if not path.is_file()]
        if missing:
            wanted = [str(path.relative_to(root)) for path in missing]
            way_out = root_hint(root, wanted) or files_hint(missing) or self._files.where_to_get
            message = f"{', '.join(map(str, missing))} missing; {way_out}"
            raise InputError(message)

    @cached_property
    def classes(self) -> BenchmarkClasses:
        """What is scored; names may repeat, since Open Images knows classes by their labels.

        Raises:
            DataError: If a table is damaged or a label has no name.
        """
        names = _read_names(self._files.names)
        unnamed = [label for label in self.labels if label not in names]
        if unnamed:
            message = (
                f"{self._files.names} has no name for {len(unnamed)} labels, such as {unnamed[0]}: "
                f"fetch it again from {_SERVER}/{_NAMES}"
            )
            raise DataError(message)
        shown = tuple(names[label] for label in self.labels)
        return BenchmarkClasses(
            name="open_images",
            names=shown,
            phrases=tuple((name,) for name in shown),
            vocabulary=_VOCABULARY,
            class_ids=_in_vocabulary(shown),
            background=False,
        )

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label (`/m/...`) of each class, ascending."""
        answers = self._answers
        return tuple(sorted(answers.labels[i] for i in np.unique(answers.label[answers.counted])))

    @property
    def published_as(self) -> str:
        """Its name in the tables of published results, for all images of the split `val`.

        The split is known by its name and its size: MagicSeg (arXiv 2603.19575) speaks of about 36k
        images, others of 36,702. How points became the published numbers is not said; see
        `evaluation.scoring.points`.
        """
        whole = self.split == "val" and len(self) in _PUBLISHED_SIZES and not self.coverage
        return "OpenImages-V7" if whole else ""

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[PointSample]:
        """Read the images that have a yes or a no, in the order of the point file.

        Raises:
            InputError: If a file is missing.
            DataError: If a file cannot be decoded.
        """
        for key in self.keys:
            yield self.sample(key)

    @property
    def keys(self) -> list[str]:
        """Names of the images, in the order of the point file."""
        return [self._answers.images[index] for index in self._chosen]

    def sample(self, key: str) -> PointSample:
        """Read one image; raises as reading all of them does."""
        index = self._numbers[key]
        first, last = np.searchsorted(self._answers.image, [index, index + 1])
        return self._sample(slice(int(first), int(last)), self._places)

    @property
    def coverage(self) -> str:
        """How many of the images are there, if some are not and that was asked for."""
        if not self._available:
            return ""
        return coverage_words(len(self._there), len(self._counted_images))

    def missing_files(self) -> list[Path]:
        """The images of the split that are not there."""
        return [path for path in map(self._image, self.keys) if not is_file(path)]

    def contents(self) -> str:
        """Digest of the names and sizes of the split's files."""
        files = (self._files.answers, self._files.names, *map(self._image, self.keys))
        return describe_files(self.keys, files)

    def check(self) -> None:
        """Refuse a split that is not whole.

        Raises:
            InputError: Naming the first missing images, their number and where to get them.
        """
        require_files(self.missing_files(), self.split, self._files.where_to_get)

    @cached_property
    def _answers(self) -> Answers:
        return read_answers(self._files.answers)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The number of each image in the point file."""
        return {self._answers.images[index]: index for index in self._counted_images}

    @cached_property
    def _places(self) -> Int32[np.ndarray, " labels"]:
        """The position in the class set of each label of the point file; -1 if it is none."""
        known = {label: index for index, label in enumerate(self.labels)}
        found = [known.get(label, -1) for label in self._answers.labels]
        return np.array(found, dtype=np.int32)

    @cached_property
    def _counted_images(self) -> list[int]:
        """The images with a yes or a no."""
        answers = self._answers
        images = np.unique(answers.image[answers.counted]).tolist()
        if not images:
            message = (
                f"{self._files.answers} holds no yes and no no about a class, expected points to "
                f"score: fetch it again from {_SERVER}"
            )
            raise DataError(message)
        return images

    @cached_property
    def _there(self) -> list[int]:
        """Those of them whose files are there."""
        names = self._answers.images
        return [index for index in self._counted_images if is_file(self._image(names[index]))]

    @cached_property
    def _chosen(self) -> list[int]:
        """The images that are scored."""
        found = (self._there if self._available else None) or self._counted_images
        return spread(found, self._limit)

    def _image(self, key: str) -> Path:
        return picture_file(self._files.images, key)

    def _sample(self, rows: slice, place: Int32[np.ndarray, " labels"]) -> PointSample:
        answers = self._answers
        key = answers.images[int(answers.image[rows.start])]
        pixels = read_image(self._image(key), self._files.where_to_get)
        answer, label = answers.answer[rows], answers.label[rows]
        counted = (answer >= 0) & (label >= 0)
        height, width = pixels.shape[:2]
        return PointSample(
            key=key,
            image=pixels,
            class_ids=place[label[counted]],
            rows=np.minimum((answers.y[rows][counted] * height).astype(np.int64), height - 1),
            columns=np.minimum((answers.x[rows][counted] * width).astype(np.int64), width - 1),
            is_yes=answer[counted] == 1,
            num_unsure=int((answer < 0).sum()),
            num_unnamed=int(((answer >= 0) & (label < 0)).sum()),
        )


def read_answers(path: Path) -> Answers:
    """Read a point file in blocks; only the columns that count are parsed.

    Args:
        path: The official file, or one with the same columns among others.

    Raises:
        DataError: If it is not such a table, or holds a point outside the image or an answer other
            than yes, no and unsure.
    """
    images, labels = _Names(), _Names()
    # So that a file without rows has columns too.
    blocks = [tuple(np.empty(0, kind) for kind in ("int32", "int32", "int8", "f8", "f8"))]
    try:
        with _reader(path) as reader:
            blocks.extend(_block(batch, images, labels, path) for batch in reader)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"{path} is not a table of points ({reason}): fetch it again from {_SERVER}"
        raise DataError(message) from error
    image, label, answer, x, y = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    if (image[1:] < image[:-1]).any():
        order = np.argsort(image, kind="stable")
        image, label, answer, x, y = (part[order] for part in (image, label, answer, x, y))
    return Answers(tuple(images.known), tuple(labels.known), image, label, answer, x, y)


def _reader(path: Path) -> pacsv.CSVStreamingReader:
    """Open a point file in the form in which it was saved.

    Raises:
        DataError: If it lacks a column.
        OSError: If it cannot be read, as the errors of Arrow if it is no table.
    """
    with path.open("rb") as file:
        form = table_form(file.read(_HEAD_BYTES), tuple(_COLUMNS), ("X", "Y"))
    if lacking := [name for name in _COLUMNS if name not in form.columns]:
        has = ", ".join(form.columns[:_MOST_NAMED]) or "nothing"
        message = (
            f"{path} is not a table of points (it has {has}, and lacks {', '.join(lacking)}): give "
            f"the point labels of {_SERVER}"
        )
        raise DataError(message)
    return pacsv.open_csv(
        path,
        read_options=pacsv.ReadOptions(
            block_size=_BLOCK_BYTES,
            encoding=form.encoding,
            column_names=[*form.columns],
            skip_rows=form.num_lines,
        ),
        parse_options=pacsv.ParseOptions(delimiter=form.delimiter),
        convert_options=pacsv.ConvertOptions(
            column_types=_COLUMNS,
            include_columns=list(_COLUMNS),
            decimal_point=form.decimal_point,
        ),
    )


@dataclass(frozen=True)
class _Files:
    """Where the files of a split lie."""

    answers: Path
    names: Path
    images: Path
    where_to_get: str


def _files(root: Path, split: str) -> _Files:
    folder = root / _FOLDERS[split]
    answers = f"oidv7-{split}-annotations-point-labels.csv"
    where_to_get = (
        f"fetch {_SERVER}/{answers} and {_SERVER}/{_NAMES} into {root}, and the images "
        f"{_BUCKET}/{_FOLDERS[split]}/<ImageId>.jpg into {folder}"
    )
    if (folder / "labels" / "points.csv").is_file():
        return _Files(
            answers=folder / "labels" / "points.csv",
            names=folder / "metadata" / "point_classes.csv",
            images=folder / "data",
            where_to_get=where_to_get,
        )
    return _Files(root / answers, root / _NAMES, folder, where_to_get)


class _Names:
    """Numbers names in the order in which they come."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def number(self, column: pa.DictionaryArray) -> Int32[np.ndarray, " rows"]:
        """The number of each row's name; -1 for an empty one."""
        numbers = [
            self.known.setdefault(name, len(self.known)) if name else -1
            for name in column.dictionary.to_pylist()
        ]
        return np.array(numbers, dtype=np.int32)[column.indices.to_numpy()]


def _block(
    batch: pa.RecordBatch, images: _Names, labels: _Names, path: Path
) -> tuple[np.ndarray, ...]:
    """Image, label, answer, x and y of some rows."""
    x, y = batch.column("X").to_numpy(False), batch.column("Y").to_numpy(False)
    outside = ~((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1))
    if outside.any():
        row = int(outside.argmax())
        message = (
            f"{path} has a point of image {batch.column('ImageId')[row]} at ({x[row]}, {y[row]}), "
            f"expected shares of width and height in [0, 1]: fetch it again from {_SERVER}"
        )
        raise DataError(message)
    said = batch.column("EstimatedYesNo")
    unknown = [text for text in said.dictionary.to_pylist() if text not in _ANSWERS]
    if unknown:
        message = (
            f"{path} holds the answer {unknown[0]!r}, expected one of {', '.join(_ANSWERS)}: fetch "
            f"it again from {_SERVER}"
        )
        raise DataError(message)
    values = np.array([_ANSWERS[text] for text in said.dictionary.to_pylist()], dtype=np.int8)
    answer = values[said.indices.to_numpy()]
    image = images.number(batch.column("ImageId"))
    return image, labels.number(batch.column("Label")), answer, x, y


def _read_names(path: Path) -> dict[str, str]:
    """The name of each label."""
    text = read_text(path, f"fetch it from {_SERVER}/{_NAMES}", "a table of class names")
    form = table_form(text.encode(), _NAME_COLUMNS)
    lines = split_lines(text)
    if not set(_NAME_COLUMNS) <= set(form.columns):
        found = next((line for line in lines if line.strip()), "nothing")
        message = (
            f"{path} starts with {found[:_LONGEST_SHOWN]}, expected LabelName,DisplayName: fetch "
            f"it again from {_SERVER}/{_NAMES}"
        )
        raise DataError(message)
    label, name = map(form.columns.index, _NAME_COLUMNS)
    try:
        rows = list(csv.reader(lines[form.num_lines :], delimiter=form.delimiter))
    except csv.Error as error:
        message = f"{path} is no table of class names ({error}): fetch it again from {_SERVER}"
        raise DataError(message) from error
    whole = [row for row in rows if len(row) > max(label, name)]
    return {row[label]: row[name] for row in whole if row[name]}


def _in_vocabulary(names: tuple[str, ...]) -> tuple[int | None, ...]:
    """For each name the one class that a text calls by it, if there is one."""
    owners: dict[str, set[int]] = {}
    for record in load_vocabulary(_VOCABULARY):
        for form in record.forms:
            owners.setdefault(form.casefold(), set()).add(record.class_id)
    found = (owners.get(name.casefold(), set()) for name in names)
    return tuple(next(iter(ids)) if len(ids) == 1 else None for ids in found)
