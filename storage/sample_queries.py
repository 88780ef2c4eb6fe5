"""Which samples are wanted, and what is known of them: the table of a dataset at one time."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field

from storage.corrections import Correction, content_digest
from storage.exclusions import Exclusion
from storage.marks import Marked
from storage.records import Record
from storage.sample_columns import MaskValues, SampleColumns
from storage.sample_parts import SamplePart

__all__ = ["SampleFacts", "SampleQuery"]

SampleMeasure = Literal["score", "iou", "area", "agreement", "objects"]
"""What samples can be measured by, see `SampleColumns`; ``agreement`` is that of noise learning, of
the samples that it has judged."""
SampleOrder = Literal["plan", "score", "iou", "area", "agreement", "objects"]

_MANY = 4000


class SampleQuery(Record, frozen=True):
    """Which samples are wanted; what is empty or None asks for nothing."""

    classes: tuple[int, ...] = Field(default=(), max_length=_MANY)
    """Classes that a sample has, all of them."""
    fates: tuple[str, ...] = Field(default=(), max_length=_MANY)
    """`WRITTEN`, `OPEN` or reasons, one of them."""
    least: dict[SampleMeasure, float] = Field(default_factory=dict[SampleMeasure, float])
    """Smallest values."""
    most: dict[SampleMeasure, float] = Field(default_factory=dict[SampleMeasure, float])
    """Largest values; a sample without a value is in no range."""
    words: str = Field(default="", max_length=_MANY)
    """Words of the text, all of them, in any case."""
    place: str = Field(default="", max_length=_MANY)
    """Beginning of a sample's key or of its shard's name; so a slice id, too."""
    excluded: bool | None = None
    """Whether it is left out."""
    flagged: bool | None = None
    """Whether it is flagged."""
    noted: bool | None = None
    """Whether there is a note about it."""
    order: SampleOrder = "plan"
    """What it is sorted by; samples without a value come last."""
    descending: bool = False
    """Whether the largest come first."""


@dataclass(frozen=True)
class SampleFacts:
    """What the table knows of a sample.

    Attributes:
        key: Sample key.
        shard: Name of its shard.
        fate: `WRITTEN`, `OPEN`, or why it was dropped.
        stage: Where it was dropped, or the last stage that an open one has passed.
        classes: Display names.
        measures: What it has of each measure.
        excluded: Why it is left out; empty if it is not.
        marked: Its flag and its note.
        version: Changes with the contents of its shard, and with its corrected masks.
    """

    key: str
    shard: str
    fate: str
    stage: str
    classes: list[str]
    measures: dict[SampleMeasure, float]
    excluded: str
    marked: Marked
    version: str


@dataclass(frozen=True)
class Said:
    """What people said of samples, at one time.

    Attributes:
        exclusions: The last word about each, by key.
        marks: Flags and notes that hold, by key.
        agreements: What noise learning measured last of each that it spoke of, in [0, 1], by key.
        corrections: Masks that were drawn anew, by key.
    """

    exclusions: Mapping[str, Exclusion] = field(default_factory=dict[str, Exclusion])
    marks: Mapping[str, Marked] = field(default_factory=dict[str, Marked])
    agreements: Mapping[str, float] = field(default_factory=dict[str, float])
    corrections: Mapping[str, Correction] = field(default_factory=dict[str, Correction])

    def why_excluded(self, key: str) -> str:
        """Why a sample is left out; empty if it is not."""
        line = self.exclusions.get(key)
        return line.why if line is not None and line.act == "exclude" else ""


@dataclass(frozen=True)
class Snapshot:
    """All samples of some shards; never changes.

    Attributes:
        parts: The shards.
    """

    parts: tuple[SamplePart, ...] = ()

    @cached_property
    def columns(self) -> SampleColumns:
        """The columns of all shards."""
        return SampleColumns.joined([part.columns for part in self.parts])

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where each sample is, by key."""
        return {key: row for row, key in enumerate(self.columns.keys)}

    @cached_property
    def written(self) -> frozenset[str]:
        """Keys of the samples in tars."""
        return frozenset[str]().union(*(part.written for part in self.parts))

    @cached_property
    def excludable(self) -> frozenset[str]:
        """Keys of the samples that can be left out: in tars, or perhaps later."""
        return frozenset[str]().union(*(part.excludable for part in self.parts))

    @cached_property
    def _ends(self) -> Int[np.ndarray, " parts"]:
        return np.cumsum([len(part.columns) for part in self.parts], dtype=np.int64)

    def part_of(self, row: int) -> SamplePart:
        """The shard of a row."""
        return self.parts[int(np.searchsorted(self._ends, row, side="right"))]

    def of_keys(self, keys: Iterator[str]) -> Bool[np.ndarray, " samples"]:
        """Which samples have one of these keys."""
        found = np.zeros(len(self.columns), dtype=bool)
        found[[self.rows[key] for key in keys if key in self.rows]] = True
        return found

    def at_place(self, place: str) -> Bool[np.ndarray, " samples"]:
        """Which samples are in shards whose names begin so, or have keys that do."""
        parts = np.array([part.shard.startswith(place) for part in self.parts], dtype=bool)
        found = np.repeat(parts, [len(part.columns) for part in self.parts])
        if not found.any():
            found = np.array([key.startswith(place) for key in self.columns.keys], dtype=bool)
        return found


@dataclass(frozen=True)
class SampleView:
    """Samples, and what was said of them, at one time; never changes.

    Attributes:
        samples: The samples.
        said: What was said.
    """

    samples: Snapshot = field(default_factory=Snapshot)
    said: Said = field(default_factory=Said)

    @cached_property
    def columns(self) -> SampleColumns:
        """The columns of all samples, with what corrected masks change of them."""
        rows, written = self.samples.rows, self.samples.written
        drawn = {key: line for key, line in self.said.corrections.items() if key in written}
        return self.samples.columns.replaced({rows[k]: _values(each) for k, each in drawn.items()})

    @cached_property
    def measures(self) -> dict[SampleMeasure, Float[np.ndarray, " samples"]]:
        """What samples can be measured by; NaN where one has no value."""
        columns, rows = self.columns, self.samples.rows
        agreement = np.full(len(columns), np.nan)
        for key, value in self.said.agreements.items():
            if key in rows:
                agreement[rows[key]] = value
        return {
            "score": columns.score,
            "iou": columns.iou,
            "area": columns.area,
            "agreement": agreement,
            "objects": columns.objects.astype(np.float64),
        }

    def chosen(self, query: SampleQuery) -> Bool[np.ndarray, " samples"]:
        """Which samples are wanted, the words of their texts left aside."""
        columns = self.columns
        chosen = self._in_ranges(query) & self._spoken_of(query)
        for class_id in query.classes:
            chosen &= columns.has_class(class_id)
        if query.fates:
            chosen &= columns.fates.among(query.fates)
        if place := query.place.strip():
            chosen &= self.samples.at_place(place)
        return chosen

    def ordered(
        self, chosen: Bool[np.ndarray, " samples"], query: SampleQuery
    ) -> Int[np.ndarray, " found"]:
        """The rows of the chosen samples in the wanted order."""
        found = np.flatnonzero(chosen)
        if query.order == "plan":
            return found[::-1] if query.descending else found
        own = self.measures[query.order][found]
        # NaN is sorted behind all numbers, whatever their sign
        return found[np.argsort(-own if query.descending else own, kind="stable")]

    def facts(self, row: int) -> SampleFacts:
        """What is known of a sample."""
        columns = self.columns
        part, key = self.samples.part_of(row), columns.keys[row]
        correction = self.said.corrections.get(key)
        values: dict[SampleMeasure, float] = {
            name: float(column[row])
            for name, column in self.measures.items()
            if not np.isnan(column[row])
        }
        return SampleFacts(
            key=key,
            shard=part.shard,
            fate=columns.fates.of_row(row),
            stage=columns.stages.of_row(row),
            classes=[columns.names[number] for number in columns.classes_of(row)],
            measures=values,
            excluded=self.said.why_excluded(key),
            marked=self.said.marks.get(key, Marked()),
            version=content_digest(part.version, (), [correction] if correction else [])[:16],
        )

    def is_flagged(self, key: str) -> bool:
        """Whether a sample is flagged."""
        return key in self.said.marks and self.said.marks[key].flagged

    def _in_ranges(self, query: SampleQuery) -> Bool[np.ndarray, " samples"]:
        chosen = np.ones(len(self.columns), dtype=bool)
        for name, value in query.least.items():
            chosen &= self.measures[name] >= value
        for name, value in query.most.items():
            chosen &= self.measures[name] <= value
        return chosen

    def _spoken_of(self, query: SampleQuery) -> Bool[np.ndarray, " samples"]:
        said, marks = self.said, self.said.marks
        wanted = (
            (query.excluded, (key for key in said.exclusions if said.why_excluded(key))),
            (query.flagged, (key for key, each in marks.items() if each.flagged)),
            (query.noted, (key for key, each in marks.items() if each.note)),
        )
        chosen = np.ones(len(self.columns), dtype=bool)
        for asked, keys in wanted:
            if asked is not None:
                chosen &= self.samples.of_keys(keys) == asked
        return chosen


@dataclass(frozen=True)
class FoundSamples:
    """The samples that a question found, in its order, as they were then; never changes.

    Attributes:
        view: What was known of all samples.
        rows: Which of them.
        name: Tells it from all others, those of other processes included.
    """

    view: SampleView
    rows: Int[np.ndarray, " found"]
    name: str = field(default_factory=lambda: secrets.token_hex(8))

    def __len__(self) -> int:
        return len(self.rows)

    def facts(self, start: int, count: int) -> list[SampleFacts]:
        """What is known of some of them; fewer at their end.

        Args:
            start: How many are passed over.
            count: How many are given, at most.
        """
        return [self.view.facts(row) for row in self.rows[start : start + count].tolist()]


def _values(correction: Correction) -> MaskValues:
    return MaskValues(
        area=sum(correction.areas.values()) / (correction.width * correction.height),
        objects=len(correction.objects),
        classes=dict(zip(correction.class_ids, correction.class_names, strict=True)),
    )
