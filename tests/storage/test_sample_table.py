"""The table of samples: filters, orders and pages, and a dataset that changes or is damaged."""

import contextlib
import io

import numpy as np
import pytest
from pyarrow import parquet

from damage import DAMAGE
from explorable import SLICE, add_shard, draw, drop, explorable, key_of
from storage.errors import DataError
from storage.exclusions import EXCLUSIONS, Exclusion, exclude_samples, include_samples
from storage.manifest import ManifestRow, decode_manifest, encode_manifest, read_manifest_row
from storage.marks import mark_samples
from storage.sample_columns import OPEN, SampleColumns, TextColumn
from storage.sample_queries import SampleQuery
from storage.sample_table import SampleTable

ME = {"who": "ann@here", "why": "half a cat"}


def table_of(store):
    table = SampleTable(store)
    table.refresh()
    return table


def keys(table, **wanted):
    found, samples = table.find(SampleQuery(**wanted), 0, 1000)
    assert found == len(samples)
    return [int(each.key[8:]) for each in samples]


@pytest.fixture
def store(root):
    """Two shards: samples 0..4 and 8..12 written with scores 0.1 to 0.5, the others dropped."""
    store = explorable(root)
    for number in range(2):
        first = number * 8
        written = [
            draw(first + place, text=f"Sample {first + place} of {'RED' if place % 2 else 'blue'}",
                 score=(place + 1) / 10)
            for place in range(5)
        ]  # fmt: skip
        add_shard(store, number, written, drop(first + 5, first + 6, first + 7))
    return store


def test_everything_that_was_planned_is_there_in_plan_order(store):
    table = table_of(store)
    assert len(table) == 16
    assert keys(table) == list(range(16))
    assert keys(table, descending=True) == list(range(15, -1, -1))
    assert table.fates() == {
        "written": 10,
        "class-not-found": 2,
        "mask-too-small": 2,
        "near-duplicate": 2,
    }
    assert table.shards == [f"{SLICE}-000000", f"{SLICE}-000001"]
    assert sum(count for _, _, count in table.classes()) == 16


def test_filters_and_orders(store):
    table = table_of(store)
    assert keys(table, classes=(2,)) == [2, 8, 14]
    assert keys(table, classes=(2, 3)) == keys(table, classes=(99,)) == []
    assert keys(table, fates=("written",)) == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    assert keys(table, fates=("near-duplicate", "mask-too-small")) == [6, 7, 14, 15]
    assert keys(table, fates=("no such reason",)) == []
    assert keys(table, least={"score": 0.3}, most={"score": 0.4}) == [2, 3, 10, 11]
    assert keys(table, most={"score": 1}) == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    assert keys(table, least={"objects": 1}, place=f"{SLICE}-000001") == [8, 9, 10, 11, 12]
    assert keys(table, place=SLICE) == list(range(16))
    assert keys(table, place=key_of(7)) == [7]
    assert keys(table, place="ffff") == []
    assert keys(table, words="red SAMPLE") == [1, 3, 9, 11]
    assert keys(table, words="red 11") == [11]
    assert keys(table, words=".* [") == []
    found = keys(table, order="score", fates=("written",))
    assert found == [0, 8, 1, 9, 2, 10, 3, 11, 4, 12]
    assert keys(table, order="score", descending=True)[:2] == [4, 12]
    assert keys(table, order="score", descending=True)[-6:] == [5, 6, 7, 13, 14, 15]


def test_pages_are_parts_of_the_whole(store):
    table = table_of(store)
    pages = [table.find(SampleQuery(order="area"), start, 3) for start in range(0, 18, 3)]
    assert {found for found, _ in pages} == {16}
    listed = [each.key for _, samples in pages for each in samples]
    assert listed == [each.key for each in table.find(SampleQuery(order="area"), 0, 99)[1]]
    areas = [table.facts(key).measures.get("area", np.inf) for key in listed]
    assert areas == sorted(areas)


def test_what_people_say_is_heard_at_once_and_of_others_too(store):
    table, other = table_of(store), SampleTable(store)
    other.refresh()
    exclude_samples(store, [key_of(1), key_of(9)], **ME)
    include_samples(store, [key_of(9)], **ME)
    mark_samples(store.objects, [key_of(5), key_of(2)], "flag", who="bob")
    mark_samples(store.objects, [key_of(2)], "note", who="bob", text="dark")
    for each in (table, other):
        each.hear()
        assert keys(each, excluded=True) == [1]
        assert len(keys(each, excluded=False)) == 15
        assert keys(each, flagged=True) == [2, 5]
        assert keys(each, noted=True) == keys(each, noted=True, flagged=True) == [2]
        assert each.facts(key_of(1)).excluded == "half a cat"
        assert each.facts(key_of(2)).marked.note == "dark"
    assert [line.act for line in table.history(key_of(9))] == ["exclude", "include"]


def test_agreement_is_that_of_noise_learning(store):
    line = Exclusion(
        key=key_of(3), act="exclude", by="noise-learning", who="x", at="2026-01-01T00:00:00Z",
        why="noise", score=0.25,
    )  # fmt: skip
    EXCLUSIONS.append(store.objects, [line, line.model_copy(update={"key": "elsewhere"})])
    include_samples(store, [key_of(3)], **ME)
    table = table_of(store)
    assert keys(table, most={"agreement": 0.5}) == [3]
    assert keys(table, order="agreement")[0] == 3
    assert table.facts(key_of(3)).measures["agreement"] == 0.25


def test_a_dataset_that_grows_is_seen_after_a_look_and_marks_stay(store):
    table = table_of(store)
    mark_samples(store.objects, [key_of(2)], "flag", who="bob")
    add_shard(store, 2, [draw(16), draw(17)])
    assert len(table) == 16
    table.refresh()
    assert len(table) == 18
    assert keys(table, words="drawing", fates=("written",)) == [16, 17]
    assert keys(table, flagged=True) == [2]


def test_a_sample_that_is_gone_is_gone_from_the_table(store):
    table = table_of(store)
    (commit,) = [shard.commit for shard in store.shards() if shard.name.endswith("1")]
    store.withdraw(commit, "to be made again")
    assert table.facts(key_of(9)) is not None
    with pytest.raises(DataError, match="committed but gone"):
        table.row(key_of(9))
    table.refresh()
    assert table.facts(key_of(9)) is table.row(key_of(9)) is table.part(key_of(9)) is None
    # of two that were dropped there are pieces still: they are not packed, as far as is known
    assert keys(table) == [*range(8), 13, 14]
    assert keys(table, fates=(OPEN,)) == [13, 14]


def test_an_empty_dataset_has_no_samples_and_no_shard_may_be_empty(tmp_path):
    store = explorable(tmp_path / "d")
    table = table_of(store)
    assert keys(table) == keys(table, words="x", order="score", excluded=False, place="a") == []
    assert (table.classes(), table.fates(), table.problems) == ([], {}, ())
    add_shard(store, 0, [], drop(0, 1))
    table.refresh()
    assert keys(table, order="iou") == [0, 1]


DAMAGED = {
    "one bit in a manifest": 8,
    "a manifest cut": 8,
    "a manifest deleted": 8,
    "two manifests swapped": 0,
    "a record cut": 8,
    "a record that is a list": 8,
    "a record deleted": 8,
    "a tar deleted": 16,
    "everything at once": 0,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_shard_is_named_and_the_others_are_shown(tmp_path, kind):
    store = explorable(tmp_path / "d")
    for number in range(2):
        add_shard(store, number, [draw(number * 8 + place) for place in range(8)])
    # the acts of this damage that need pieces do not fit here
    for name in (kind,) if kind != "everything at once" else ("two manifests swapped",):
        DAMAGE[name](tmp_path / "d")
    table = table_of(store)
    assert len(table) == DAMAGED[kind]
    assert bool(table.problems) == (kind not in {"a tar deleted", "a record deleted"})
    assert all("verify" in each for each in table.problems)


@pytest.mark.parametrize("column", [b"cat", b"a drawing of", b"written", b"0badcafe00000003"])
def test_a_manifest_with_texts_that_are_none_is_named(column):
    (sample,) = [draw(2)]
    row = ManifestRow(
        key="0badcafe00000003", shard="s", index=1, seed=1, status="written", class_ids=(2,),
        class_names=("cat",), text=sample.text,
    )  # fmt: skip
    buffer = io.BytesIO()
    table = parquet.read_table(io.BytesIO(encode_manifest([row])))
    parquet.write_table(table, buffer, compression="none")
    data = buffer.getvalue()
    assert column in data
    broken = data.replace(column, b"\xff" * len(column))
    SampleColumns.read(data, "m")
    for read in (SampleColumns.read, TextColumn, decode_broken, row_of_broken):
        with contextlib.suppress(DataError):
            read(broken, "m")
    with pytest.raises(DataError, match="m is not a readable Parquet file"):
        decode_broken(broken, "m")


def row_of_broken(data, name):
    return read_manifest_row(data, "0badcafe00000003", name=name)


def decode_broken(data, name):
    return decode_manifest(data, name=name)


def test_damaged_acts_are_told_and_the_samples_are_shown(store, tmp_path):
    mark_samples(store.objects, [key_of(2)], "flag", who="bob")
    (path,) = store.objects.paths(".engine/marks")
    store.objects.replace(path, b"{}\n")
    table = SampleTable(store)
    with pytest.raises(DataError, match="is not what was written"):
        table.refresh()
    assert keys(table) == list(range(16))


def test_the_old_layout_is_read(tmp_path):
    import tarfile
    from pathlib import Path

    from storage.store import Store

    with tarfile.open(Path(__file__).parents[1] / "data/old-dataset.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    table = table_of(Store.open(tmp_path / "old-dataset"))
    assert table.fates() == {"written": 7}
    assert table.find(SampleQuery(words="cat brick"), 0, 9)[0] == 1
