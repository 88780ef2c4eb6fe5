import os
import signal
import time
from pathlib import Path

import pytest

from storage.card import write_card
from storage.checks import defect
from storage.records import Stage
from storage.store import Store
from storage.verification import verify_bytes

SPEC = {"seed": 7, "detector": {"model": "dino", "box_threshold": 0.3}, "classes": ["cat"]}
SHARD = "0badcafe-000000"
OLD, NEW = "a" * 64, "b" * 64
NUM_CLASSES = 1205

WORKER = """
import sys
import conftest
from storage.commits import Counts
from storage.records import Stage
from storage.rows import write_rows
from storage.payloads import Payload
from storage.store import Store
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
    tmp_path, in_process, sample, payload, step, in_quarantine, heal
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
        assert defect(store.objects, shard.commit, deep=True) == ""
    found = heal(store, Stage.SHARDS, SHARD, OLD)
    assert (found is not None) == FIRST_COMMIT[step]
    store.commit(Stage.SHARDS, SHARD, OLD, *made)
    for path in (f"data/train-{SHARD}.tar", f".engine/manifests/{SHARD}.parquet"):
        assert store.objects.read(path) == whole.objects.read(path)
    write_card(store)
    assert verify_bytes(store, NUM_CLASSES) == []
    assert in_quarantine(store) == []


@pytest.mark.parametrize("step", REPLACEMENT)
def test_a_kill_while_a_shard_is_replaced_leaves_a_valid_dataset(
    tmp_path, in_process, sample, payload, step, heal
):
    whole = Store.create(tmp_path / "whole", SPEC)
    made = payload([sample(0), sample(1)])
    whole.commit(Stage.SHARDS, SHARD, NEW, *made)
    killed = Store.create(tmp_path / "killed", SPEC)
    old = killed.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    crash(in_process, tmp_path / "killed", step, "shards", NEW, "2")

    store = Store.create(tmp_path / "killed", SPEC)
    for shard in store.shards():
        assert defect(store.objects, shard.commit, deep=True) == ""
    if step == "named:.engine/intents/*":
        assert store.look(Stage.SHARDS, SHARD, OLD) == old
    assert (heal(store, Stage.SHARDS, SHARD, NEW) is not None) == REPLACEMENT[step]
    store.commit(Stage.SHARDS, SHARD, NEW, *made)
    for path in (f"data/train-{SHARD}.tar", f".engine/manifests/{SHARD}.parquet"):
        assert store.objects.read(path) == whole.objects.read(path)
    write_card(store)
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
    tmp_path, in_process, step, adopted, heal
):
    Store.create(tmp_path, SPEC)
    crash(in_process, tmp_path, step, "prompts", OLD, "0")
    store = Store.create(tmp_path, SPEC)
    found = heal(store, Stage.PROMPTS, SHARD, OLD)
    assert (found is not None) == adopted
    if found is not None:
        assert len(store.rows(found)) == 1
        assert store.commits(Stage.PROMPTS) == [found]
        write_card(store)
        assert verify_bytes(store, NUM_CLASSES) == []
