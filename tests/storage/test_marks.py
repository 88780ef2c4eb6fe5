"""Flags and notes: kept as acts beside the exclusions, by any number of people at a time."""

import subprocess
import sys

import pytest

from storage.errors import DataError
from storage.layout import MARK_FOLDER
from storage.marks import Marked, current_marks, mark_samples, read_marks
from storage.merging import merge_datasets
from storage.objects import open_objects
from storage.store import Store
from storage.verification import repair, verify_records


def test_the_last_mark_of_a_kind_counts_and_all_are_kept(root):
    objects = open_objects(root)
    mark_samples(objects, ["a", "b"], "flag", who="ann")
    mark_samples(objects, ["a"], "note", who="bob", text="two cats")
    mark_samples(objects, ["b"], "unflag", who="bob")
    mark_samples(objects, ["a"], "note", who="ann", text="")
    history = read_marks(objects)
    assert [(line.key, line.act, line.who) for line in history] == [
        ("a", "flag", "ann"),
        ("b", "flag", "ann"),
        ("a", "note", "bob"),
        ("b", "unflag", "bob"),
        ("a", "note", "ann"),
    ]
    assert current_marks(history[:3]) == {"a": Marked(True, "two cats"), "b": Marked(True)}
    assert current_marks(history) == {"a": Marked(True), "b": Marked()}


def test_two_who_mark_at_one_time_are_both_heard(tmp_path):
    program = (
        "import sys; from storage.objects import open_objects;"
        "from storage.marks import mark_samples;"
        "[mark_samples(open_objects(sys.argv[1]), [f'{sys.argv[2]}{n}'], 'flag', who='p')"
        " for n in range(20)]"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "ab"
    ]
    assert [process.wait() for process in processes] == [0, 0]
    marks = current_marks(read_marks(open_objects(tmp_path)))
    assert set(marks) == {f"{name}{n}" for name in "ab" for n in range(20)}


@pytest.mark.parametrize("damage", ["cut", "renamed", "foreign"])
def test_a_damaged_file_is_named_and_put_aside_by_repair(tmp_path, damage):
    store = Store.create(tmp_path, {"seed": 1})
    mark_samples(store.objects, ["a", "b"], "flag", who="ann")
    (file,) = (tmp_path / MARK_FOLDER).iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:40])
    elif damage == "renamed":
        file.rename(file.with_name("000001-0123456789abcdef.jsonl"))
    else:
        file.rename(file.with_name("notes.txt"))
    with pytest.raises(DataError, match=r"marks/.* is not what was written"):
        read_marks(store.objects)
    assert [finding.path.startswith(MARK_FOLDER) for finding in verify_records(store)] == [True]
    assert all(finding.repaired for finding in repair(store, None))
    assert read_marks(store.objects) == []


def test_a_merge_has_the_marks_of_its_sources_once(tmp_path):
    plan = {"vocabulary": "miniature"}
    stores = [Store.create(tmp_path / name, {"plan": plan, "seed": name}) for name in "ab"]
    mark_samples(stores[0].objects, ["0badcafe00000001"], "note", who="ann", text="dark")
    for _ in range(2):
        merge_datasets([store.root for store in stores], tmp_path / "both")
    (line,) = read_marks(open_objects(tmp_path / "both"))
    assert (line.key, line.text) == ("0badcafe00000001", "dark")
