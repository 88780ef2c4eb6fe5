import threading
import time

import pytest

from storage.card import write_card
from storage.errors import LeaseHeldError
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


def test_the_second_writer_of_an_output_is_refused_before_it_works(store, root, commit_rows):
    with store.lease(Stage.PROMPTS, SHARD):
        with (
            pytest.raises(LeaseHeldError, match=f"prompts/{SHARD}.lock is held by process"),
            Store.open(root).lease(Stage.PROMPTS, SHARD),
        ):
            pytest.fail("two holders")
        commit = commit_rows(store)
    other = Store.open(root)
    with other.lease(Stage.PROMPTS, SHARD):
        assert other.look(Stage.PROMPTS, SHARD, OLD) == commit


def test_a_commit_without_a_lease_takes_it(store, root, commit_rows):
    with store.lease(Stage.PROMPTS, SHARD), pytest.raises(LeaseHeldError):
        commit_rows(Store.open(root))
    commit_rows(Store.open(root))
    assert len(store.commits()) == 1


def test_a_lost_lease_commits_nothing(monkeypatch, commit_rows):
    store = Store.create("memory://lost-lease", SPEC)
    now = time.monotonic
    with store.lease(Stage.PROMPTS, SHARD):
        monkeypatch.setattr(time, "monotonic", lambda: now() + 1000)  # as if the machine had slept
        with pytest.raises(LeaseHeldError, match="nothing was committed"):
            commit_rows(store)
    assert store.commits() == []


@pytest.mark.parametrize(
    "lost", [".lock", "spec.json", f"train-{SHARD}.tar", f"{OLD[:16]}.json", ".parquet"]
)
def test_a_write_whose_answer_was_lost_is_recognised_when_it_is_repeated(
    bucket, sample, payload, lost, in_quarantine
):
    bucket.answers_to_lose.append(lost)
    store = Store.create("s3://bucket/root", SPEC)
    with store.lease(Stage.SHARDS, SHARD):
        commit = store.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    assert bucket.answers_to_lose == []
    assert store.look(Stage.SHARDS, SHARD, OLD, deep=True) == commit
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
    write_card(Store.open(tmp_path))
    assert verify_bytes(Store.open(tmp_path), NUM_CLASSES) == []


def in_threads(*works) -> list[str]:
    """Run functions at the same moment; returns what each returned, or that it was held."""
    start = threading.Barrier(len(works))
    outcomes: list[str] = []

    def run(work) -> None:
        start.wait()
        try:
            outcomes.append(work())
        except LeaseHeldError:
            outcomes.append("held")

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_threads_that_share_a_store_do_not_share_its_leases(tmp_path, rows):
    store = Store.create(tmp_path, SPEC)
    with store.lease(Stage.PROMPTS, SHARD):
        (outcome,) = in_threads(lambda: store.commit(Stage.PROMPTS, SHARD, OLD, *rows).key)
    assert outcome == "held"
    assert store.commits() == []


def test_threads_that_share_a_store_commit_one_shard_once(tmp_path, sample, payload):
    store = Store.create(tmp_path, SPEC)
    made = payload([sample(0), sample(1)])
    outcomes = in_threads(*[lambda: store.commit(Stage.SHARDS, SHARD, OLD, *made).key] * 6)
    assert set(outcomes) <= {OLD, "held"}
    assert OLD in outcomes
    assert len(store.shards()) == 1
    write_card(store)
    assert verify_bytes(store, NUM_CLASSES) == []


def test_threads_that_share_a_store_commit_several_shards_at_once(tmp_path, rows):
    store = Store.create(tmp_path, SPEC)
    names = [f"0badcafe-{number:06d}" for number in range(8)]
    works = [
        lambda name=name: store.commit(Stage.PROMPTS, name, OLD, *rows).shard for name in names
    ]
    assert sorted(in_threads(*works)) == names
    assert [commit.shard for commit in store.commits()] == names


COMMIT = """
import sys
import conftest
from storage.card import write_card
from storage.errors import LeaseHeldError
from storage.records import Stage
from storage.store import Store
root, shard = sys.argv[1:]
store = Store.open(root)
made = conftest.make_payload([conftest.make_sample(index) for index in range(2)])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    try:
        print(store.commit(Stage.SHARDS, shard, conftest.KEY, *made).shard, flush=True)
    except LeaseHeldError:
        print("held", flush=True)
"""


@pytest.mark.parametrize("same", [True, False])
def test_two_processes_commit_at_once(tmp_path, in_process, same):
    Store.create(tmp_path, SPEC)
    names = [SHARD, SHARD if same else SHARD.replace("000000", "000001")]
    processes = [in_process(COMMIT, str(tmp_path), name) for name in names]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    said = {word for output, _ in outputs for word in output.split()}
    assert said - {"held"} == set(names)
    store = Store.open(tmp_path)
    assert [shard.name for shard in store.shards()] == sorted(set(names))
    assert store.objects.paths(".engine/quarantine") == []
    assert store.objects.paths(".engine/intents") == []
