import io
import tarfile

import pytest

from storage.archives import index_archive, read_archive, write_archive
from storage.errors import DataError

MEMBERS = [("a.txt", b"first"), ("b.bin", bytes(700)), ("c.txt", b"")]


def test_bytes_depend_on_the_members_alone():
    assert bytes(write_archive(MEMBERS)) == bytes(write_archive(iter(MEMBERS)))
    assert bytes(write_archive(MEMBERS)) != bytes(write_archive(MEMBERS[::-1]))


def test_tarfile_reads_it_and_finds_no_time_and_no_owner():
    with tarfile.open(fileobj=io.BytesIO(write_archive(MEMBERS))) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == ["a.txt", "b.bin", "c.txt"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_members_come_back_in_order():
    assert list(read_archive(io.BytesIO(write_archive(MEMBERS)), "it")) == MEMBERS


def test_the_index_points_at_the_bytes():
    data = bytes(write_archive(MEMBERS))
    found = [(name, data[at : at + size]) for name, at, size in index_archive(io.BytesIO(data), "")]
    assert found == MEMBERS


def test_an_archive_cut_at_any_block_is_told():
    data = bytes(write_archive(MEMBERS))
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for length in range(0, end + 512, 512):
        with pytest.raises(DataError, match=r"it is cut|is cut or is not a tar"):
            list(read_archive(io.BytesIO(data[:length]), "it"))


def test_other_bytes_are_no_archive():
    with pytest.raises(DataError, match="not a tar archive"):
        list(read_archive(io.BytesIO(b"x" * 2048), "it"))
