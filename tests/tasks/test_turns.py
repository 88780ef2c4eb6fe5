"""Turns on devices. There may be no GPU where this runs, so tests name the devices themselves."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from other_users import open_to_others
from storage.errors import InputError
from tasks.progress import Progress, StoppedError
from tasks.turns import Turns

HOLDER = """
import sys, time
from pathlib import Path
from tasks.turns import Turns

names = {"cuda": "gpu-" + sys.argv[1], "cuda:0": "gpu-" + sys.argv[1]}
folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
with Turns(lambda: None, name=names.__getitem__, folder=folder).turn("cuda:0"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    """Let another process hold a GPU; it is killed at the end."""
    processes = []

    def start(uuid, *arguments, **options):
        command = [sys.executable, "-c", HOLDER, uuid, *map(str, arguments or (tmp_path,))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def turns(tmp_path, uuid="A", check=lambda: None):
    """Turns of a worker that sees one GPU, as CUDA_VISIBLE_DEVICES gives it."""
    names = {"cuda": f"gpu-{uuid}", "cuda:0": f"gpu-{uuid}", "cpu": ""}
    return Turns(check, name=names.__getitem__, folder=tmp_path)


def is_free(own, device="cuda"):
    """Whether a device can be had at once, from another thread."""
    had = threading.Event()

    def take():
        with own.turn(device):
            had.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return had.wait(0.5)


def test_workers_on_two_gpus_that_both_call_theirs_cuda_do_not_wait_for_each_other(hold, tmp_path):
    hold("A")
    assert is_free(turns(tmp_path, "B"))


def test_workers_on_one_gpu_take_turns_and_a_killed_one_frees_it(hold, tmp_path):
    holder = hold("A")
    own = turns(tmp_path, "A")
    waiting = threading.Event()

    def take():
        with own.turn("cuda"):
            waiting.set()

    threading.Thread(target=take, daemon=True).start()
    assert not waiting.wait(0.5)
    os.kill(holder.pid, signal.SIGKILL)
    assert waiting.wait(10)


def test_cuda_and_its_first_index_are_one_gpu(tmp_path):
    own = turns(tmp_path)
    with own.turn("cuda"):
        assert not is_free(own, "cuda:0")
    assert is_free(own, "cuda:0")


def test_two_runs_of_one_process_take_turns_on_a_gpu_and_not_on_the_cpu(tmp_path):
    first, second = turns(tmp_path), turns(tmp_path)
    with first.turn("cuda"), first.turn("cpu"):
        assert not is_free(second, "cuda")
        assert is_free(second, "cpu")
        assert not is_free(first, "cpu")


def test_who_has_a_device_may_ask_for_it_again(tmp_path):
    own = turns(tmp_path)
    with own.turn("cuda"):
        with own.turn("cuda:0"):
            assert not is_free(own)
        assert not is_free(turns(tmp_path))


def test_who_waits_for_a_gpu_of_another_process_can_be_stopped(hold, tmp_path):
    hold("A")
    progress = Progress()
    own = turns(tmp_path, check=lambda: progress.check("the wait for a device"))
    threading.Timer(0.3, progress.stop).start()
    started = time.monotonic()
    with (
        pytest.raises(StoppedError, match="the wait for a device was interrupted"),
        own.turn("cuda"),
    ):
        pass
    assert time.monotonic() - started < 10


@pytest.mark.skipif(os.geteuid() != 0, reason="working as another user needs root")
def test_a_second_user_has_locks_of_their_own(tmp_path, monkeypatch):
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    open_to_others(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    for user in (0, 65534, 0):
        assert as_user(user, lambda: is_free(Turns(lambda: None, name=lambda _device: "gpu-A")))


def as_user(user, work):
    """Do something in a child process of another user; returns whether it was true."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    code = 1
    try:
        os.setuid(user)
        code = 0 if work() else 1
    finally:
        os._exit(code)


def test_a_folder_of_locks_that_somebody_else_planted_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"magicseg-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    own = Turns(lambda: None, name=lambda _device: "gpu-A")
    with pytest.raises(InputError, match="set TMPDIR to another folder"), own.turn("cuda"):
        pass
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    with own.turn("cuda"):
        pass


def served(own, waiting):
    """Let threads wait for a device in this order; returns the order in which they get it."""
    order, threads = [], []

    def take(name):
        with own.turn("cuda", of=name):
            order.append(name)

    with own.turn("cuda", of="holder"):
        for name in waiting:
            threads.append(threading.Thread(target=take, args=(name,), daemon=True))
            threads[-1].start()
            time.sleep(0.1)
    for thread in threads:
        thread.join(10)
    return order


def test_whose_work_began_first_is_next_whoever_came_first(tmp_path):
    own = turns(tmp_path)
    for name in ("holder", "a", "b"):
        with own.turn("cpu", of=name):
            pass
    assert served(own, ["c", "b", "a", "d", "a"]) == ["a", "a", "b", "c", "d"]


def test_a_device_that_is_free_again_is_had_at_once(tmp_path):
    """Two that take turns leave it idle for far less than the pause between two looks."""
    own, spans = turns(tmp_path), []

    def work(name):
        for _ in range(20):
            with own.turn("cpu", of=name):
                began = time.monotonic()
                time.sleep(0.01)
                spans.append((began, time.monotonic()))

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans.sort()
    idle = sorted(after[0] - before[1] for before, after in itertools.pairwise(spans))
    assert idle[0] >= 0, "one at a time"
    assert idle[len(idle) // 2] < 0.01


def test_a_run_with_many_threads_does_not_keep_a_gpu_from_another_one(tmp_path):
    busy, other = turns(tmp_path), turns(tmp_path)
    over, had = threading.Event(), []

    def work(name):
        while not over.is_set():
            with busy.turn("cuda", of=name):
                had.append(name)
                time.sleep(0.02)

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in "abc"]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    try:
        for _ in range(5):
            before = len(had)
            with other.turn("cuda"):
                assert len(had) <= before + 10, "it waits for a few turns at most"
    finally:
        over.set()
        for thread in threads:
            thread.join(10)
