import dataclasses
import hashlib
import json

import pytest

from storage.commits import Counts
from storage.errors import DataError, InputError
from storage.pairs import EncodedPair, pack_pairs
from storage.payloads import Payload
from storage.records import Reason, Rejected, Stage
from storage.rows import read_rows
from storage.shards import iterate
from storage.specification_copies import seal
from storage.store import Store

SPEC = {"seed": 7, "detector": {"model": "dino", "box_threshold": 0.3}, "classes": ["cat"]}
SHARD = "0badcafe-000000"
OLD, NEW = "a" * 64, "b" * 64
NUM_CLASSES = 1205


@pytest.fixture
def store(root) -> Store:
    return Store.create(root, SPEC)


def test_a_dataset_is_resumed_with_the_same_spec_only(root):
    Store.create(root, SPEC)
    assert Store.create(root, json.loads(json.dumps(SPEC))).spec == SPEC
    other = {**SPEC, "detector": {"model": "dino", "box_threshold": 0.35}}
    with pytest.raises(InputError) as caught:
        Store.create(root, other)
    message = str(caught.value)
    assert "detector.box_threshold: 0.3 -> 0.35" in message
    assert "choose another root" in message
    assert Store.open(root).spec == SPEC


def test_there_is_nothing_to_open_where_no_dataset_is(root):
    with pytest.raises(InputError, match="there is no dataset in"):
        Store.open(root)


def test_a_folder_with_a_readme_of_its_own_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"README.md but no dataset"):
        Store.create(tmp_path, SPEC)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_broken_spec_is_told(tmp_path):
    Store.create(tmp_path, SPEC)
    (tmp_path / ".engine/spec.json").write_text("{")
    with pytest.raises(DataError, match=r"spec.json cannot be read"):
        Store.open(tmp_path)


def test_a_spec_of_another_scheme_is_refused(tmp_path):
    Store.create(tmp_path, SPEC)
    for name in ("spec.json", "spec.copy.json"):
        (tmp_path / ".engine" / name).write_bytes(seal(0, SPEC))
    with pytest.raises(InputError, match="identity scheme 0"):
        Store.open(tmp_path)


def test_what_is_committed_is_found_and_read(store, root, commit_rows, rows):
    assert store.look(Stage.PROMPTS, SHARD, OLD) is None
    commit = commit_rows(store)
    again = Store.open(root)
    assert again.look(Stage.PROMPTS, SHARD, OLD, deep=True) == commit
    assert again.read(commit) == rows[0].data
    assert again.rows(commit) == read_rows(rows[0].data)
    assert again.commits(Stage.PROMPTS) == [commit]
    assert again.commits(Stage.MASKS) == []
    assert commit.object.path.startswith(f".engine/objects/{commit.object.sha256[:2]}/")
    assert (commit.seconds, commit.counts.rejected) == (2.0, {Reason.TEXT_TOO_LONG: 1})


def test_another_key_is_other_work(store, commit_rows):
    commit_rows(store)
    assert store.look(Stage.PROMPTS, SHARD, NEW) is None
    assert store.look(Stage.PAIRS, SHARD, OLD) is None
    assert store.look(Stage.PROMPTS, "0badcafe-000001", OLD) is None


def test_an_identical_second_commit_is_a_success_and_keeps_the_first_record(
    store, commit_rows, rows
):
    first = commit_rows(store)
    slower = dataclasses.replace(rows[0], seconds=99.0)
    assert store.commit(Stage.PROMPTS, SHARD, OLD, slower, rows[1]) == first


def test_pairs_are_streamed_back_with_their_rows(store, sample):
    samples = [sample(index) for index in range(3)]
    pairs = [EncodedPair(s.key, s.image_bytes, s.counterfactual_bytes) for s in samples]
    lost = Rejected(key="k9", stage=Stage.PAIRS, reason=Reason.UNSAFE, detail="")
    payload = Payload(pack_pairs(pairs, [lost]))
    commit = store.commit(Stage.PAIRS, SHARD, OLD, payload, Counts.of(4, 3, [lost]))
    assert list(store.pairs(commit)) == pairs
    first = store.rows(commit)[0]
    assert (first.key, first.width, first.height) == (samples[0].key, 16, 16)
    assert first.image_sha256 == hashlib.sha256(samples[0].image_bytes).hexdigest()
    assert store.rows(commit)[-1] == lost


def test_a_shard_is_listed_with_its_tar(store, sample, payload, root):
    samples = [sample(index) for index in range(3)]
    store.commit(Stage.SHARDS, SHARD, OLD, *payload(samples))
    (shard,) = Store.open(root).shards()
    assert shard.path == f"{store.root}/data/train-{SHARD}.tar"
    assert list(iterate(shard.path)) == samples
    assert (shard.name, shard.samples, shard.share_written) == (SHARD, 3, 0.75)
    assert not shard.degraded
    assert [row.status for row in store.manifest(shard.commit)] == ["written"] * 3 + ["rejected"]


def test_an_empty_shard_is_recorded_without_a_tar(store, payload):
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([], 2))
    (shard,) = store.shards()
    assert (shard.path, shard.samples, shard.degraded) == (None, 0, True)
    assert store.look(Stage.SHARDS, SHARD, OLD) == shard.commit
    assert store.objects.paths("data") == []


@pytest.mark.parametrize(("min_yield", "degraded"), [(0.5, False), (0.51, True)])
def test_a_shard_below_the_minimum_yield_is_degraded(root, sample, payload, min_yield, degraded):
    store = Store.create(root, {**SPEC, "min_yield": min_yield})
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0), sample(1)], 2))
    assert store.shards()[0].degraded == degraded
    assert store.status()[0].degraded == ([SHARD] if degraded else [])


def test_status_adds_up_by_slice(store, sample, payload):
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0), sample(1)], 2))
    (status,) = store.status()
    assert status.slice_id == "0badcafe"
    assert status.shards == 1
    assert (status.requested, status.written) == (4, 2)
    assert status.dropped == {Reason.CLASS_NOT_FOUND: 2}
    assert status.num_bytes == store.shards()[0].commit.object.size
    assert status.seconds == {Stage.SHARDS: 1.5}


def test_counts_that_do_not_add_up_are_refused(store, rows):
    more = rows[1].model_copy(update={"requested": 5})
    with pytest.raises(DataError, match="5 samples requested, but 3 written and 1 dropped"):
        store.commit(Stage.PROMPTS, SHARD, OLD, rows[0], more)
    assert store.commits() == []


def test_counts_that_disagree_with_the_output_are_refused(store, rows):
    with pytest.raises(DataError, match="holds 3 samples, the counts say 4"):
        store.commit(Stage.PROMPTS, SHARD, OLD, rows[0], Counts.of(4, 4, []))
    assert store.objects.paths(".engine/objects") == []


def test_counts_that_disagree_with_the_manifest_are_refused(store, sample, payload):
    made, _ = payload([sample(0)], 1)
    with pytest.raises(DataError, match="the manifest has"):
        store.commit(Stage.SHARDS, SHARD, OLD, made, Counts.of(1, 1, []))
