import os
import stat
import threading

import pytest

from storage.files import remove, whole_file, write_whole


def test_a_file_is_written_and_replaced_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "a/b/file"
    for data in (b"first", b"second"):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_many_threads_write_one_file(tmp_path):
    path, errors = tmp_path / "file", []
    versions = [bytes([number]) * 10_000 for number in range(4)]

    def write(data) -> None:
        try:
            for _ in range(100):
                write_whole(path, data)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(data,)) for data in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert path.read_bytes() in versions
    assert list(tmp_path.iterdir()) == [path]


WRITE = """
import sys
from pathlib import Path
from storage.files import write_whole
for _ in range(200):
    write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 10_000)
"""


def test_two_processes_write_one_file(tmp_path, in_process):
    path = tmp_path / "file"
    processes = [in_process(WRITE, str(path), letter) for letter in "ab"]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert path.read_bytes() in {b"a" * 10_000, b"b" * 10_000}
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def write() -> None:
        with whole_file(path) as place:
            place.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "folder/inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_whole(tmp_path / "folder", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_missing_file_may_be_removed(tmp_path):
    write_whole(tmp_path / "file", b"")
    for _ in range(2):
        remove(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_and_a_folder_are_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "folder").mkdir()
    for taken in (pipe, tmp_path / "folder"):
        with pytest.raises(OSError, match="only a file can be replaced by a file"):
            write_whole(taken, b"x")
    assert pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]
