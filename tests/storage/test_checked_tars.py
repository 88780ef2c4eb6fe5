"""A tar that was committed is read only if it is what was committed."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from storage.checked_tars import _Memory, _state, open_tar
from storage.errors import DataError, InputError
from storage.records import Stage
from storage.shards import iterate, read_index
from storage.store import Store

KEY = "a" * 64
SPEC = {"seed": 7}


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """The file in which this user's processes remember digests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/magicseg/tars.txt"


@pytest.fixture
def shard(tmp_path, memory, payload, sample):
    store = Store.create(tmp_path / "d", SPEC)
    store.commit(
        Stage.SHARDS, "0badcafe-000000", KEY, *payload([sample(index) for index in range(3)])
    )
    [shard] = store.shards()
    return shard


def flip(path, position):
    with Path(path).open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def test_a_whole_tar_is_hashed_once(shard, memory):
    assert len(list(iterate(shard.path, shard.sha256))) == 3
    assert len(read_index(shard.path, shard.sha256)) == 3
    [line] = memory.read_text().splitlines()
    assert line.startswith(shard.sha256)


def test_threads_that_open_tars_at_once_hash_each_of_them_once(tmp_path, memory):
    digests = {}
    for number in range(4):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(bytes([number]) * 100_000)
        digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    with ThreadPoolExecutor(8) as pool:
        for file in pool.map(lambda path: open_tar(path, digests[path]), [*digests] * 8):
            file.close()
    lines = memory.read_text().splitlines()
    assert sorted(line[:64] for line in lines) == sorted(digests.values())


@pytest.mark.parametrize("again", [False, True], ids=["first", "after it was known to be whole"])
@pytest.mark.parametrize("position", [0, 512, 1000, -1])
def test_one_bit_is_seen_and_the_way_out_is_named(shard, position, again):
    if again:
        open_tar(shard.path, shard.sha256).close()
    flip(shard.path, position % Path(shard.path).stat().st_size)
    words = r"data/train-0badcafe-000000\.tar: sha256 is .*, its record says .*--deep --repair'"
    for read in (iterate, read_index):
        with pytest.raises(DataError, match=words):
            list(read(shard.path, shard.sha256))


def test_times_that_are_set_back_hide_nothing(shard):
    open_tar(shard.path, shard.sha256).close()
    before = Path(shard.path).stat()
    flip(shard.path, 1000)
    os.utime(shard.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match="its record says"):
        open_tar(shard.path, shard.sha256)


def test_a_write_in_the_same_moment_as_the_look_is_seen(shard):
    """The clock of a file system stands still for some milliseconds."""
    for position in range(600, 640):
        flip(shard.path, position)
        with pytest.raises(DataError, match="its record says"):
            open_tar(shard.path, shard.sha256)
        flip(shard.path, position)
        open_tar(shard.path, shard.sha256).close()


def test_a_copy_is_another_file(shard, tmp_path):
    open_tar(shard.path, shard.sha256).close()
    other = tmp_path / "other.tar"
    shutil.copy2(shard.path, other)
    flip(other, 1000)
    other.replace(shard.path)
    with pytest.raises(DataError, match="its record says"):
        open_tar(shard.path, shard.sha256)


@pytest.mark.parametrize("identity", ["", "x.tar:2048"])
def test_a_tar_without_a_record_cannot_be_checked(shard, identity, memory):
    flip(shard.path, 1000)
    with open_tar(shard.path, identity) as file:
        assert file.read(1)
    assert not memory.exists()


def test_another_process_trusts_whole_lines_only(shard, memory):
    with Path(shard.path).open("rb") as file:
        lie, state = "0" * 64, _state(file.fileno())
        memory.parent.mkdir(parents=True)
        memory.write_bytes(
            f"{lie[1:]} {state}\n\xff\n{lie} {state} 1\n{shard.sha256} {state}".encode()
        )
        assert _Memory(memory)._known == {state: shard.sha256}


@pytest.mark.parametrize("place", ["file", "folder", "none"])
def test_a_cache_folder_that_cannot_be_used_costs_time_alone(shard, memory, place, monkeypatch):
    memory.parent.parent.mkdir(exist_ok=True)
    if place == "file":
        memory.parent.write_text("in the way")
    elif place == "folder":
        memory.mkdir(parents=True)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        monkeypatch.setenv("HOME", "/dev/null")
    assert len(list(iterate(shard.path, shard.sha256))) == 3


def test_an_object_store_is_no_exception(payload, sample):
    store = Store.create(f"memory://{uuid4().hex}", SPEC)
    commit = store.commit(Stage.SHARDS, "0badcafe-000000", KEY, *payload([sample(0)]))
    [shard] = store.shards()
    assert len(list(iterate(shard.path, shard.sha256))) == 1
    data = bytearray(store.objects.read(commit.object.path))
    data[1000] ^= 1
    store.objects.replace(commit.object.path, bytes(data))
    with pytest.raises(DataError, match="its record says"):
        list(iterate(shard.path, shard.sha256))


def test_a_tar_that_is_gone_is_named(shard):
    Path(shard.path).unlink()
    with pytest.raises(InputError, match="there is no file"):
        open_tar(shard.path, shard.sha256)
