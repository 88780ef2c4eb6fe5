import pytest

from storage.card import write_card
from storage.commits import Counts
from storage.errors import DataError
from storage.pairs import EncodedPair, pack_pairs
from storage.payloads import Payload
from storage.records import Stage
from storage.store import Store
from storage.verification import verify_bytes

SPEC = {"seed": 7, "detector": {"model": "dino", "box_threshold": 0.3}, "classes": ["cat"]}
SHARD = "0badcafe-000000"
OLD, NEW = "a" * 64, "b" * 64
NUM_CLASSES = 1205


@pytest.fixture
def store(root) -> Store:
    return Store.create(root, SPEC)


def damage(store: Store, path: str, data: bytes) -> None:
    store.objects.replace(path, data)


def test_a_cut_output_is_not_found_and_its_record_is_put_aside(
    store, commit_rows, in_quarantine, heal
):
    commit = commit_rows(store)
    damage(store, commit.object.path, store.read(commit)[:-1])
    assert heal(store, Stage.PROMPTS, SHARD, OLD) is None
    assert store.commits() == []
    assert in_quarantine(store) == [f"commits/prompts/{SHARD}/{OLD[:16]}.json", "reason.txt"]


def test_a_missing_output_is_not_found(store, commit_rows, heal):
    store.objects.delete(commit_rows(store).object.path)
    assert heal(store, Stage.PROMPTS, SHARD, OLD) is None


def test_a_flipped_byte_is_found_by_hashing_only(store, commit_rows, heal):
    commit = commit_rows(store)
    damage(store, commit.object.path, store.read(commit).replace(b"cat", b"cow", 1))
    assert heal(store, Stage.PROMPTS, SHARD, OLD) == commit
    with pytest.raises(DataError, match="sha256 is"):
        store.read(commit)
    assert heal(store, Stage.PROMPTS, SHARD, OLD, deep=True) is None


def test_damage_is_repaired_by_committing_again_and_kept_in_the_quarantine(
    store, commit_rows, in_quarantine, heal
):
    commit = commit_rows(store)
    whole = store.read(commit)
    damage(store, commit.object.path, b"damaged")
    assert heal(store, Stage.PROMPTS, SHARD, OLD) is None
    again = commit_rows(store)
    assert store.read(again) == whole
    assert commit.object.path.removeprefix(".engine/") in in_quarantine(store)


def test_a_broken_record_is_put_aside_by_the_next_lookup_not_by_readers(store, commit_rows, heal):
    commit_rows(store)
    (path,) = store.log.paths(Stage.PROMPTS)
    damage(store, path, b'{"stage":')
    assert store.commits() == []
    with pytest.raises(DataError, match="is not a Commit record"):
        store.log.read(path)
    assert store.log.paths() == [path]
    assert heal(store, Stage.PROMPTS, SHARD, OLD) is None
    assert store.log.paths() == []


def test_a_missing_tar_is_told_to_the_reader(store, sample, payload):
    pairs = [EncodedPair(sample(0).key, sample(0).image_bytes, sample(0).counterfactual_bytes)]
    commit = store.commit(
        Stage.PAIRS, SHARD, OLD, Payload(pack_pairs(pairs, [])), Counts.of(1, 1, [])
    )
    store.objects.delete(commit.object.path)
    with pytest.raises(DataError, match="is committed but gone"):
        list(store.pairs(commit))


def test_a_grown_shard_replaces_the_short_one_and_keeps_it_in_the_quarantine(
    store, sample, payload, in_quarantine
):
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    new = store.commit(Stage.SHARDS, SHARD, NEW, *payload([sample(0), sample(1)]))
    assert [shard.commit for shard in store.shards()] == [new]
    write_card(store)
    assert verify_bytes(store, NUM_CLASSES) == []
    assert set(in_quarantine(store)) >= {
        f"data/train-{SHARD}.tar",
        f"manifests/{SHARD}.parquet",
        f"commits/shards/{SHARD}/{OLD[:16]}.json",
    }


def test_a_version_without_survivors_leaves_no_old_tar_in_sight(store, sample, payload):
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    store.commit(Stage.SHARDS, SHARD, NEW, *payload([], 2))
    assert store.objects.paths("data") == []
    assert [shard.samples for shard in store.shards()] == [0]
    write_card(store)
    assert verify_bytes(store, NUM_CLASSES) == []


def test_an_orphan_tar_with_other_bytes_is_put_aside(store, sample, payload, in_quarantine):
    store.objects.write_new(f"data/train-{SHARD}.tar", b"half a tar")
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    write_card(store)
    assert verify_bytes(store, NUM_CLASSES) == []
    assert f"data/train-{SHARD}.tar" in in_quarantine(store)


def test_an_intent_whose_bytes_are_not_its_own_is_not_adopted(store, commit_rows, heal):
    commit = commit_rows(store)
    (path,) = store.log.paths(Stage.PROMPTS)
    store.objects.move(path, path.replace("commits", "intents"))
    damage(store, commit.object.path, store.read(commit).replace(b"cat", b"cow", 1))
    assert heal(store, Stage.PROMPTS, SHARD, OLD) is None
    assert store.commits() == []


def snapshot(store: Store) -> dict[str, bytes]:
    return {path: store.objects.read(path) for path in store.objects.paths("")}


def test_a_look_says_what_is_not_whole_and_moves_nothing(store, commit_rows):
    commit = commit_rows(store)
    damage(store, commit.object.path, b"cut")
    before = snapshot(store)
    assert store.look(Stage.PROMPTS, SHARD, OLD) is None
    (record,) = store.log.paths()
    damage(store, record, b"{")
    assert store.look(Stage.PROMPTS, SHARD, OLD) is None
    assert snapshot(store) == before | {record: b"{"}


def test_a_look_leaves_what_a_crash_left_to_those_who_hold_the_lease(store, commit_rows, heal):
    commit = commit_rows(store)
    (path,) = store.log.paths()
    store.objects.move(path, path.replace("commits", "intents"))
    before = snapshot(store)
    assert store.look(Stage.PROMPTS, SHARD, OLD) is None
    assert snapshot(store) == before
    assert heal(store, Stage.PROMPTS, SHARD, OLD) == commit
    assert store.look(Stage.PROMPTS, SHARD, OLD) == commit


def test_healing_without_the_lease_is_refused(store, commit_rows):
    damage(store, commit_rows(store).object.path, b"cut")
    before = snapshot(store)
    with pytest.raises(RuntimeError, match=f"prompts of {SHARD} is changed without its lease"):
        store.heal(Stage.PROMPTS, SHARD, OLD)
    assert snapshot(store) == before
