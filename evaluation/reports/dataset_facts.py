"""A dataset as the page shows it: counts, bars by stage and class, shards, and the recipe."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.reports.text_quality import TextQuality
from evaluation.reports.tiles import Tile
from evaluation.reports.yields import ClassYield, StageYield, Yields
from storage.card import count_others
from storage.store import Store
from storage.summaries import CommittedShard

_MAX_CLASSES = 40
_MAX_SHARDS_LISTED = 400


@dataclass(frozen=True)
class StageBar:
    """What a stage did, as a bar.

    Attributes:
        name: The stage.
        entered: Samples that reached it.
        passed: Samples that went on.
        passed_width: These, in percent of all planned samples.
        rejected_width: Samples that were not good enough, in percent.
        failed_width: Samples that a service did not deliver, in percent.
        why: The last two by reason.
    """

    name: str
    entered: int
    passed: int
    passed_width: float
    rejected_width: float
    failed_width: float
    why: str


@dataclass(frozen=True)
class ClassBar:
    """What became of the samples of a class, as a bar.

    Attributes:
        name: Display name.
        requested: Planned samples.
        written: Samples in the dataset.
        rejected: Samples that were not good enough.
        failed: Samples that a service did not deliver.
        why: The last two by reason.
    """

    name: str
    requested: int
    written: int
    rejected: int
    failed: int
    why: str


@dataclass(frozen=True)
class RecipeGroup:
    """A part of a dataset's specification.

    Attributes:
        title: Its name.
        fields: Names and values.
    """

    title: str
    fields: list[tuple[str, str]]


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset in numbers and words.

    Attributes:
        root: Where it is.
        yields: Where its planned samples went, counted from the manifests.
        texts: How good its texts are, writer by writer.
        recorded_requested: Planned samples by the commit records.
        recorded_written: Samples by the commit records.
        stages: A bar for each stage.
        classes: A bar for each class, lowest yield first.
        classes_note: Which classes are shown.
        others: Samples with an object that nobody asked for, by its class, most first.
        shards: The first shards.
        num_shards: All of them.
        num_bytes: Size of all tars.
        recipe: The specification in groups.
    """

    root: str
    yields: Yields
    texts: tuple[TextQuality, ...]
    recorded_requested: int
    recorded_written: int
    stages: list[StageBar]
    classes: list[ClassBar]
    classes_note: str
    others: dict[str, int]
    shards: list[CommittedShard]
    num_shards: int
    num_bytes: int
    recipe: list[RecipeGroup]

    @property
    def adds_up(self) -> bool:
        """Whether the counts of manifests and commit records agree."""
        y = self.yields
        whole = y.requested == y.written + y.rejected + y.failed
        recorded = (self.recorded_requested, self.recorded_written)
        return whole and recorded == (y.requested, y.written)

    @property
    def tiles(self) -> list[Tile]:
        """The numbers at the head of the page."""
        y = self.yields
        return [
            Tile(f"{y.written:,}", "quadruplets"),
            Tile(f"{100 * y.share:.1f} %", f"yield of {y.requested:,} planned"),
            Tile(f"{sum(c.written > 0 for c in y.classes):,}", f"classes of {len(y.classes):,}"),
            Tile(f"{self.num_shards:,}", f"shards, {_bytes(self.num_bytes)}"),
        ]


def describe_dataset(
    store: Store, yields: Yields, texts: tuple[TextQuality, ...] = ()
) -> DatasetFacts:
    """Count what a dataset holds, for the page.

    Args:
        store: The dataset.
        yields: Where its planned samples went.
        texts: How good its texts are, as far as they were measured.
    """
    shards, passed = store.shards(), store.specification.stages
    worst = sorted(yields.classes, key=lambda row: (row.share, row.name))
    note = "Lowest yield first. A sample of two classes counts for both."
    if len(worst) > _MAX_CLASSES:
        note = f"The {_MAX_CLASSES} of {len(worst):,} classes with the lowest yield. " + note
    return DatasetFacts(
        root=store.root,
        yields=yields,
        texts=texts,
        recorded_requested=sum(shard.commit.counts.requested for shard in shards),
        recorded_written=sum(shard.commit.counts.written for shard in shards),
        stages=[
            _stage_bar(each, yields.requested) for each in yields.stages if each.stage in passed
        ],
        classes=[_class_bar(row) for row in worst[:_MAX_CLASSES]],
        classes_note=note,
        others=count_others(store, store.status()),
        shards=shards[:_MAX_SHARDS_LISTED],
        num_shards=len(shards),
        num_bytes=sum(s.commit.object.size for s in shards if s.commit.object is not None),
        recipe=_recipe(store.spec),
    )


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _stage_bar(stage: StageYield, requested: int) -> StageBar:
    failed = sum(count for why, count in stage.dropped.items() if why.is_failure)
    rejected = stage.entered - stage.passed - failed
    scale = 100 / max(requested, 1)
    return StageBar(
        name=str(stage.stage),
        entered=stage.entered,
        passed=stage.passed,
        passed_width=round(stage.passed * scale, 2),
        rejected_width=round(rejected * scale, 2),
        failed_width=round(failed * scale, 2),
        why=_counted(stage.dropped),
    )


def _class_bar(row: ClassYield) -> ClassBar:
    return ClassBar(
        row.name, row.requested, row.written, row.rejected, row.failed, _counted(row.reasons)
    )


def _counted(reasons: Mapping[Any, int]) -> str:
    return ", ".join(f"{why} {count:,}" for why, count in reasons.items())


def _recipe(spec: Mapping[str, Any]) -> list[RecipeGroup]:
    """The spec in groups: one for the plain settings, one for each nested part."""
    plain = [(str(name), _plain(value)) for name, value in spec.items() if not _nested(value)]
    groups = [RecipeGroup("dataset", plain)] if plain else []
    for name, value in spec.items():
        if _nested(value):
            groups.append(RecipeGroup(str(name), list(_flattened(value))))
    return groups


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _flattened(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        path = f"{prefix}{name}"
        if _nested(item):
            yield from _flattened(item, f"{path}.")
        else:
            yield path, _plain(item)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "not set"
    return json.dumps(value, ensure_ascii=False)
