"""The command that leaves samples out of a dataset."""

import json
import sys

import pytest

from flows.__main__ import main
from storage.exclusions import excluded_keys


@pytest.fixture
def typed_json(monkeypatch, capsys):
    """Run a command with --json in this process: what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["magicseg", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        return json.loads(said.out)

    return run


def test_samples_are_left_out_shown_and_taken_back(commit_drawn, tmp_path, typed_json, capsys):
    root = tmp_path / "d"
    store = commit_drawn(root, 3)
    keys = [f"{number:016x}" for number in range(3)]
    names = tmp_path / "keys.txt"
    names.write_text(f"{keys[1]}\r\n\n{keys[2]}\n", encoding="utf-16")
    changed = typed_json("exclusions", "add", root, keys[0], "--keys", names, "--why", "torn [red]")
    assert changed == {"changed": 3, "excluded": 3}
    assert typed_json("exclusions", "undo", root, keys[1], "--why", "whole")["excluded"] == 2
    shown = typed_json("exclusions", "list", root)["excluded"]
    assert [(line["key"], line["by"], line["why"]) for line in shown] == [
        (keys[0], "hand", "torn [red]"),
        (keys[2], "hand", "torn [red]"),
    ]
    assert excluded_keys(store.objects) == {keys[0], keys[2]}
    status = typed_json("status", root)["slices"]
    assert sum(part["excluded"].get("hand", 0) for part in status) == 2
    assert "2 of the samples above are in the tars" in (root / "README.md").read_text()


def test_the_list_is_for_people_too(commit_drawn, tmp_path, monkeypatch, capsys):
    root = tmp_path / "d"
    commit_drawn(root, 1)
    key = f"{0:016x}"
    for line in (["add", root, key, "--why", "torn [red]"], ["list", root]):
        monkeypatch.setattr(sys, "argv", ["magicseg", "exclusions", *map(str, line)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "1 samples changed; 1 are excluded now" in said
    assert f"{key}  hand, " in said
    assert "torn [red]" in said
