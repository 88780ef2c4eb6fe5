"""What a terminal can do to a command: close the pipe, lack letters, fill the disk, interrupt."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare

FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with datasets that have begun, one under a name that ASCII lacks."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("d", "caf\u00e9"):
        with prepare(GenerationParameters(root=str(folder / name), samples=8)):
            pass
    return folder


@pytest.fixture
def shell(place):
    """Run a line of a shell in which magicseg is the command line; exit code, output, errors."""

    def run(line, **variables):
        script = f'magicseg() {{ "{sys.executable}" -m flows "$@"; }}; set -o pipefail; {line}'
        done = subprocess.run(
            ["bash", "-c", script],  # noqa: S607
            cwd=place,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize(
    "command",
    ["--help", "plan --help", "plan --root d --samples 8", "status d", "status d --json"],
)
def test_a_reader_who_has_gone_ends_a_command_quietly(shell, command):
    code, out, err = shell(f"magicseg {command} | true")
    assert (code, out, err) == (128 + signal.SIGPIPE, "", "")


def test_errors_without_a_reader_end_quietly_too(shell):
    assert shell("magicseg status none 2>&1 | true") == (128 + signal.SIGPIPE, "", "")


@pytest.mark.parametrize("command", ["status", "plan --samples 8 --root", "verify"])
def test_a_terminal_without_our_letters_gets_others(shell, command):
    line = f"magicseg {command} caf\u00e9"
    code, out, err = shell(line, PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "")
    assert out.isascii()
    assert "caf\\xe9" in out


def test_help_and_errors_are_written_on_a_terminal_without_our_letters(shell):
    code, out, _ = shell("magicseg --help", PYTHONIOENCODING="ascii")
    assert code == 0
    assert out.isascii()
    code, _, err = shell("magicseg status caf\u00e8", PYTHONIOENCODING="ascii")
    assert code == 2
    assert "caf\\xe8" in err


def test_json_is_json_on_every_terminal(shell):
    for variables in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "utf-8"}):
        code, out, _ = shell("magicseg status caf\u00e9 --json", **variables)
        assert code == 0
        assert json.loads(out)["root"].endswith("caf\u00e9")


def test_a_name_that_is_no_text_at_all_ends_no_command(shell):
    code, _, err = shell("magicseg status $'caf\\xe9'")
    assert code == 2
    assert "there is no dataset" in err


def test_a_command_runs_without_any_output(shell):
    assert shell("magicseg status d >&- 2>&-") == (0, "", "")
    assert shell("magicseg status none >&- 2>&-") == (2, "", "")


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", ["status d", "status d --json", "--help"])
def test_output_that_finds_no_space_is_work_left(shell, command):
    code, _, err = shell(f"magicseg {command} > {FULL}")
    assert code == 3
    assert err.startswith("error: no space left on device; free some space")
    assert len(err.splitlines()) == 1


def test_an_interrupt_while_libraries_load_ends_in_words(place, tmp_path):
    started = tmp_path / "started"
    code = (
        "import sys, pathlib, time, importlib.abc\n"
        "class Slow(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == LIBRARY:\n"
        f"            pathlib.Path({str(started)!r}).touch()\n"
        # In short sleeps: a signal that comes just before a sleep begins is handled after it.
        "            for _ in range(600): time.sleep(0.1)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from flows.__main__ import main\n"
        "main()\n"
    )
    for library in ("cyclopts", "pydantic", "pyarrow"):
        for sent in (signal.SIGINT, signal.SIGTERM):
            started.unlink(missing_ok=True)
            process = subprocess.Popen(
                [sys.executable, "-c", f"LIBRARY = {library!r}\n{code}", "status", "d"],
                cwd=place,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                while not started.exists():
                    assert process.poll() is None, process.communicate()
                    time.sleep(0.01)
                process.send_signal(sent)
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
                process.communicate()
            assert (process.returncode, out) == (130, ""), library
            assert err == (
                "interrupted; what was finished is kept, run the command again to go on\n"
            )


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_report_that_finds_no_space_says_so(shell, place, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    run = place / "run"
    run.mkdir()
    steps = [json.dumps({"step": step, "loss": 0.5}) for step in range(50)]
    (run / "metrics.jsonl").write_text("\n".join(steps) + "\n")
    options = ["-t", "tmpfs", "-o", "size=4k", "tmpfs", str(small)]
    if subprocess.run(["mount", *options], check=False).returncode:  # noqa: S607
        pytest.skip("no tmpfs can be mounted here")
    try:
        code, _, err = shell(f"magicseg report --run run --out {small}/r.html")
        assert code == 3
        assert "no space left on device; free some space" in err
        assert len(err.splitlines()) == 1
    finally:
        subprocess.run(["umount", str(small)], check=True)  # noqa: S607
