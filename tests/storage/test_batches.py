"""The quarantine gives back what was put aside, or deletes it; it never writes over anything."""

from uuid import uuid4

import pytest

from storage.batches import choose_batches, delete_batch, find_batch, list_batches, restore_batch
from storage.card import write_card
from storage.errors import InputError, LeaseHeldError
from storage.quarantine import put_aside
from storage.records import Stage
from storage.store import Store
from storage.verification import verify_bytes

SHARD = "0badcafe-000000"
KEY, OTHER = "a" * 64, "b" * 64
TAR = f"data/train-{SHARD}.tar"


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path, sample, payload) -> Store:
    root = tmp_path / "root" if request.param == "local" else f"memory://{uuid4().hex}"
    store = Store.create(root, {"seed": 7})
    store.commit(Stage.SHARDS, SHARD, KEY, *payload([sample(0), sample(1)]))
    write_card(store)
    return store


_OF_LEASES = (".engine/leases/", ".engine/clock")


def contents(store: Store) -> dict[str, bytes]:
    paths = [path for path in store.objects.paths("") if not path.startswith(_OF_LEASES)]
    return {path: store.objects.read(path) for path in paths}


def only_batch(store: Store):
    (batch,) = list_batches(store.objects)
    return batch


def test_what_was_put_aside_together_is_one_batch_with_its_reason(store):
    (commit,) = store.commits()
    files = {commit.object.path, commit.manifest.path, store.log.paths()[0]}
    store.withdraw(commit, "to be looked at")
    batch = only_batch(store)
    assert batch.reason == "to be looked at"
    assert set(batch.files) == files
    assert batch.bytes > commit.object.size + commit.manifest.size
    assert batch.days is not None
    assert 0 <= batch.days < 1
    assert find_batch(store.objects, batch.id) == batch


def test_restoring_gives_back_exactly_what_was_there(store):
    before = contents(store)
    store.withdraw(store.commits()[0], "by mistake")
    assert store.shards() == []
    restore_batch(store, only_batch(store))
    assert contents(store) == before
    assert verify_bytes(store, 1205) == []
    assert list_batches(store.objects) == []


@pytest.mark.parametrize("way", ["tar", "record"])
def test_restoring_never_replaces_a_file_or_another_version(store, sample, payload, way):
    if way == "tar":
        store.withdraw(store.commits()[0], "replaced")
        store.commit(Stage.SHARDS, SHARD, OTHER, *payload([sample(2)]))
        batch = only_batch(store)
    else:  # the records alone were put aside, as when a shard grows
        put_aside(store.objects, store.log.paths(), "replaced")
        batch = only_batch(store)
        store.commit(Stage.SHARDS, SHARD, OTHER, *payload([sample(0), sample(1)]))
    before = contents(store)
    with pytest.raises(InputError, match=f"{SHARD}.* stands in the way"):
        restore_batch(store, batch)
    assert contents(store) == before


def test_a_record_comes_back_only_with_its_bytes_and_the_message_says_how(store):
    before = contents(store)
    put_aside(store.objects, store.log.paths(), "the record")
    put_aside(store.objects, [TAR], "the tar")
    record, tar = sorted(list_batches(store.objects), key=lambda batch: TAR in batch.files)
    with pytest.raises(InputError, match=f"where nothing is.*restore batch {tar.id} first"):
        restore_batch(store, record)
    restore_batch(store, tar)
    restore_batch(store, record)
    assert contents(store) == before


def test_a_batch_whose_shard_somebody_makes_stays(store):
    store.withdraw(store.commits()[0], "x")
    before = contents(store)
    with store.lease(Stage.SHARDS, SHARD), pytest.raises(LeaseHeldError):
        restore_batch(store, only_batch(store))
    assert contents(store) == before


def test_a_record_that_cannot_be_read_goes_back_as_it_was(store):
    (path,) = store.log.paths()
    store.objects.replace(path, b"{")
    put_aside(store.objects, [path], "broken")
    restore_batch(store, only_batch(store))
    assert store.objects.read(path) == b"{"


def test_an_unknown_batch_is_named_with_the_way_out(store):
    with pytest.raises(InputError, match=r"no batch 'nope'.*'magicseg quarantine list'"):
        find_batch(store.objects, "nope")


def test_batches_are_chosen_by_age_and_name_and_one_of_no_age_is_never_old(store):
    objects = store.objects
    objects.write_new(".engine/quarantine/20200101T000000-00000000/data/x.tar", b"old")
    objects.write_new(".engine/quarantine/mine/data/x.tar", b"whose?")
    put_aside(objects, [TAR], "now")
    old, new, mine = batches = list_batches(objects)
    assert (mine.days, mine.reason) == (None, "")
    assert choose_batches(batches, older_than=1, batch_id=None) == [old]
    assert choose_batches(batches, older_than=0, batch_id=None) == [old, new]
    assert choose_batches(batches, older_than=None, batch_id="mine") == [mine]
    assert choose_batches(batches, older_than=1, batch_id=new.id) == []


def test_a_deleted_batch_leaves_nothing_and_takes_nothing_else(store):
    put_aside(store.objects, [TAR], "first")
    put_aside(store.objects, store.log.paths(), "second")
    before = contents(store)
    gone, kept = list_batches(store.objects)
    delete_batch(store.objects, gone)
    assert list_batches(store.objects) == [kept]
    assert contents(store).keys() == {p for p in before if not p.startswith(gone.folder)}


def test_empty_folders_of_a_deleted_batch_go_too(tmp_path):
    store = Store.create(tmp_path, {})
    store.objects.write_new("data/x.tar", b"x")
    put_aside(store.objects, ["data/x.tar"], "x")
    delete_batch(store.objects, only_batch(store))
    assert list((tmp_path / ".engine/quarantine").glob("*")) == []
