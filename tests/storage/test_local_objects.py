import os
import time

import pytest

from other_users import open_to_others
from storage.errors import DataError, InputError
from storage.local_objects import LocalObjects
from storage.objects import open_file

VERBS = {
    "read": lambda objects, path: objects.read(path),
    "read_range": lambda objects, path: objects.read_range(path, 0, 1),
    "open": lambda objects, path: objects.open(path),
    "size": lambda objects, path: objects.size(path),
    "write_new": lambda objects, path: objects.write_new(path, b""),
    "replace": lambda objects, path: objects.replace(path, b""),
    "move": lambda objects, path: objects.move("there", path),
    "delete": lambda objects, path: objects.delete(path),
}
READERS = ("read", "read_range", "open", "size")


@pytest.fixture
def objects(tmp_path) -> LocalObjects:
    found = LocalObjects(tmp_path / "root")
    found.write_new("there", b"it")
    return found


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("there/x", r"root/there is a file, and a folder is expected there"),
        ("n" * 300, "at most 255 bytes"),
        ("/".join(["folder"] * 700), "a path 4096"),
    ],
)
def test_names_that_cannot_be_are_explained_by_every_method(objects, verb, path, words):
    with pytest.raises(InputError, match=words) as caught:
        VERBS[verb](objects, path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700


@pytest.mark.parametrize("verb", READERS)
def test_a_folder_or_a_pipe_is_no_file(objects, verb):
    (objects.root / "folder").mkdir()
    os.mkfifo(objects.root / "pipe")
    with pytest.raises(InputError, match="it is a folder, and a file is expected there"):
        VERBS[verb](objects, "folder")
    with pytest.raises(InputError, match="is no file but a pipe"):
        VERBS[verb](objects, "pipe")


@pytest.mark.parametrize("verb", READERS)
def test_links_in_a_circle_are_no_file(objects, verb):
    (objects.root / "circle").symlink_to("circle")
    with pytest.raises(InputError, match="links lead in a circle"):
        VERBS[verb](objects, "circle")


def test_a_root_that_is_a_file_is_explained(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    objects = LocalObjects(tmp_path / "file")
    for verb in READERS:
        with pytest.raises(InputError, match=r"file is a file, and a folder is expected there"):
            VERBS[verb](objects, "x")
    with pytest.raises(InputError, match=r"cannot list .*is a file"):
        objects.paths("")
    with pytest.raises(InputError, match=r"cannot write .*is a file"):
        objects.write_new("x", b"")


def test_a_folder_that_does_not_exist_is_empty(tmp_path):
    assert LocalObjects(tmp_path / "none").paths("") == []
    assert LocalObjects(tmp_path).paths("none/either") == []


AS_NOBODY = """
import os, sys
from pathlib import Path
from storage.errors import EngineError
from storage.local_objects import LocalObjects
objects = LocalObjects(Path(sys.argv[1]))
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for doing in (
    lambda: objects.paths("shut"),
    lambda: objects.paths(""),
    lambda: objects.read("shut/x"),
    lambda: objects.size("shut/x"),
    lambda: objects.read("secret"),
    lambda: objects.write_new("shut/y", b""),
    lambda: objects.sweep(""),
):
    try:
        print("no error:", doing())
    except EngineError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_another_user_may_not_see_is_told_with_who_and_whose(objects, in_process):
    open_to_others(objects.root)
    objects.write_new("shut/x", b"")
    objects.write_new("secret", b"")
    (objects.root / "shut").chmod(0o700)
    (objects.root / "secret").chmod(0o600)
    process = in_process(AS_NOBODY, str(objects.root))
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = output.splitlines()
    shut = rf"nobody has no right to it at {objects.root}/shut, which belongs to root (drwx------)"
    for line, start in zip(
        lines,
        ["list", "list", "read", "read", "read", "write", "list"],
        strict=True,
    ):
        assert line.startswith(f"InputError cannot {start} {objects.root}"), line
        assert "Permission denied" in line
    assert all(shut in line for index, line in enumerate(lines) if index != 4)
    assert "root/secret, which belongs to root (-rw-------)" in lines[4]
    assert "ask its owner for 'chmod -R a+rX'" in lines[0]
    assert "choose a root that this user can write to" in lines[5]


def test_a_link_that_leads_out_of_the_root_is_refused(objects, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_bytes(b"secret")
    (objects.root / "file").symlink_to(tmp_path / "outside" / "x")
    (objects.root / "folder").symlink_to(tmp_path / "outside")
    (objects.root / "beside").symlink_to("../root-of-another")
    for path in ("file", "folder/x", "folder/new", "beside"):
        for verb in VERBS.values():
            with pytest.raises(DataError, match=r"out of the dataset .*move the files in"):
                verb(objects, path)
    with pytest.raises(DataError, match="out of the dataset"):
        objects.paths("folder")
    assert (tmp_path / "outside" / "x").read_bytes() == b"secret"
    assert objects.read("there") == b"it"


def test_a_link_inside_the_root_and_a_linked_root_are_fine(objects, tmp_path):
    (objects.root / "link").symlink_to("there")
    (tmp_path / "alias").symlink_to("root")
    aliased = LocalObjects(tmp_path / "alias")
    assert aliased.read("link") == objects.read("link") == b"it"
    assert aliased.write_new("a/new", b"1")
    assert aliased.paths("") == objects.paths("") == ["a/new", "link", "there"]


def test_a_linked_folder_is_not_left_out_of_a_list_in_silence(objects):
    objects.write_new("a/x", b"")
    (objects.root / "b").symlink_to("a")
    with pytest.raises(InputError, match=r"root/b is a symbolic link to a folder"):
        objects.paths("")
    (objects.root / "b").unlink()
    assert objects.paths("") == ["a/x", "there"]


def test_a_file_that_a_caller_names_may_be_a_link(tmp_path):
    (tmp_path / "blob").write_bytes(b"it")
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "x").symlink_to(tmp_path / "blob")
    with open_file(tmp_path / "names" / "x") as file:
        assert file.read() == b"it"
    for path in ("names/", "names", "names/..", "names/x/y", ""):
        with pytest.raises(InputError):
            open_file(f"{tmp_path}/{path}")


@pytest.mark.parametrize("ahead", [3600.0, 400 * 86400.0])
def test_a_temporary_file_of_the_future_does_not_stay_for_ever(objects, ahead):
    temporary = objects.root / ".x.abcd.tmp"
    temporary.write_bytes(b"half")
    os.utime(temporary, (time.time() + ahead, time.time() + ahead))
    assert objects.sweep("") == [".x.abcd.tmp"]
    assert [path.name for path in objects.root.iterdir()] == ["there"]


def test_the_current_folder_may_be_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="current folder is gone"):
        open_file("x")
