"""Samples found in archives by short reads: always the right one, and never by reading much."""

import random
import re

import pytest

from storage.archive_search import ArchiveSearch
from storage.archives import write_archive
from storage.errors import DataError
from storage.local_objects import LocalObjects
from storage.objects import open_objects

KINDS = ("jpg", "cf.jpg", "mask.png", "json")


class Counted(LocalObjects):
    """A folder whose reads are counted."""

    reads = bytes = 0

    def read_range(self, path, offset, size):
        data = super().read_range(path, offset, size)
        self.reads, self.bytes = self.reads + 1, self.bytes + len(data)
        return data


def make(count, seed, sizes, first=()):
    """An archive of samples with members of random sizes: its bytes, and its members by key."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    members = {
        f"{number * 7:016d}": {kind: draw.randbytes(draw.choice(sizes)) for kind in KINDS}
        for number in range(count)
    }
    listed = [(f"{key}.{kind}", data) for key, own in members.items() for kind, data in own.items()]
    return bytes(write_archive([*first, *listed])), members


@pytest.mark.parametrize("count", [1, 2, 3, 7, 120])
@pytest.mark.parametrize("sizes", [[5], [600, 70_000], [0, 1, 511, 512, 513, 40_000]])
@pytest.mark.parametrize("first", [(), [("rows.jsonl", b"x" * 9000)]])
def test_every_sample_is_found_alone_and_after_others(tmp_path, count, sizes, first):
    data, members = make(count, count, sizes, first)
    objects = open_objects(tmp_path)
    objects.write_new("a.tar", data)
    keys = [*members]
    random.Random(1).shuffle(keys)  # noqa: S311 - no secret
    kept = ArchiveSearch(objects, "a.tar", len(data), keys)
    for key in keys[:40]:
        alone = ArchiveSearch(objects, "a.tar", len(data), keys)
        assert alone.members(key) == members[key]
        assert kept.members(key) == members[key]
        assert kept.members(key, ("png", "jpg"), most=1) == {"jpg": members[key]["jpg"]}


def test_a_sample_of_a_long_archive_takes_a_small_part_of_it(tmp_path):
    data, members = make(600, 1, [20_000, 30_000, 60_000])
    objects = Counted(tmp_path)
    objects.write_new("a.tar", data)
    for key in [*members][::60]:
        objects.reads = objects.bytes = 0
        assert ArchiveSearch(objects, "a.tar", len(data), [*members]).members(key) == members[key]
        assert objects.reads <= 60
        assert objects.bytes < len(data) / 20


@pytest.mark.parametrize("bad", ["cut", "emptied", "overwritten", "gone", "shifted"])
def test_a_damaged_archive_is_told(tmp_path, bad):
    data, members = make(50, 1, [3000])
    key = [*members][30]
    contents = {
        "cut": data[: len(data) // 2],
        "emptied": b"",
        "overwritten": data[:5120] + b"\xff" * (len(data) - 5120),
        "shifted": b"\0" + data[:-1],
    }
    objects = open_objects(tmp_path)
    if bad in contents:
        objects.write_new("a.tar", contents[bad])
    search = ArchiveSearch(objects, "a.tar", len(data), [*members])
    with pytest.raises(FileNotFoundError if bad == "gone" else DataError) as told:
        search.members(key)
    assert bad == "gone" or re.search("a.tar .*: it is cut or not what was", str(told.value))


def test_a_sample_that_is_not_there_is_told(tmp_path):
    data, members = make(9, 1, [3000])
    objects = open_objects(tmp_path)
    objects.write_new("a.tar", data)
    strange = "0" * 15 + "9"
    with pytest.raises(DataError, match=r"has no sample 0{15}9 by its record"):
        ArchiveSearch(objects, "a.tar", len(data), [*members]).members(strange)
    with pytest.raises(DataError, match=r"has no sample 0{15}9:"):
        ArchiveSearch(objects, "a.tar", len(data), [*members, strange]).members(strange)


def test_a_picture_that_looks_like_an_archive_does_not_end_the_search(tmp_path):
    inner, _ = make(3, 1, [600])
    outer = {f"{number:016d}": {"jpg": inner, "json": b"{}"} for number in range(200, 230)}
    listed = [(f"{key}.{kind}", data) for key, own in outer.items() for kind, data in own.items()]
    data = bytes(write_archive(listed))
    objects = open_objects(tmp_path)
    objects.write_new("a.tar", data)
    for key, own in outer.items():
        assert ArchiveSearch(objects, "a.tar", len(data), [*outer]).members(key) == own
