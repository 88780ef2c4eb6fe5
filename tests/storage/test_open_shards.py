"""Samples of shards that are not packed yet: found, looked at, and told from packed ones."""

import pytest

from explorable import add_open, add_shard, draw, drop, explorable, key_of
from models.miniature import world
from storage.records import Reason, Rejected, Stage
from storage.sample_columns import OPEN
from storage.sample_queries import SampleQuery
from storage.sample_table import SampleTable
from storage.store import Store
from storage.stored_samples import SampleReader


@pytest.fixture
def store(root):
    store = explorable(root)
    add_shard(store, 0, [draw(place) for place in range(6)], drop(6, 7))
    return store


def rejected(index, stage, reason):
    return Rejected(key=key_of(index), stage=stage, reason=reason, detail="0.01 < 0.02")


def table_of(store):
    table = SampleTable(store)
    table.refresh()
    return table


def keys(table, **query):
    return [int(each.key[8:]) for each in table.find(SampleQuery(**query), 0, 100)[1]]


def read(store, table, index):
    key = key_of(index)
    return SampleReader(store).read(table.part(key), table.row(key))


SOME = [draw(each, score=each / 100) for each in range(8, 18)]


@pytest.mark.parametrize(
    ("last", "measures"),
    [
        (Stage.PROMPTS, {"objects": 0.0}),
        (Stage.PAIRS, {"objects": 0.0}),
        (Stage.DETECTIONS, {"objects": 1.0, "score": 0.09}),
        (Stage.MASKS, {"objects": 1.0, "score": 0.09, "iou": 0.9}),
    ],
)
def test_samples_are_known_as_far_as_the_stages_are_there(store, last, measures):
    add_open(store, SOME, last)
    table = table_of(store)
    assert table.problems == ()
    assert keys(table) == [*range(18)]
    assert keys(table, fates=(OPEN,)) == [*range(8, 18)]
    assert table.fates()[OPEN] == 10
    assert table.shards == ["0badcafe-000000"]
    assert table.open_shards == ["0badcafe-000001", "0badcafe-000002"]
    facts = table.facts(key_of(9))
    assert (facts.fate, facts.stage, facts.shard) == (OPEN, last, "0badcafe-000001")
    assert facts.measures == measures
    assert facts.classes == [world.CLASSES[3]]  # as the vocabulary calls it
    assert keys(table, words="rocket", fates=(OPEN,)) == [11, 17]
    assert keys(table, classes=(2,), fates=(OPEN,)) == [8, 14]
    assert keys(table, place="0badcafe-000002") == [16, 17]
    stored = read(store, table, 9)
    assert stored.mentions == SOME[1].mentions
    assert bool(stored.objects) == (last not in {Stage.PROMPTS, Stage.PAIRS})
    if last is Stage.PROMPTS:
        assert stored.notes == ("it is not painted yet",)
    else:
        assert (stored.image, stored.counterfactual) == (
            SOME[1].image_bytes,
            SOME[1].counterfactual_bytes,
        )
        assert stored.notes == ()
    assert stored.has_masks == (last is Stage.MASKS)


def test_what_was_dropped_so_far_is_told_with_its_reason(store):
    lost = [
        rejected(8, Stage.PROMPTS, Reason.NEAR_DUPLICATE),
        rejected(9, Stage.PAIRS, Reason.NEAR_DUPLICATE),
        rejected(10, Stage.DETECTIONS, Reason.CLASS_NOT_FOUND),
        rejected(11, Stage.MASKS, Reason.MASK_TOO_SMALL),
    ]
    add_open(store, SOME, Stage.MASKS, lost)
    table = table_of(store)
    assert keys(table, fates=(OPEN,)) == [*range(12, 18)]
    for row in lost:
        facts = table.facts(row.key)
        assert (facts.fate, facts.stage) == (row.reason, row.stage)
        assert table.row(row.key).detail == "0.01 < 0.02"
    assert read(store, table, 10).image == SOME[2].image_bytes
    assert table.view.samples.excludable == {key_of(each) for each in (*range(6), *range(12, 18))}


def test_an_open_sample_becomes_a_packed_one(store):
    add_open(store, SOME[:8], Stage.DETECTIONS)
    table = table_of(store)
    open_part = table.part(key_of(9))
    table.refresh()
    assert table.part(key_of(9)) is open_part  # nothing is read twice
    add_shard(store, 1, SOME[:7], drop(15))
    table.refresh()
    assert OPEN not in table.fates()
    assert table.open_shards == []
    assert table.facts(key_of(9)).fate == "written"
    assert keys(table) == [*range(16)]


def test_pieces_that_were_made_again_are_read_again_and_the_newest_counts(store):
    add_open(store, SOME[:2], Stage.PROMPTS)
    table = table_of(store)
    assert table.row(key_of(8)).text == SOME[0].text
    newer = [draw(8, text="a cat of another day"), SOME[1]]
    for commit in store.commits(Stage.PROMPTS):
        if key_of(8) in commit.verdicts:
            with store.lease(Stage.PROMPTS, commit.shard):
                store.withdraw(commit, "another text")
    table.refresh()
    assert table.facts(key_of(8)) is None
    add_open(store, newer, Stage.PROMPTS)
    table.refresh()
    assert table.row(key_of(8)).text == "a cat of another day"


@pytest.mark.parametrize("damage", ["a bit of an output", "an output deleted", "a record cut"])
def test_a_damaged_piece_is_told_and_the_others_are_shown(tmp_path, damage):
    store = explorable(tmp_path / "d")
    add_open(store, SOME, Stage.MASKS)
    (piece,) = store.commits(Stage.MASKS)
    output = tmp_path / "d" / piece.object.path
    if damage == "a bit of an output":
        output.chmod(0o644)
        output.write_bytes(output.read_bytes().replace(b"0.9", b"0.8"))
    elif damage == "an output deleted":
        output.unlink()
    else:
        (record,) = (tmp_path / "d/.engine/commits/masks").rglob("*.json")
        record.chmod(0o644)
        record.write_bytes(record.read_bytes()[:-9])
    table = table_of(store)
    (problem,) = table.problems
    assert "masks" in problem
    assert table.facts(key_of(9)).stage == Stage.DETECTIONS


def test_a_dataset_without_a_plan_has_no_open_samples(tmp_path):
    store = Store.create(tmp_path, {"seed": 1})
    assert table_of(store).open_shards == []
