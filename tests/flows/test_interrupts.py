"""Interruptions while a run still starts: it ends in words, and leaves no process behind."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flows import __main__ as entry
from processes import end_processes

CODE = "import sys; frame = sys._getframe()"


def frame_of(file):
    """A frame of code from a file of this name."""
    names = {}
    exec(compile(CODE, file, "exec"), names)  # noqa: S102
    return names["frame"]


def test_an_interruption_at_work_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt):
        entry.Interruption()(signal.SIGINT, frame_of("models/networks.py"))


def test_an_interruption_in_an_import_comes_when_that_is_over(tmp_path, monkeypatch):
    """Libraries catch everything there, and importlib itself holds the lock of all imports."""
    module = tmp_path / "interrupted_module.py"
    module.write_text(
        "import signal, time\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    time.sleep(0.2)\n"
        "    caught = False\n"
        "except BaseException:\n"
        "    caught = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.signal(signal.SIGINT, entry.Interruption())
    end = threading.Event()
    threading.Thread(target=end.wait).start()  # imports too, for all that one knows
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it comes after the import
            imported = importlib.import_module("interrupted_module")
            time.sleep(60)
    finally:
        signal.signal(signal.SIGINT, before)
        end.set()
    assert not imported.caught


def test_an_import_that_hangs_is_interrupted(monkeypatch):
    importing = frame_of("<frozen importlib._bootstrap>")
    monkeypatch.setattr(entry, "_PATIENCE_SECONDS", 0.0)
    end = threading.Event()
    threading.Thread(target=end.wait).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            entry.Interruption()(signal.SIGINT, importing)
    finally:
        end.set()


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.0, 1.0, 3.0])
def test_a_run_that_is_interrupted_while_it_starts_ends(tmp_path, number, seconds):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_API")}
    command = [sys.executable, "-m", "flows", "generate", "--root", "d", "--samples", "2"]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "1 to do" in run.stdout.readline()
        time.sleep(seconds)
        run.send_signal(number)
        _, errors = run.communicate(timeout=300)
    finally:
        end_processes([run])
    assert (run.returncode, "interrupted" in errors) == (130, True), errors
    log = tmp_path / "d/.engine/prefect/server.log"
    late = time.monotonic() + 60  # a server that was just born looks for its parent a moment later
    while log.exists() and _holders(log):
        assert time.monotonic() < late, "a server was left behind"
        time.sleep(0.1)


def _holders(path):
    """Processes that write to a file, as a server does to its log."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - names
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if os.readlink(f"/proc/{process}/fd/1") == str(path):  # noqa: PTH115 - no path of ours
                found.append(process)
    return found
