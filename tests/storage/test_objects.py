import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from storage.errors import InputError
from storage.local_objects import LocalObjects
from storage.objects import ObjectStore, open_file, open_objects


@pytest.fixture
def objects(root) -> ObjectStore:
    return open_objects(root)


def test_bytes_come_back_whole_and_in_parts(objects):
    assert objects.write_new("a/b.bin", memoryview(b"0123456789"))
    assert objects.read("a/b.bin") == b"0123456789"
    assert objects.read_range("a/b.bin", 2, 3) == b"234"
    assert objects.size("a/b.bin") == 10
    with objects.open("a/b.bin") as file:
        file.seek(8)
        assert file.read() == b"89"


def test_a_taken_name_is_not_written_again(objects):
    assert objects.write_new("x", b"first")
    assert not objects.write_new("x", b"second")
    assert objects.read("x") == b"first"


def test_replace_creates_and_replaces(objects):
    objects.replace("x", b"first")
    objects.replace("x", b"second")
    assert objects.read("x") == b"second"


def test_move_says_whether_there_was_anything(objects):
    objects.write_new("a/x", b"it")
    assert objects.move("a/x", "b/c/x")
    assert not objects.move("a/x", "b/c/y")
    assert objects.paths("") == ["b/c/x"]


def test_delete_forgives_a_missing_name(objects):
    objects.write_new("x", b"it")
    objects.delete("x")
    objects.delete("x")
    assert objects.size("x") is None


def test_paths_are_sorted_and_below_one_folder(objects):
    for path in ("data/b", "data/a", ".engine/x/y", "data2/z"):
        objects.write_new(path, b"")
    assert objects.paths("data") == ["data/a", "data/b"]
    assert objects.paths("nowhere") == []
    assert objects.paths("") == [".engine/x/y", "data/a", "data/b", "data2/z"]


def test_missing_bytes_are_a_missing_file(objects):
    with pytest.raises(FileNotFoundError):
        objects.read("nothing")
    with pytest.raises(FileNotFoundError):
        objects.open("nothing")


def test_files_are_opened_by_path_or_url(root):
    open_objects(root).write_new("data/x", b"it")
    with open_file(f"{root}/data/x") as file:
        assert file.read() == b"it"
    with pytest.raises(InputError, match="there is no file"):
        open_file(f"{root}/data/y")


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "memory://a/b"])
def test_an_unknown_url_is_refused(url):
    with pytest.raises(InputError, match="use a path, or s3://, gs:// or az://"):
        open_objects(url)


def test_a_finished_write_leaves_no_temporary_file(tmp_path):
    objects = LocalObjects(tmp_path)
    objects.write_new("x", b"1")
    objects.write_new("x", b"2")
    objects.replace("x", b"3")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_many_writers_of_one_name_have_one_winner(objects):
    start = threading.Barrier(8)
    won: list[int] = []

    def write(number: int) -> None:
        start.wait()
        if objects.write_new("x", bytes([number]) * 100_000):
            won.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1
    assert objects.read("x") == bytes([won[0]]) * 100_000


CLAIM = """
import sys
from storage.objects import open_objects
objects = open_objects(sys.argv[1])
for number in range(50):
    print(objects.write_new(str(number), sys.argv[2].encode() * 10_000))
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_two_processes_that_write_one_name_have_one_winner(request, tmp_path, in_process, kind):
    root = str(tmp_path)
    if kind == "s3":
        request.getfixturevalue("bucket")
        root = "s3://bucket/prefix"
    processes = [in_process(CLAIM, root, letter) for letter in "ab"]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    said = zip(*(output.split() for output, _ in outputs), strict=True)
    for number, (first, second) in enumerate(said):
        assert {first, second} == {"True", "False"}
        winner = b"a" if first == "True" else b"b"
        assert open_objects(root).read(str(number)) == winner * 10_000


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from storage.errors import InputError
from storage.local_objects import LocalObjects
objects = LocalObjects(Path(sys.argv[1]))
objects.replace("x", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for write in (objects.write_new, objects.replace):
    try:
        write("y" if write == objects.write_new else "x", bytes(5000))
    except InputError as error:
        print(error)
"""


def test_a_full_disk_is_told_with_the_bytes_wanted_and_leaves_nothing(tmp_path, in_process):
    process = in_process(FULL_DISK, str(tmp_path))
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = output.splitlines()
    assert len(lines) == 2
    assert all("wanted 5000 bytes" in line and "are free" in line for line in lines)
    assert str(tmp_path / "y") in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_root_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot write .*choose another root"):
        LocalObjects(tmp_path / "file").write_new("x", b"")


def _temporary(folder: Path, name: str, *, age: float) -> Path:
    path = folder / f".{name}.abcd.tmp"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_the_sweep_removes_what_dead_writers_left_and_nothing_else(tmp_path):
    objects = LocalObjects(tmp_path)
    objects.write_new("data/x.tar", b"it")
    dead = _temporary(tmp_path / "data", "dead", age=3600)
    young = _temporary(tmp_path / "data", "young", age=0)
    living = _temporary(tmp_path / "data", "living", age=3600)
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert objects.sweep("data") == [f"data/{dead.name}"]
        assert young.exists()
    assert objects.paths("data") == ["data/x.tar"]
    assert objects.sweep("data") == [f"data/{living.name}"]


def test_readers_of_a_replaced_file_see_one_version_or_the_other(tmp_path):
    objects = LocalObjects(tmp_path)
    versions = [bytes([number]) * 200_000 for number in range(4)]
    objects.replace("x", versions[0])
    stop = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(objects.read("x"))

    reader = threading.Thread(target=read)
    reader.start()
    for version in versions * 3:
        objects.replace("x", version)
    stop.set()
    reader.join()
    assert seen <= set(versions)
