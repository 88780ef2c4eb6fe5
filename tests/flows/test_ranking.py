"""The command that orders samples by doubt, and what is done with its files."""

import csv
import io
import json
import shlex
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from flows.__main__ import main
from noisy_scenes import commit_scenes
from runs import write_run
from storage.exclusions import exclude_samples, excluded_keys


@pytest.fixture
def typed(monkeypatch, capsys):
    """Run a command in this process: what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["magicseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        return said.out

    return run


def test_the_first_samples_are_looked_at_and_excluded_by_the_line_that_is_printed(
    tmp_path, typed, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    store = commit_scenes(tmp_path / "my data", [20, 20])
    out = tmp_path / "the rank"
    said = typed("rank", tmp_path / "my data", "--out", out, "--top", 3)
    assert "40 samples ranked, 0 are excluded already" in said
    keys = (out / "keys.txt").read_text().split()
    assert len(keys) == 3
    assert all(key in said for key in keys)
    rows = list(csv.DictReader(io.StringIO((out / "rank.csv").read_text())))
    assert [row["key"] for row in rows[:3]] == keys
    assert len(rows) == 40
    whole = json.loads((out / "rank.json").read_text())
    assert [each["key"] for each in whole["samples"]] == [row["key"] for row in rows]
    with Image.open(out / "sheet.png") as sheet:
        assert min(sheet.size) > 128
    # a person strikes out what is right; the line that was printed does the rest
    (out / "keys.txt").write_text("\n".join(keys[:2]) + "\n")
    [line] = [each for each in said.splitlines() if each.startswith("magicseg exclusions add")]
    assert "2 samples changed; 2 are excluded now" in typed(*shlex.split(line)[1:])
    assert excluded_keys(store.objects) == set(keys[:2])
    again = json.loads(typed("rank", tmp_path / "my data", "--json"))
    assert (again["ranked"], again["excluded"]) == (38, 2)
    assert not set(keys[:2]) & {each["key"] for each in again["samples"]}
    assert len(again["samples"]) == 20


def test_nothing_is_written_without_a_folder_and_nothing_left_is_told(
    tmp_path, typed, refused, monkeypatch
):
    root = tmp_path / "d"
    store = commit_scenes(root, [2])
    before = sorted(tmp_path.rglob("*"))
    assert "2 samples ranked" in typed("rank", root)
    assert sorted(tmp_path.rglob("*")) == before
    other = tmp_path / "notes"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    assert "holds other files" in refused("rank", root, "--out", other)
    assert "give --out" in refused("rank", root, "--run", tmp_path)
    assert "name its run with --run" in refused("rank", root, "--set", "templates=x")
    (tmp_path / "noise" / "fold-1-of-3").mkdir(parents=True)
    said = refused("rank", root, "--run", tmp_path / "noise", "--out", tmp_path / "o")
    assert "holds 1 folds of 3" in said
    exclude_samples(store, ["0badcafe00000000", "0badcafe00000001"], who="me", why="torn")
    monkeypatch.setattr(sys, "argv", ["magicseg", "rank", str(root)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3


def test_records_are_ranked_without_the_libraries_of_networks():
    code = "import sys, flows.ranking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_ranking_that_is_killed_goes_on_with_the_next_shard(magicseg, run, tmp_path):
    root, out = tmp_path / "d", tmp_path / "rank"
    commit_scenes(root, [6] * 8)
    student = write_run(tmp_path / "run")
    line = ("rank", root, "--run", student, "--out", out, "--top", 5)
    killed = magicseg(*line)
    deadline = time.monotonic() + 120
    while not list(out.glob("judged/*.json")):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    made = {path: path.stat().st_mtime_ns for path in out.glob("judged/*.json")}
    assert 0 < len(made) < 8
    code, said, err = run(*line, "--json")
    assert code == 0, err
    shown = json.loads(said)
    assert (shown["ranked"], len(shown["samples"])) == (48, 5)
    assert all("student" in each["values"] for each in shown["samples"])
    assert {path: path.stat().st_mtime_ns for path in made} == made
    # a file that somebody cut is asked again, and the order is the same
    next(iter(made)).write_text('{"shard"')
    before = (out / "rank.json").read_bytes()
    code, _, err = run(*line)
    assert code == 0, err
    assert (out / "rank.json").read_bytes() == before
