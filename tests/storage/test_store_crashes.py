import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fault_points import FIRST_COMMIT, PIECE, REPLACEMENT, RUN, kind_of
from storage.card import write_card
from storage.checks import defect
from storage.commits import Counts, Verdict
from storage.payloads import Payload
from storage.records import Reason, Rejected, Stage
from storage.rows import write_rows
from storage.store import Store
from storage.verification import Finding, verify_bytes

SPEC = {"seed": 7, "detector": {"model": "dino", "box_threshold": 0.3}, "classes": ["cat"]}
SHARD, CELL = "0badcafe-000000", "0badcafe-p0000000"
OLD, NEW = "a" * 64, "b" * 64
NUM_CLASSES = 1205


def crash(root: Path, step: str, *commit: Any) -> None:
    """Commit in a fork of this process, which a fault point kills.

    Sound beside other threads: the child touches files alone, and never comes back.
    """
    child = os.fork()
    if not child:
        try:
            os.environ["MAGICSEG_CRASH_AT"] = step
            Store.open(root).commit(*commit)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def findings(store: Store) -> list[Finding]:
    write_card(store)  # as a run does at its end
    return verify_bytes(store, NUM_CLASSES)


def age_temporary_files(root: Path) -> list[Path]:
    temps = list(root.rglob("*.tmp"))
    for temp in temps:
        os.utime(temp, (time.time() - 3600, time.time() - 3600))
    return temps


@pytest.mark.parametrize("step", FIRST_COMMIT)
def test_a_kill_in_a_first_commit_leaves_a_valid_dataset(
    tmp_path, sample, payload, step, in_quarantine, heal
):
    whole = Store.create(tmp_path / "whole", SPEC)
    made = payload([sample(0), sample(1)])
    whole.commit(Stage.SHARDS, SHARD, OLD, *made)
    Store.create(tmp_path / "killed", SPEC)
    crash(tmp_path / "killed", step, Stage.SHARDS, SHARD, OLD, *made)
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
    assert findings(store) == []
    assert in_quarantine(store) == []


@pytest.mark.parametrize("step", REPLACEMENT)
def test_a_kill_while_a_shard_is_replaced_leaves_a_valid_dataset(
    tmp_path, sample, payload, step, heal
):
    whole = Store.create(tmp_path / "whole", SPEC)
    made = payload([sample(0), sample(1)])
    whole.commit(Stage.SHARDS, SHARD, NEW, *made)
    killed = Store.create(tmp_path / "killed", SPEC)
    old = killed.commit(Stage.SHARDS, SHARD, OLD, *payload([sample(0)]))
    crash(tmp_path / "killed", step, Stage.SHARDS, SHARD, NEW, *made)

    store = Store.create(tmp_path / "killed", SPEC)
    for shard in store.shards():
        assert defect(store.objects, shard.commit, deep=True) == ""
    if step == "named:.engine/intents/*":
        assert store.look(Stage.SHARDS, SHARD, OLD) == old
    assert (heal(store, Stage.SHARDS, SHARD, NEW) is not None) == REPLACEMENT[step]
    store.commit(Stage.SHARDS, SHARD, NEW, *made)
    for path in (f"data/train-{SHARD}.tar", f".engine/manifests/{SHARD}.parquet"):
        assert store.objects.read(path) == whole.objects.read(path)
    assert findings(store) == []


@pytest.fixture
def piece():
    """One sample of a cell, written; another, that a service did not deliver."""
    rows = [
        Rejected(
            key="0badcafe00000000",
            stage=Stage.PROMPTS,
            reason=Reason.TEXT_TOO_LONG,
            detail="80 > 77",
        ),
        Rejected(
            key="0badcafe00000001",
            stage=Stage.PROMPTS,
            reason=Reason.WRITER_FAILED,
            detail="no answer",
        ),
    ]
    about = {
        "verdicts": {rows[0].key: Verdict(key="1" * 16, output="")},
        "undelivered": {rows[1].key: rows[1].reason},
    }
    return Payload(write_rows(rows), about=about), Counts.of(2, 0, rows)


@pytest.mark.parametrize("step", PIECE)
def test_a_piece_that_was_whole_at_the_kill_is_not_paid_twice(
    tmp_path, step, piece, heal, in_quarantine
):
    Store.create(tmp_path, SPEC)
    crash(tmp_path, step, Stage.PROMPTS, CELL, OLD, *piece)
    assert bool(age_temporary_files(tmp_path)) == step.startswith("temp:")
    store = Store.create(tmp_path, SPEC)
    assert not list(tmp_path.rglob("*.tmp"))
    found = heal(store, Stage.PROMPTS, CELL, OLD)
    assert (found is not None) == PIECE[step]
    made = store.commit(Stage.PROMPTS, CELL, OLD, *piece)
    assert made.verdicts == piece[0].about["verdicts"]
    assert found is None or found == made
    assert store.pieces(Stage.PROMPTS, CELL) == [made]
    assert len(store.rows(made)) == 2
    assert findings(store) == []
    assert all("intents" in path or path == "reason.txt" for path in in_quarantine(store))


def steps_of(work: Callable[[], object]) -> set[str]:
    """The fault points that some work passes."""
    passed: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_name == "crash_point" and "step" in frame.f_locals:
            passed.add(kind_of(frame.f_locals["step"]))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return passed


def test_every_fault_point_of_the_work_is_among_those_that_are_tried(
    tmp_path, sample, payload, piece
):
    passed = steps_of(lambda: Store.create(tmp_path, SPEC))
    store = Store.open(tmp_path)
    shard, other = payload([sample(0)]), payload([sample(0), sample(1)])
    passed |= steps_of(lambda: store.commit(Stage.PROMPTS, CELL, OLD, *piece))
    passed |= steps_of(lambda: store.commit(Stage.SHARDS, SHARD, OLD, *shard))
    passed |= steps_of(lambda: store.commit(Stage.SHARDS, SHARD, NEW, *other))
    passed |= steps_of(lambda: write_card(store))
    # what a kill in the quarantine leaves, the reason of a move that did not happen, is for nobody
    passed = {step for step in passed if "quarantine" not in step}
    tried = {kind_of(step) for step in (*FIRST_COMMIT, *REPLACEMENT, *PIECE, *RUN)}
    assert passed == tried


def test_the_page_has_a_row_for_every_fault_point():
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")
    _, _, table = page.partition("### Crash here")
    table, _, _ = table.partition("\n\nAfter each")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = [step for row in rows for step in re.findall(r"`([a-z]+:[^`]+)`", row)]
    tried = {kind_of(step) for step in (*FIRST_COMMIT, *REPLACEMENT, *PIECE, *RUN)}
    assert sorted(told) == sorted(tried)
