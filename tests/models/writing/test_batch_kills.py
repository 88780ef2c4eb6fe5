"""A process that asks by batches is killed at every step; each text is paid once."""

import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from storage.ledger import Ledger
from storage.objects import open_objects

ROOT = Path(__file__).parents[3]
CODE = """
import sys
from datetime import UTC, datetime
from models.protocols import TextRequest
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from storage.ledger import Ledger
from storage.objects import open_objects
from storage.vocabulary import load_vocabulary

root, url = sys.argv[1:]
config = ChatWriterConfig(model="m", base_url=url, api_key_env=None, mode="batch", max_retries=0)
cat = load_vocabulary("lvis1205").by_name("cat")
writer = ChatWriter(config, Ledger(open_objects(root)))
wishes = [TextRequest((cat,), 2, seed) for seed in range(6)]
writer.settle(lambda: None)
answers = writer.write(wishes)
if any(each.awaited for each in answers):
    writer.send(lambda: None, lambda: True)
    answers = writer.write(wishes)
print(sum(bool(each.texts) for each in answers))
"""
"""What a run does, in a process of its own."""

STEPS = [
    f"{what}:.engine/ledger/batches/*/{name}"
    for name in ("requests.jsonl", "calls.json", "intent.json", "state.json", "settled.json")
    for what in ("temp", "named")
]
STEPS += [
    "named:.engine/leases/batches.lock",
    "deleted:.engine/ledger/batches/*/requests.jsonl",
    "temp:.engine/ledger/answers/*",
    "named:.engine/ledger/answers/*",
]
CALLS = [
    "GET /batches",
    "POST /files",
    "POST /batches",
    "GET /batches/batch-0000",
    "GET /files/*/content",
]


def run(root, url, crash_at=""):
    """One run: its exit code (negative: the signal), how many requests have texts, its errors."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(root), url],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MAGICSEG_CRASH_AT": crash_at},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.strip(), done.stderr


def finish_all(server):
    for name in server.open():
        server.finish(name)


def require_paid_once(root, server):
    """Runs go on until all is answered, and what that took was paid once and counted once."""
    for _ in range(3):
        code, texts, said = run(root, server.url)
        assert code == 0, said
        if texts == "6":
            break
        finish_all(server)
    assert texts == "6"
    assert len(server.batches) == 1
    assert list(server.paid.values()) == [1] * 6
    ledger = Ledger(open_objects(root))
    assert ledger.totals().calls == 6
    assert ledger.batches.worst(None) == (0, 0.0)
    with ledger.batches.leased(lambda: None):  # whoever makes batches next clears up
        left = {path.name for path in root.glob(".engine/ledger/batches/*/[!.]*")}
    assert left <= {"intent.json", "state.json", "settled.json"}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_a_step_on_the_disk_pays_nothing_twice(batch_server, tmp_path, step):
    codes = []
    for _ in range(2):  # once while the batch is made, once while it is settled
        codes.append(run(tmp_path, batch_server.url, step)[0])
        finish_all(batch_server)
    assert -9 in codes, "nobody was killed"
    require_paid_once(tmp_path, batch_server)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("moment", ["on_request", "on_done"])
def test_a_kill_around_a_request_pays_nothing_twice(batch_server, tmp_path, call, moment):
    processes, killed = [], []

    def kill(made):
        if fnmatchcase(made, call) and not killed:
            killed.append(made)
            processes[-1].kill()
            processes[-1].wait()

    setattr(batch_server, moment, kill)
    for _ in range(2):  # once while the batch is made, once while it is settled
        with subprocess.Popen(
            [sys.executable, "-c", CODE, str(tmp_path), batch_server.url],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            processes.append(process)
            process.wait(120)
        finish_all(batch_server)
    assert killed
    require_paid_once(tmp_path, batch_server)
