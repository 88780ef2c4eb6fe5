"""What is stored of one sample: read alone, held against its digests, and told when it is gone."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from damage import DAMAGE, flip
from explorable import add_shard, draw, drop, explorable, key_of
from storage.codecs import decode_rle
from storage.records import Stage
from storage.remote_objects import RemoteObjects
from storage.sample_table import SampleTable
from storage.store import Store
from storage.stored_samples import SampleReader


@pytest.fixture
def store(root):
    store = explorable(root)
    add_shard(store, 0, [draw(place) for place in range(5)], drop(5, 6, 7))
    return store


def read(store, index, reader=None):
    table = SampleTable(store)
    table.refresh()
    key = key_of(index)
    reader = reader or SampleReader(store)
    return reader.read(table.part(key), table.row(key)), reader.image(
        table.part(key), key, table.index(key)
    )


def test_a_written_sample_is_what_was_packed(store):
    sample = draw(3)
    stored, image = read(store, 3)
    assert image == stored.image == sample.image_bytes
    assert stored.counterfactual == sample.counterfactual_bytes
    assert stored.label_map == sample.mask_bytes
    assert stored.mentions == sample.mentions
    assert stored.notes == ()
    (instance,) = sample.instances
    mask = decode_rle(instance.rle, 64, 64)
    assert (stored.mask(3) == mask).all()
    assert not stored.mask(None).any()
    assert not stored.mask(9).any()


def test_a_dropped_sample_is_what_its_stages_made(store):
    for index in (5, 6):
        stored, image = read(store, index)
        assert image == stored.image == draw(index).image_bytes
        assert stored.counterfactual == draw(index).counterfactual_bytes
        assert stored.mentions == draw(index).mentions
        assert (stored.record, stored.label_map, stored.notes) == ("", b"", ())
        assert len(stored.objects) == (index == 6)
        assert not stored.has_masks
    stored, image = read(store, 7)
    assert (image, stored.image) == (b"", b"")
    assert stored.notes == ("it was dropped at prompts: no image was kept of it",)


def test_pictures_that_were_freed_are_told(store):
    for commit in store.commits(Stage.PAIRS):
        store.withdraw(commit, "freed")
    stored, image = read(store, 5)
    assert image == stored.image == b""
    assert "'magicseg gc' frees" in stored.notes[0]
    assert stored.mentions == draw(5).mentions


def test_a_mask_of_run_lengths_is_used_where_there_is_no_label_map(store):
    sample = draw(2)
    stored, _ = read(store, 2)
    from dataclasses import replace

    bare = replace(stored, label_map=b"")
    assert (bare.mask(2) == decode_rle(sample.instances[0].rle, 64, 64)).all()
    assert bare.mask(1) is None
    assert bare.mask(None) is None


@pytest.fixture
def local(tmp_path):
    store = explorable(tmp_path / "d")
    for number in range(2):
        add_shard(store, number, [draw(number * 8 + place) for place in range(8)])
    return store


@pytest.mark.parametrize(
    "kind",
    ["a tar deleted", "a tar emptied", "a tar of another maker", "a tar cut between two samples",
     "two tars swapped"],
)  # fmt: skip
def test_a_damaged_tar_is_told_of_its_samples(local, tmp_path, kind):
    DAMAGE[kind](tmp_path / "d")
    stored, _ = (
        read(local, 7) if kind == "a tar deleted" else (SampleReader(local).read(*place(local)), 0)
    )
    assert stored.image == b""
    assert "000000.tar" in stored.notes[0]
    assert "verify" in stored.notes[0]
    assert np.size(stored.mentions) == 0


def place(store):
    table = SampleTable(store)
    table.refresh()
    return table.part(key_of(7)), table.row(key_of(7))


def test_a_picture_that_is_not_what_was_committed_is_not_shown(local, tmp_path):
    tar = min((tmp_path / "d/data").glob("*.tar"))
    with tarfile.open(tar) as archive:
        member = archive.getmember(f"{key_of(0)}.cf.png")
    flip(tar, (member.offset_data + member.size - 20) / (tar.stat().st_size - 1))
    stored, image = read(local, 0)
    assert stored.image == image == draw(0).image_bytes
    assert stored.counterfactual == b""
    assert f"{key_of(0)}.cf.png is not what was committed" in stored.notes[0]


def test_what_is_kept_is_forgotten_when_told(local, tmp_path):
    reader = SampleReader(local)
    assert read(local, 1, reader)[0].image
    for tar in (tmp_path / "d/data").glob("*.tar"):
        tar.unlink()
    assert read(local, 1, reader)[0].image
    reader.forget()
    assert "is committed but gone" in read(local, 1, reader)[0].notes[0]


class Ranged(RemoteObjects):
    """A bucket whose tars can be read in parts alone."""

    def read(self, path):
        assert not path.endswith(".tar")
        return super().read(path)

    def open(self, path):
        assert not path.endswith(".tar")
        return super().open(path)


def test_a_tar_of_a_bucket_is_never_fetched_for_one_sample(bucket):
    store = explorable(bucket.root)
    add_shard(store, 0, [draw(place) for place in range(8)], drop(8))
    store.objects = Ranged(store.objects._connection)
    bucket.requests.clear()
    assert read(store, 5)[0].image == draw(5).image_bytes
    assert read(store, 8)[0].image == draw(8).image_bytes
    assert 1 <= len([path for _, path in bucket.requests if path.endswith(".tar")]) <= 12


def test_the_old_layout_is_read(tmp_path):
    with tarfile.open(Path(__file__).parents[1] / "data/old-dataset.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    store = Store.open(tmp_path / "old-dataset")
    table, reader = SampleTable(store), SampleReader(store)
    table.refresh()
    for key in sorted(table.written):
        stored = reader.read(table.part(key), table.row(key))
        assert stored.image
        assert stored.counterfactual
        assert stored.notes == ()
