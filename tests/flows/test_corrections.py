"""The command that takes in corrected masks, on a disk and in an object store."""

import json
import re
import sys

import pytest

from flows.__main__ import main
from labelled_datasets import VOCABULARY, commit_samples, key_of
from storage.corrections import current_corrections


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


@pytest.mark.parametrize("root", ["d", "memory://corrected"])
def test_masks_are_taken_in_listed_and_undone(root, tmp_path, type_line, typed_json, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = commit_samples(root, 2)
    code, said = type_line("export", "--dataset", root, "--format", "cvat", "--out", "out")
    assert code == 0, said
    assert "2 samples with 6 masks, with pictures" in said
    file = tmp_path / "out/annotations.xml"
    text = file.read_text(encoding="utf-8")
    other = VOCABULARY[12].name
    text = re.sub(rf'label="{VOCABULARY[1].name}"', f'label="{other}"', text, count=1)
    file.write_text(text, encoding="utf-8")
    done = typed_json("corrections", "import", root, file, "--why", "a [red] tree")
    assert done == {"tool": "CVAT", "changed": [key_of(1)], "unchanged": 1, "corrected": 1}
    (line,) = typed_json("corrections", "list", root)["corrected"]
    assert (line["key"], line["why"], other in line["objects"]) == (key_of(1), "a [red] tree", True)
    assert "a [red] tree" in type_line("corrections", "list", root)[1]
    assert typed_json("status", root)["slices"][0]["corrected"] == 1
    assert "the masks of 1 samples" in type_line("status", root)[1]
    assert "Masks that were corrected" in store.objects.read("README.md").decode()
    assert typed_json("verify", root, "--deep") == []
    assert "1 undone; 0" in type_line("corrections", "undo", root, key_of(1), "--why", "no")[1]
    assert current_corrections(store.objects) == {}
