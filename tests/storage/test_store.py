import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from storage.commits import Counts
from storage.errors import DataError, InputError, LeaseHeldError
from storage.pairs import EncodedPair, pack_pairs
from storage.records import Mention, Pair, Prompt, Reason, Rejected, Stage
from storage.rows import write_rows
from storage.shards import iterate
from storage.store import Payload, Store
from storage.verification import verify_bytes

SPEC = {"seed": 7, "detector": {"model": "dino", "box_threshold": 0.3}, "classes": ["cat"]}
SHARD = "0badcafe-000000"
OLD, NEW = "a" * 64, "b" * 64
NUM_CLASSES = 1205

PROMPTS = [
    Prompt(
        key=f"k{number}",
        text="a cat",
        counterfactual_text="nothing",
        mentions=(Mention(class_id=0, start=2, end=5),),
        writer="test",
    )
    for number in range(3)
]
LOST = Rejected(key="k9", stage=Stage.PROMPTS, reason=Reason.TEXT_TOO_LONG, detail="80 > 77")
ROWS = Payload(write_rows([*PROMPTS, LOST]), seconds=2.0)
ROW_COUNTS = Counts.of(4, 3, [LOST])


@pytest.fixture
def store(root) -> Store:
    return Store.create(root, SPEC)


def commit_rows(store: Store, key: str = OLD):
    return store.commit(Stage.PROMPTS, SHARD, key, ROWS, ROW_COUNTS)


# what a dataset is


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
    path = tmp_path / ".engine/spec.json"
    path.write_text(path.read_text().replace('"scheme":1', '"scheme":0'))
    with pytest.raises(InputError, match="identity scheme 0"):
        Store.open(tmp_path)


# commits and lookups


def test_what_is_committed_is_found_and_read(store, root):
    assert store.find(Stage.PROMPTS, SHARD, OLD) is None
    commit = commit_rows(store)
    again = Store.open(root)
    assert again.find(Stage.PROMPTS, SHARD, OLD, deep=True) == commit
    assert again.rows(commit) == [*PROMPTS, LOST]
    assert again.read(commit) == ROWS.data
    assert again.commits(Stage.PROMPTS) == [commit]
    assert again.commits(Stage.MASKS) == []
    assert commit.object.path.startswith(f".engine/objects/{commit.object.sha256[:2]}/")
    assert (commit.seconds, commit.counts.rejected) == (2.0, {Reason.TEXT_TOO_LONG: 1})


def test_another_key_is_other_work(store):
    commit_rows(store)
    assert store.find(Stage.PROMPTS, SHARD, NEW) is None
    assert store.find(Stage.PAIRS, SHARD, OLD) is None
    assert store.find(Stage.PROMPTS, "0badcafe-000001", OLD) is None


def test_an_identical_second_commit_is_a_success_and_keeps_the_first_record(store):
    first = commit_rows(store)
    slower = dataclasses.replace(ROWS, seconds=99.0)
    assert store.commit(Stage.PROMPTS, SHARD, OLD, slower, ROW_COUNTS) == first


def test_pairs_are_streamed_back_with_their_rows(store, sample):
    samples = [sample(index) for index in range(3)]
    pairs = [EncodedPair(s.key, s.image_bytes, s.counterfactual_bytes) for s in samples]
    lost = Rejected(key="k9", stage=Stage.PAIRS, reason=Reason.UNSAFE, detail="")
    payload = Payload(pack_pairs(pairs, [lost]))
    commit = store.commit(Stage.PAIRS, SHARD, OLD, payload, Counts.of(4, 3, [lost]))
    assert list(store.pairs(commit)) == pairs
    assert store.rows(commit)[0] == Pair(key=samples[0].key, width=16, height=16)
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
    assert store.find(Stage.SHARDS, SHARD, OLD) == shard.commit
    assert store.objects.paths("data") == []


@pytest.mark.parametrize(("min_yield", "degraded"), [(0.5, False), (0.51, True)])
def test_a_shard_below_the_minimum_yield_is_degraded(root, sample, payload, min_yield, degraded):
    store = Store.create(root, {**SPEC, "min_yield": min_yield})
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0), sample(1)], 2))
    assert store.shards()[0].degraded == degraded
    assert store.status()[0].degraded == ([SHARD] if degraded else [])


def test_status_adds_up_by_slice(store, sample, payload):
    commit_rows(store)
    commit_rows(store, NEW)
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0), sample(1)], 2))
    (status,) = store.status()
    assert status.slice_id == "0badcafe"
    assert status.shards == {Stage.PROMPTS: 1, Stage.SHARDS: 1}
    assert (status.requested, status.written) == (4, 2)
    assert status.dropped == {Reason.CLASS_NOT_FOUND: 2}
    assert status.num_bytes == store.shards()[0].commit.object.size
    assert status.seconds == {Stage.PROMPTS: 2.0, Stage.SHARDS: 1.5}


# counts


def test_counts_that_do_not_add_up_are_refused(store):
    with pytest.raises(DataError, match="5 samples requested, but 3 written and 1 dropped"):
        store.commit(Stage.PROMPTS, SHARD, OLD, ROWS, Counts.of(5, 3, [LOST]))
    assert store.commits() == []


def test_counts_that_disagree_with_the_output_are_refused(store):
    with pytest.raises(DataError, match="holds 3 samples, the counts say 4"):
        store.commit(Stage.PROMPTS, SHARD, OLD, ROWS, Counts.of(4, 4, []))
    assert store.objects.paths(".engine/objects") == []


def test_counts_that_disagree_with_the_manifest_are_refused(store, sample, payload):
    made, _ = payload([sample(0)], 1)
    with pytest.raises(DataError, match="the manifest has"):
        store.commit(Stage.SHARDS, SHARD, OLD, made, Counts.of(1, 1, []))


# damage


def damage(store: Store, path: str, data: bytes) -> None:
    store.objects.replace(path, data)


def in_quarantine(store: Store) -> list[str]:
    return [path.split("/", 3)[-1] for path in store.objects.paths(".engine/quarantine")]


def test_a_cut_output_is_not_found_and_its_record_is_put_aside(store):
    commit = commit_rows(store)
    damage(store, commit.object.path, ROWS.data[:-1])
    assert store.find(Stage.PROMPTS, SHARD, OLD) is None
    assert store.commits() == []
    assert in_quarantine(store) == [f"commits/prompts/{SHARD}/{OLD[:16]}.json", "reason.txt"]


def test_a_missing_output_is_not_found(store):
    store.objects.delete(commit_rows(store).object.path)
    assert store.find(Stage.PROMPTS, SHARD, OLD) is None


def test_a_flipped_byte_is_found_by_hashing_only(store):
    commit = commit_rows(store)
    damage(store, commit.object.path, ROWS.data.replace(b"cat", b"cow", 1))
    assert store.find(Stage.PROMPTS, SHARD, OLD) == commit
    with pytest.raises(DataError, match="sha256 is"):
        store.read(commit)
    assert store.find(Stage.PROMPTS, SHARD, OLD, deep=True) is None


def test_damage_is_repaired_by_committing_again_and_kept_in_the_quarantine(store):
    commit = commit_rows(store)
    damage(store, commit.object.path, b"damaged")
    assert store.find(Stage.PROMPTS, SHARD, OLD) is None
    again = commit_rows(store)
    assert store.read(again) == ROWS.data
    assert commit.object.path.removeprefix(".engine/") in in_quarantine(store)


def test_a_broken_record_is_put_aside_by_the_next_lookup_not_by_readers(store):
    commit_rows(store)
    (path,) = store.record_paths(Stage.PROMPTS)
    damage(store, path, b'{"stage":')
    with pytest.raises(DataError, match="is no commit record"):
        store.commits()
    assert store.find(Stage.PROMPTS, SHARD, OLD) is None
    assert store.commits() == []


def test_a_missing_tar_is_told_to_the_reader(store, sample, payload):
    pairs = [EncodedPair(sample(0).key, sample(0).image_bytes, sample(0).counterfactual_bytes)]
    commit = store.commit(
        Stage.PAIRS, SHARD, OLD, Payload(pack_pairs(pairs, [])), Counts.of(1, 1, [])
    )
    store.objects.delete(commit.object.path)
    with pytest.raises(DataError, match="is committed but gone"):
        list(store.pairs(commit))


# versions of one shard


def test_a_grown_shard_replaces_the_short_one_and_keeps_it_in_the_quarantine(
    store, sample, payload
):
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    new = store.commit(Stage.SHARDS, SHARD, NEW, *payload([sample(0), sample(1)]))
    assert [shard.commit for shard in store.shards()] == [new]
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
    assert verify_bytes(store, NUM_CLASSES) == []


def test_an_orphan_tar_with_other_bytes_is_put_aside(store, sample, payload):
    store.objects.write_new(f"data/train-{SHARD}.tar", b"half a tar")
    store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    assert verify_bytes(store, NUM_CLASSES) == []
    assert f"data/train-{SHARD}.tar" in in_quarantine(store)


# two writers


def test_the_second_writer_of_an_output_is_refused_before_it_works(store, root):
    with store.lease(Stage.PROMPTS, SHARD):
        with (
            pytest.raises(LeaseHeldError, match=f"prompts/{SHARD}.lock is held by process"),
            Store.open(root).lease(Stage.PROMPTS, SHARD),
        ):
            pytest.fail("two holders")
        commit = commit_rows(store)
    other = Store.open(root)
    with other.lease(Stage.PROMPTS, SHARD):
        assert other.find(Stage.PROMPTS, SHARD, OLD) == commit


def test_a_commit_without_a_lease_takes_it(store, root):
    with store.lease(Stage.PROMPTS, SHARD), pytest.raises(LeaseHeldError):
        commit_rows(Store.open(root))
    commit_rows(Store.open(root))
    assert len(store.commits()) == 1


def test_a_lost_lease_commits_nothing(sample, payload):
    store = Store.create("memory://lost-lease", SPEC)
    with store.lease(Stage.PROMPTS, SHARD):
        lease = store._held[Stage.PROMPTS, SHARD]
        lease._stopped.set()
        lease._thread.join()
        lease._renewed -= 1000
        with pytest.raises(LeaseHeldError, match="nothing was committed"):
            commit_rows(store)
    assert store.commits() == []


@pytest.mark.parametrize(
    "lost", [".lock", "spec.json", f"train-{SHARD}.tar", f"{OLD[:16]}.json", ".parquet"]
)
def test_a_write_whose_answer_was_lost_is_recognised_when_it_is_repeated(
    bucket, sample, payload, lost
):
    bucket.answers_to_lose.append(lost)
    store = Store.create("s3://bucket/root", SPEC)
    with store.lease(Stage.SHARDS, SHARD):
        commit = store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    assert bucket.answers_to_lose == []
    assert store.find(Stage.SHARDS, SHARD, OLD, deep=True) == commit
    assert in_quarantine(store) == []


def test_many_writers_of_one_shard_end_with_one_record_and_whole_bytes(tmp_path, sample, payload):
    Store.create(tmp_path, SPEC)
    made = payload([sample(0), sample(1)])
    start = threading.Barrier(6)
    outcomes: list[str] = []

    def work() -> None:
        mine = Store.open(tmp_path)
        start.wait()
        try:
            outcomes.append(mine.commit(Stage.SHARDS, SHARD, OLD, *made).key)
        except LeaseHeldError:
            outcomes.append("held")

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(outcomes) == 6
    assert OLD in outcomes
    assert len(Store.open(tmp_path).shards()) == 1
    assert verify_bytes(Store.open(tmp_path), NUM_CLASSES) == []


# crashes

WORKER = """
import sys
import conftest
from storage.commits import Counts
from storage.records import Stage
from storage.rows import write_rows
from storage.store import Payload, Store
root, stage, key, num = sys.argv[1], Stage(sys.argv[2]), sys.argv[3], int(sys.argv[4])
store = Store.open(root)
samples = [conftest.make_sample(index) for index in range(num)]
plan = conftest.make_plan(samples, 1)
lost = conftest.make_dropped(plan, samples)
payload, counts = conftest.make_payload(samples)
if stage is Stage.PROMPTS:
    payload, counts = Payload(write_rows(lost)), Counts.of(1, 0, lost)
store.commit(stage, conftest.SLICE + "-000000", key, payload, counts)
"""

# step -> whether the next lookup finds the work done
FIRST_COMMIT = {
    "named:.engine/leases/shards/*": False,
    "temp:.engine/intents/*": False,
    "named:.engine/intents/*": False,
    "temp:data/*": False,
    "named:data/*": False,
    "temp:.engine/manifests/*": False,
    "named:.engine/manifests/*": True,
    "temp:.engine/commits/*": True,
    "named:.engine/commits/*": True,
    "deleted:.engine/intents/*": True,
}
REPLACEMENT = {
    "named:.engine/intents/*": False,
    "moved:.engine/commits/*": False,
    "temp:data/*": False,
    "moved:data/*": False,
    "named:data/*": False,
    "moved:.engine/manifests/*": False,
    "named:.engine/manifests/*": True,
    "temp:.engine/commits/*": True,
    "named:.engine/commits/*": True,
}


def crash(in_process, root: Path, step: str, *arguments: str) -> None:
    process = in_process(WORKER, str(root), *arguments, MAGICSEG_CRASH_AT=step)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors


def age_temporary_files(root: Path) -> list[Path]:
    temps = list(root.rglob("*.tmp"))
    for temp in temps:
        os.utime(temp, (time.time() - 3600, time.time() - 3600))
    return temps


@pytest.mark.parametrize("step", FIRST_COMMIT)
def test_a_kill_in_a_first_commit_leaves_a_valid_dataset(
    tmp_path, in_process, sample, payload, step
):
    whole = Store.create(tmp_path / "whole", SPEC)
    made = payload([sample(0), sample(1)])
    whole.commit(Stage.SHARDS, SHARD, OLD, *made)
    Store.create(tmp_path / "killed", SPEC)
    crash(in_process, tmp_path / "killed", step, "shards", OLD, "2")
    assert bool(age_temporary_files(tmp_path / "killed")) == step.startswith("temp:")

    store = Store.create(tmp_path / "killed", SPEC)
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    for shard in store.shards():
        assert store.defect(shard.commit, deep=True) == ""
    found = store.find(Stage.SHARDS, SHARD, OLD)
    assert (found is not None) == FIRST_COMMIT[step]
    store.commit(Stage.SHARDS, SHARD, OLD, *made)
    for path in (f"data/train-{SHARD}.tar", f".engine/manifests/{SHARD}.parquet"):
        assert store.objects.read(path) == whole.objects.read(path)
    assert verify_bytes(store, NUM_CLASSES) == []
    assert in_quarantine(store) == []


@pytest.mark.parametrize("step", REPLACEMENT)
def test_a_kill_while_a_shard_is_replaced_leaves_a_valid_dataset(
    tmp_path, in_process, sample, payload, step
):
    whole = Store.create(tmp_path / "whole", SPEC)
    made = payload([sample(0), sample(1)])
    whole.commit(Stage.SHARDS, SHARD, NEW, *made)
    killed = Store.create(tmp_path / "killed", SPEC)
    old = killed.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    crash(in_process, tmp_path / "killed", step, "shards", NEW, "2")

    store = Store.create(tmp_path / "killed", SPEC)
    for shard in store.shards():
        assert store.defect(shard.commit, deep=True) == ""
    if step == "named:.engine/intents/*":
        assert store.find(Stage.SHARDS, SHARD, OLD) == old
    assert (store.find(Stage.SHARDS, SHARD, NEW) is not None) == REPLACEMENT[step]
    store.commit(Stage.SHARDS, SHARD, NEW, *made)
    for path in (f"data/train-{SHARD}.tar", f".engine/manifests/{SHARD}.parquet"):
        assert store.objects.read(path) == whole.objects.read(path)
    assert verify_bytes(store, NUM_CLASSES) == []


@pytest.mark.parametrize(
    ("step", "adopted"),
    [
        ("temp:.engine/objects/*", False),
        ("named:.engine/objects/*", True),
        ("temp:.engine/commits/*", True),
        ("named:.engine/commits/*", True),
    ],
)
def test_a_stage_output_that_was_whole_at_the_kill_is_not_paid_twice(
    tmp_path, in_process, step, adopted
):
    Store.create(tmp_path, SPEC)
    crash(in_process, tmp_path, step, "prompts", OLD, "0")
    store = Store.create(tmp_path, SPEC)
    found = store.find(Stage.PROMPTS, SHARD, OLD)
    assert (found is not None) == adopted
    if found is not None:
        assert len(store.rows(found)) == 1
        assert store.commits(Stage.PROMPTS) == [found]
        assert verify_bytes(store, NUM_CLASSES) == []


def test_an_intent_whose_bytes_are_not_its_own_is_not_adopted(store):
    commit = commit_rows(store)
    (path,) = store.record_paths(Stage.PROMPTS)
    store.objects.move(path, path.replace("commits", "intents"))
    damage(store, commit.object.path, ROWS.data.replace(b"cat", b"cow", 1))
    assert store.find(Stage.PROMPTS, SHARD, OLD) is None
    assert store.commits() == []
