"""Where the planned samples went."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from evaluation.reports.yields import Yields, count_yields
from storage.errors import DataError
from storage.manifest import ManifestRow
from storage.records import Reason, Stage
from storage.store import Store


def row(key: int, status: str, classes: tuple[str, ...], *why: str) -> ManifestRow:
    stage, reason = why or ("", "")
    return ManifestRow(
        key=f"{key:016x}",
        shard="0123abcd-000000",
        index=key,
        seed=key,
        status=status,
        stage=stage,
        reason=reason,
        class_ids=tuple(range(len(classes))),
        class_names=classes,
    )


ROWS = [
    row(0, "written", ("cat",)),
    row(1, "written", ("cat", "bus")),
    row(2, "rejected", ("bus",), "detections", "class-not-found"),
    row(3, "rejected", ("cat", "bus"), "masks", "mask-too-small"),
    row(4, "failed", ("bus",), "prompts", "writer-failed"),
    row(5, "rejected", ("cat",), "detections", "class-not-found"),
]


def adds_up(yields: Yields) -> bool:
    parts = yields.written + yields.rejected + yields.failed
    return yields.requested == parts == yields.written + sum(n for _, _, n in yields.reasons)


def test_every_planned_sample_is_counted_once() -> None:
    yields = count_yields(ROWS)
    assert (yields.requested, yields.written, yields.rejected, yields.failed) == (6, 2, 3, 1)
    assert adds_up(yields)
    assert yields.share == pytest.approx(1 / 3)
    assert yields.reasons == [
        (Stage.PROMPTS, Reason.WRITER_FAILED, 1),
        (Stage.DETECTIONS, Reason.CLASS_NOT_FOUND, 2),
        (Stage.MASKS, Reason.MASK_TOO_SMALL, 1),
    ]


def test_what_leaves_a_stage_enters_the_next() -> None:
    stages = {each.stage: each for each in count_yields(ROWS).stages}
    assert (stages[Stage.PROMPTS].entered, stages[Stage.PROMPTS].passed) == (6, 5)
    assert (stages[Stage.PAIRS].entered, stages[Stage.PAIRS].passed) == (5, 5)
    assert (stages[Stage.DETECTIONS].entered, stages[Stage.DETECTIONS].passed) == (5, 3)
    assert (stages[Stage.MASKS].entered, stages[Stage.SHARDS].passed) == (3, 2)


def test_a_sample_of_two_classes_counts_for_both() -> None:
    bus, cat = count_yields(ROWS).classes
    assert (bus.name, bus.requested, bus.written, bus.rejected, bus.failed) == ("bus", 4, 1, 2, 1)
    assert (cat.name, cat.requested, cat.written, cat.rejected, cat.failed) == ("cat", 4, 2, 2, 0)
    assert cat.reasons == {Reason.CLASS_NOT_FOUND: 1, Reason.MASK_TOO_SMALL: 1}
    assert cat.share == 0.5


def test_nothing_planned_is_no_error() -> None:
    yields = count_yields([])
    assert yields.requested == 0
    assert yields.share == 1


def test_a_key_that_occurs_twice_is_refused() -> None:
    with pytest.raises(DataError, match="two manifest rows"):
        count_yields([ROWS[0], ROWS[0]])


def test_the_counts_of_a_dataset_agree_with_its_commit_records(
    make_dataset: Callable[..., Path],
) -> None:
    store = Store.open(make_dataset(shards=3, planned=8, dropped=3))
    shards = store.shards()
    yields = count_yields(chain.from_iterable(store.manifest(s.commit) for s in shards))
    assert adds_up(yields)
    assert yields.requested == sum(shard.commit.counts.requested for shard in shards) == 24
    assert yields.written == sum(shard.samples for shard in shards) == 15
