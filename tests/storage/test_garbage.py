"""What gc frees: the pairs of packed shards that cannot grow, and objects that nobody names."""

import dataclasses
from uuid import uuid4

import pytest

from storage.batches import list_batches
from storage.card import write_card
from storage.checks import defect
from storage.commit_log import record_path
from storage.commits import Counts, Verdict
from storage.garbage import find_garbage, free_garbage
from storage.identity import digest
from storage.layout import OBJECT_FOLDER
from storage.pairs import EncodedPair, pack_pairs
from storage.payloads import Payload
from storage.plan import DatasetSpec
from storage.records import Stage
from storage.store import Store
from storage.verification import verify_bytes

SLICE, OTHER_SLICE = "0badcafe", "0badf00d"
CELL = "p0000000"
LOOSE = f"{OBJECT_FOLDER}/00/{'0' * 64}"


def key_of(index, slice_id=SLICE):
    return f"{slice_id}{index:08d}"


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    root = tmp_path / "root" if request.param == "local" else f"memory://{uuid4().hex}"
    plan = DatasetSpec(vocabulary="lvis1205", samples_per_shard=2).model_dump(mode="json")
    return Store.create(root, {"plan": plan})


@pytest.fixture
def paint(store, sample):
    """Commit the pairs of some samples as a piece, or as version 0.1 committed them by shard."""

    def commit(*indexes, slice_id=SLICE, unit=CELL, is_piece=True, salt=0):
        made = {index: sample(index) for index in indexes}
        pairs = [
            EncodedPair(key_of(index, slice_id), each.image_bytes, each.counterfactual_bytes)
            for index, each in made.items()
        ]
        verdicts = {pair.key: Verdict(key=f"{salt:016x}", output="1" * 16) for pair in pairs}
        payload = Payload(pack_pairs(pairs, []), about={"verdicts": verdicts} if is_piece else {})
        counts = Counts.of(len(pairs), len(pairs), [])
        key = digest([*indexes, salt])
        return store.commit(Stage.PAIRS, f"{slice_id}-{unit}", key, payload, counts)

    return commit


@pytest.fixture
def finish(store, sample, payload):
    """Commit a finished shard."""

    def commit(index, start, stop, slice_id=SLICE):
        made, counts = payload([sample(each) for each in range(start, stop)], 0)
        made = dataclasses.replace(made, about={"start": start, "stop": stop})
        unit = f"{slice_id}-{index:06d}"
        return store.commit(Stage.SHARDS, unit, digest([start, stop]), made, counts)

    return commit


def free(store):
    write_card(store)
    return free_garbage(store, find_garbage(store))


def painted(store):
    return {key for each in store.commits(Stage.PAIRS) for key in each.verdicts}


def objects(store):
    return store.objects.paths(OBJECT_FOLDER)


def test_packed_pairs_go_but_those_of_the_last_shard_and_of_unfinished_ones(store, paint, finish):
    first, last, begun = paint(0, 1), paint(2, 3), paint(4, 5)
    other = paint(0, 1, slice_id=OTHER_SLICE)
    finish(0, 0, 2)
    finish(1, 2, 4)
    finish(0, 0, 2, OTHER_SLICE)
    garbage = find_garbage(store)
    assert garbage.outputs == (first,)
    assert (garbage.samples, garbage.loose) == (2, ())
    assert garbage.num_bytes == first.object.size
    before = set(store.objects.paths(""))
    freed = free(store)
    assert (freed.outputs, freed.objects, freed.num_bytes) == (1, 1, first.object.size)
    assert before - set(store.objects.paths("")) == {first.object.path, record_path(first)}
    assert all(not defect(store.objects, each, deep=True) for each in (last, begun, other))
    assert verify_bytes(store, 1205) == []
    assert find_garbage(store).outputs == ()


@pytest.mark.parametrize(
    ("shards", "kept"),
    [
        ([(0, 0, 2), (1, 2, 4), (2, 4, 6)], {4, 5}),
        ([(0, 0, 2), (1, 2, 3), (2, 4, 6)], {2, 4, 5}),  # a short one in the middle can grow
        ([(0, 0, 1), (2, 4, 6)], {0, 4, 5}),  # so can the first
        ([(0, 0, 2), (2, 4, 6)], {4, 5}),
        ([(0, 0, 6)], {0, 1, 2, 3, 4, 5}),
        ([], {0, 1, 2, 3, 4, 5}),
    ],
)
def test_only_shards_that_cannot_grow_give_up_their_pairs(store, paint, finish, shards, kept):
    for index, start, stop in shards:
        finish(index, start, stop)
    held = {index for _, start, stop in shards for index in range(start, stop)} or kept
    for index in sorted(held):
        paint(index, salt=index)
    free(store)
    assert painted(store) == {key_of(index) for index in kept}


def test_a_piece_that_reaches_into_another_shard_is_kept(store, paint, finish):
    paint(0, 1, 2)
    finish(0, 0, 2)
    finish(1, 2, 4)
    assert find_garbage(store).outputs == ()


def test_a_shard_whose_tar_is_gone_keeps_its_pairs(store, paint, finish):
    paint(0, 1)
    shard = finish(0, 0, 2)
    finish(1, 2, 4)
    garbage = find_garbage(store)
    assert len(garbage.outputs) == 1
    store.objects.delete(shard.object.path)
    assert find_garbage(store).outputs == ()
    freed = free_garbage(store, garbage)  # gone since it was looked for
    assert (freed.outputs, freed.held) == (0, [f"{SLICE}-{CELL}"])
    assert painted(store) == {key_of(0), key_of(1)}


def test_bytes_that_several_records_name_go_with_the_last(store, paint, finish):
    first, second = paint(0, 1, salt=1), paint(0, 1, salt=2)
    assert first.object == second.object
    reached = paint(2, 3)
    finish(0, 0, 2)
    finish(1, 2, 4)
    garbage = find_garbage(store)
    assert len(garbage.outputs) == 2
    assert garbage.num_bytes == first.object.size
    assert free(store).objects == 1
    assert objects(store) == [reached.object.path]


def test_a_withdrawn_record_leaves_the_bytes_that_another_one_names(store, paint):
    first, second = paint(0, 1, salt=1), paint(0, 1, salt=2)
    store.withdraw(first, "x")
    assert not defect(store.objects, second, deep=True)
    store.withdraw(second, "x")
    assert objects(store) == []


def test_outputs_of_version_0_1_go_like_pieces_and_leave_what_pieces_share(store, paint, finish):
    old = paint(0, 1, unit="000000", is_piece=False)
    piece = paint(0, 1)
    last = paint(2, 3, unit="000001", is_piece=False)
    assert old.object == piece.object
    finish(0, 0, 2)
    garbage = find_garbage(store)
    assert garbage.outputs == ()
    finish(1, 2, 4)
    assert {each.shard for each in find_garbage(store).outputs} == {old.shard, piece.shard}
    free(store)
    assert store.commits(Stage.PAIRS) == [last]
    assert objects(store) == [last.object.path]


def test_objects_that_nobody_names_go_for_good(store, paint):
    piece = paint(0, 1)
    store.objects.write_new(LOOSE, b"nobody's")
    garbage = find_garbage(store)
    assert (garbage.loose, garbage.num_bytes) == ((LOOSE,), 8)
    freed = free(store)
    assert (freed.objects, freed.num_bytes) == (1, 8)
    assert objects(store) == [piece.object.path]
    assert list_batches(store.objects) == []


def test_what_a_begun_commit_names_is_not_loose(store, paint):
    piece = paint(0, 1)
    (record,) = store.log.paths()
    store.objects.move(record, record.replace("/commits/", "/intents/"))
    assert find_garbage(store).loose == ()
    assert objects(store) == [piece.object.path]


def test_an_object_that_a_worker_adopts_meanwhile_comes_back(store, paint):
    piece = paint(0, 1)
    (record,) = store.log.paths()
    text = store.objects.read(record)
    store.objects.delete(record)
    garbage = find_garbage(store)
    assert garbage.loose == (piece.object.path,)
    store.objects.write_new(record, text)  # its intent came after the look, the record before
    freed = free_garbage(store, garbage)
    assert freed.objects == 0
    assert not defect(store.objects, piece, deep=True)


def test_as_long_as_a_record_cannot_be_read_nothing_counts_as_loose(store, paint):
    paint(0, 1)
    (record,) = store.log.paths()
    store.objects.replace(record, b"{")
    garbage = find_garbage(store)
    assert (garbage.loose, garbage.unreadable) == ((), (record,))


def test_a_cell_where_somebody_works_is_left_alone(store, paint, finish):
    paint(0, 1)
    finish(0, 0, 2)
    finish(1, 2, 4)
    with store.lease(Stage.PAIRS, f"{SLICE}-{CELL}"):
        freed = free(store)
    assert (freed.outputs, freed.held) == (0, [f"{SLICE}-{CELL}"])
    assert free(store).outputs == 1
