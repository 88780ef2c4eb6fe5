"""Columns of manifests as arrays: what filters and orders of many samples are made of.

Of a manifest only the columns that are asked for are read: numbers, classes and reasons at once,
texts when words are looked for, and whole rows of single samples.
"""

# pyarrow comes without types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportAttributeAccessIssue=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from storage.errors import DataError
from storage.manifest import read_manifest_columns
from storage.manifest_files import readable

_NUMBERS = (
    *("key", "index", "status", "stage", "reason", "class_ids", "class_names", "width", "height"),
    *("mask_areas", "instance_scores", "instance_ious"),
)
WRITTEN = "written"
"""The fate of a sample that is in a tar; of others it is the reason why they were dropped."""
OPEN = "not packed yet"
"""The fate of a sample whose shard is not packed yet, if it was not dropped so far."""


@dataclass(frozen=True)
class SampleColumns:
    """The samples of some shards, one after the other.

    Attributes:
        keys: Sample keys.
        index: Position in the slice.
        fates: `WRITTEN`, `OPEN`, or why it was dropped.
        stages: Where it was dropped, or the last stage that an open one has passed; empty if it was
            written.
        score: Lowest detector's score of its objects in [0, 1]; NaN where there are none.
        iou: Lowest of the segmenter's own estimates; NaN where there are none.
        area: Share of the picture's pixels that are labelled, in [0, 1]; NaN without a label map.
        objects: How many objects it has.
        class_ids: Classes of all samples, one after the other.
        class_ends: Where those of each sample end.
        names: Display names of the classes.
    """

    keys: list[str]
    index: Int[np.ndarray, " samples"]
    fates: "Codes"
    stages: "Codes"
    score: Float[np.ndarray, " samples"]
    iou: Float[np.ndarray, " samples"]
    area: Float[np.ndarray, " samples"]
    objects: Int[np.ndarray, " samples"]
    class_ids: Int[np.ndarray, " classes"]
    class_ends: Int[np.ndarray, " samples"]
    names: dict[int, str]

    @classmethod
    def read(cls, data: bytes, name: str) -> "SampleColumns":
        """Read the columns of one manifest.

        Raises:
            DataError: It is damaged.
        """
        table = read_manifest_columns(data, list(_NUMBERS), name=name)
        with readable(name):
            return cls._of(table, name)

    @classmethod
    def _of(cls, table: pa.Table, name: str) -> "SampleColumns":
        width, height = (_numbers(table[side], np.float64) for side in ("width", "height"))
        labelled = _per_row(table["mask_areas"], np.add)
        pixels = width * height
        with np.errstate(divide="ignore", invalid="ignore"):
            area = np.where(pixels > 0, labelled / pixels, np.nan)
        ids, ends = _lists(table["class_ids"])
        codes, name_ends = _lists(table["class_names"])
        if not np.array_equal(ends, name_ends):
            message = f"{name} has other numbers of classes than of their names; verify the dataset"
            raise DataError(message)
        return cls(
            keys=table["key"].to_pylist(),
            index=_numbers(table["index"], np.int64),
            fates=_fates(table),
            stages=Codes.of(table["stage"]),
            score=_per_row(table["instance_scores"], np.minimum),
            iou=_per_row(table["instance_ious"], np.minimum),
            area=area,
            objects=_lengths(table["instance_scores"]),
            class_ids=ids,
            class_ends=ends,
            names=_names(table["class_names"], ids, codes),
        )

    @classmethod
    def joined(cls, parts: Sequence["SampleColumns"]) -> "SampleColumns":
        """Put the samples of several shards one after the other."""
        starts = np.cumsum([0, *(len(part.class_ids) for part in parts)])
        return cls(
            keys=[key for part in parts for key in part.keys],
            index=_joined([part.index for part in parts], np.int64),
            fates=Codes.joined([part.fates for part in parts]),
            stages=Codes.joined([part.stages for part in parts]),
            score=_joined([part.score for part in parts], np.float64),
            iou=_joined([part.iou for part in parts], np.float64),
            area=_joined([part.area for part in parts], np.float64),
            objects=_joined([part.objects for part in parts], np.int64),
            class_ids=_joined([part.class_ids for part in parts], np.int64),
            class_ends=_joined(
                [part.class_ends + start for part, start in zip(parts, starts, strict=False)],
                np.int64,
            ),
            names={number: name for part in parts for number, name in part.names.items()},
        )

    def replaced(self, values: Mapping[int, "MaskValues"]) -> "SampleColumns":
        """The same samples, some of them with other masks.

        Args:
            values: What is known of their masks, by row.
        """
        if not values:
            return self
        rows = sorted(values)
        own = [values[row] for row in rows]
        score, iou, area = self.score.copy(), self.iou.copy(), self.area.copy()
        objects, counts = self.objects.copy(), np.diff(self.class_ends, prepend=0)
        score[rows], iou[rows] = 1.0, 1.0  # a person's word
        area[rows], objects[rows] = [each.area for each in own], [each.objects for each in own]
        pieces, end = list[Any](), 0
        for row, each in zip(rows, own, strict=True):
            pieces += [self.class_ids[end : self.class_ends[row] - counts[row]], [*each.classes]]
            end = self.class_ends[row]
        counts[rows] = [len(each.classes) for each in own]
        return replace(
            self,
            score=score,
            iou=iou,
            area=area,
            objects=objects,
            class_ids=_joined([*pieces, self.class_ids[end:]], np.int64),
            class_ends=np.cumsum(counts, dtype=np.int64),
            names=self.names | {k: name for each in own for k, name in each.classes.items()},
        )

    def __len__(self) -> int:
        return len(self.keys)

    def has_class(self, class_id: int) -> Bool[np.ndarray, " samples"]:
        """Which samples have a class."""
        found = np.zeros(len(self), dtype=bool)
        places = np.flatnonzero(self.class_ids == class_id)
        found[np.searchsorted(self.class_ends, places, side="right")] = True
        return found

    def classes_of(self, row: int) -> list[int]:
        """The classes of a sample, in their order."""
        start = self.class_ends[row - 1] if row else 0
        return self.class_ids[start : self.class_ends[row]].tolist()


@dataclass(frozen=True)
class MaskValues:
    """What is known of the masks that somebody drew for a sample.

    Attributes:
        area: Share of the picture's pixels that are labelled, in [0, 1].
        objects: How many objects it has.
        classes: Display names of its classes, by id.
    """

    area: float
    objects: int
    classes: Mapping[int, str]


@dataclass(frozen=True)
class Codes:
    """Words that come again and again, each written once.

    Attributes:
        words: The words.
        codes: Place of each sample's word among them.
    """

    words: tuple[str, ...]
    codes: Int[np.ndarray, " samples"]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "Codes":
        """The words of a column of texts."""
        array = _dictionary(column)
        words = tuple(str(word) for word in array.dictionary.to_pylist())
        return cls(words, _values(array.indices).astype(np.int64))

    @classmethod
    def joined(cls, parts: Sequence["Codes"]) -> "Codes":
        """The words of several columns, one after the other."""
        words = tuple(dict.fromkeys(word for part in parts for word in part.words))
        place = {word: number for number, word in enumerate(words)}
        moved = [
            np.array([place[word] for word in part.words], np.int64)[part.codes] for part in parts
        ]
        return cls(words, _joined(moved, np.int64))

    def of_row(self, row: int) -> str:
        """The word of a sample."""
        return self.words[self.codes[row]]

    def among(self, words: Sequence[str]) -> Bool[np.ndarray, " samples"]:
        """Which samples have one of these words."""
        wanted = [number for number, word in enumerate(self.words) if word in set(words)]
        return np.isin(self.codes, wanted)

    def counts(self) -> dict[str, int]:
        """How many samples have each word; words that none has are left out."""
        numbers = np.bincount(self.codes, minlength=len(self.words)).tolist()
        return {word: n for word, n in zip(self.words, numbers, strict=True) if n}


class TextColumn:
    """The texts of a manifest's samples, to look for words in.

    Args:
        data: The manifest.
        name: What messages call it.

    Raises:
        DataError: It is damaged.
    """

    def __init__(self, data: bytes, name: str) -> None:
        table = read_manifest_columns(data, ["text"], name=name)
        with readable(name):
            self._texts = _dictionary(table["text"])
            self._texts.dictionary.validate(full=True)  # whose texts are not looked at one by one

    def has(self, words: Sequence[str]) -> Bool[np.ndarray, " samples"]:
        """Which texts have all of these words, in any case, also as parts of longer ones."""
        texts = self._texts.dictionary
        found = np.ones(len(texts), dtype=bool)
        for word in words:
            match: Any = pc.match_substring(texts, word, ignore_case=True)
            found &= _values(match)
        return found[_values(self._texts.indices)]


def _fates(table: pa.Table) -> Codes:
    """Reasons, with a word of their own for samples that were written."""
    status, reasons = Codes.of(table["status"]), Codes.of(table["reason"])
    words = (*reasons.words, WRITTEN)
    written = status.among([WRITTEN])
    return Codes(words, np.where(written, len(words) - 1, reasons.codes))


def _dictionary(column: pa.ChunkedArray) -> Any:
    whole: Any = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # one without chunks
        whole = pa.concat_arrays(whole.chunks) if whole.chunks else pa.array([], pa.string())
    return whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()


def _values(array: Any) -> Any:
    """Numbers or truths of an array without nulls; `to_numpy` of pyarrow would import pandas."""
    _, values = array.buffers()
    first, last = array.offset, array.offset + len(array)
    if values is None:
        return np.zeros(len(array), array.type.to_pandas_dtype())
    if pa.types.is_boolean(array.type):
        bits = np.unpackbits(np.frombuffer(values, np.uint8), bitorder="little")
        return bits[first:last].astype(bool)
    return np.frombuffer(values, array.type.to_pandas_dtype(), last)[first:]


def _numbers(column: pa.ChunkedArray, kind: type[np.generic]) -> Any:
    return _joined([_values(chunk) for chunk in column.chunks], kind)


def _lists(column: pa.ChunkedArray) -> tuple[Any, Any]:
    """Values of all lists, dictionary's places for texts, and where each list ends."""
    values: Any = [_flat(chunk) for chunk in column.chunks]
    return _joined(values, np.int64), np.cumsum(_lengths(column))


def _flat(chunk: Any) -> Any:
    flat = chunk.flatten()
    flat = flat.indices if pa.types.is_dictionary(flat.type) else flat
    return _values(flat)


def _lengths(column: pa.ChunkedArray) -> Any:
    return _joined([np.diff(_values(chunk.offsets)) for chunk in column.chunks], np.int64)


def _per_row(column: pa.ChunkedArray, how: np.ufunc) -> Any:
    """Reduce each list to a number; NaN where it is empty."""
    lengths = _lengths(column)
    found = np.full(len(lengths), np.nan)
    values = _joined([_flat(chunk) for chunk in column.chunks], np.float64)
    if len(values):
        starts = (np.cumsum(lengths) - lengths)[lengths > 0]
        found[lengths > 0] = how.reduceat(values, starts)
    return found


def _names(column: pa.ChunkedArray, ids: Any, codes: Any) -> dict[int, str]:
    """Names of the classes, from lists beside those of their numbers.

    A manifest is one group of rows: pyarrow reads lists of dictionaries in one piece alone.
    """
    if not len(ids):
        return {}
    flat: Any = column.chunk(0).flatten()
    words = flat.dictionary.to_pylist()
    numbers, first = np.unique(ids, return_index=True)
    return {int(number): words[code] for number, code in zip(numbers, codes[first], strict=True)}


def _joined(parts: Sequence[Any], kind: type[np.generic]) -> Any:
    return np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)
