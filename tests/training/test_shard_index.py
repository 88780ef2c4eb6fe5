"""What is known of shards before they are opened, and what is found when they are."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from storage.commits import Counts
from storage.errors import DataError, InputError
from storage.manifest import ManifestRow, encode_manifest
from storage.payloads import Payload
from storage.records import Stage
from storage.shards import pack, read_index
from storage.store import Store
from storage.vocabulary import load_vocabulary
from training.data import SampleFiles, find_shards
from training.shard_index import ShardIndex

VOCABULARY = load_vocabulary("miniature")


@pytest.fixture
def dataset(draw, commit_shard, tmp_path):
    """Three committed shards of three samples."""
    store = Store.create(tmp_path / "dataset", {"min_yield": 0.5})
    for number in range(3):
        commit_shard(store, number, [draw(10 * number + i) for i in range(3)], 1)
    return tmp_path / "dataset"


def tars(root):
    return sorted((root / "data").glob("*.tar"))


def samples_of(root, **more):
    return SampleFiles(find_shards(str(root)), VOCABULARY, **more)


def test_an_index_says_where_the_members_of_mixed_kinds_are():
    samples = {
        "a": {"jpg": (512, 9), "cf.jpg": (1536, 8), "mask.png": (2560, 7), "json": (3584, 6)},
        "b": {"real.json": (9, 1), "png": (5120, 5), "mask.png": (7000, 2), "txt": (1, 1)},
        "é": {"png": (2**40, 2**30), "cf.png": (4, 0), "mask.png": (5, 1), "json": (6, 1)},
    }
    index = ShardIndex(samples)
    assert len(index) == 3
    for place, (key, members) in enumerate(samples.items()):
        assert index.keys[place] == key
        parts = index.parts(place).every
        assert index.extents(place) == [members[extension] for extension in parts]
        assert {*parts} == members.keys() - {"txt"}
    assert len(ShardIndex({})) == 0


def test_nothing_is_read_of_committed_tars_until_a_sample_is_asked_for(dataset):
    whole = [(s.text, s.class_ids, s.pair.image.tobytes()) for s in samples_of(dataset)]
    for tar in tars(dataset):
        size = tar.stat().st_size
        tar.write_bytes(bytes(size))
    samples = samples_of(dataset)
    assert samples.sizes == (3, 3, 3)
    assert len(whole) == len(samples) == 9
    with pytest.raises(DataError, match="sha256 is"):
        samples[4]


def test_one_tar_that_is_not_what_was_committed_is_told_when_it_is_opened(dataset):
    samples = samples_of(dataset)
    second = tars(dataset)[1]
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)
    assert samples[0].pair.image.size
    assert samples[8].pair.image.size
    for _ in range(2):
        with pytest.raises(DataError, match=r"000001\.tar: sha256 is .*magicseg verify"):
            samples[3]


@pytest.mark.parametrize("damage", ["cut", "longer"])
def test_a_tar_of_another_size_is_told_before_the_training_begins(dataset, damage):
    path = tars(dataset)[2]
    data = path.read_bytes()
    path.write_bytes(data[:-512] if damage == "cut" else data + bytes(512))
    with pytest.raises(DataError, match="sha256 is"):
        samples_of(dataset)


def test_a_tar_that_is_gone_is_told_before_the_training_begins(dataset):
    tars(dataset)[2].unlink()
    with pytest.raises(InputError, match=r"000002\.tar"):
        samples_of(dataset)


def committed(root, samples, rows, written):
    """A shard whose record and manifest are what somebody says."""
    store = Store.create(root, {"min_yield": 0.0})
    shard = "0badcafe-000000"
    manifest = [
        ManifestRow(
            key=key,
            shard=shard,
            index=index,
            seed=0,
            status="written",
            class_ids=class_ids,
            class_names=tuple(VOCABULARY[i].name for i in class_ids),
        )
        for index, (key, class_ids) in enumerate(rows)
    ]
    counts = Counts(requested=written, written=written)
    with store.lease(Stage.SHARDS, shard):
        payload = Payload(pack(samples), encode_manifest(manifest))
        store.commit(Stage.SHARDS, shard, "0" * 64, payload, counts)


def test_a_tar_with_other_samples_than_its_manifest_is_told(draw, tmp_path):
    samples = [replace(draw(n), class_ids=(2,), class_names=("boat",)) for n in range(2)]
    rows = [(samples[0].key, (2,)), ("0" * 15 + "9", (2,))]
    committed(tmp_path, samples, rows, 2)
    assert len(samples_of(tmp_path, left_out=(5,))) == 2
    with pytest.raises(DataError, match=r"do not have the same samples: 0000000000000001 is in"):
        samples_of(tmp_path, left_out=(5,))[0]


def test_a_tar_with_more_samples_than_its_record_says_is_told(dataset):
    shards = [replace(shard, num_samples=2) for shard in find_shards(str(dataset))]
    samples = SampleFiles(shards, VOCABULARY)
    assert samples.sizes == (2, 2, 2)
    with pytest.raises(DataError, match="holds 3 samples, but its commit record says 2"):
        samples[0]


def test_left_out_classes_are_known_from_manifests(draw, commit_shard, tmp_path):
    store = Store.create(tmp_path / "known", {"min_yield": 0.5})
    drawn = [draw(n) for n in range(12)]
    commit_shard(store, 0, drawn[:6], 0)
    commit_shard(store, 1, drawn[6:], 2)
    (tmp_path / "loose").mkdir()
    for tar in tars(tmp_path / "known"):
        shutil.copy(tar, tmp_path / "loose")
    for class_id in {each.class_ids[0] for each in drawn}:
        known, loose = (
            samples_of(tmp_path / name, left_out=(class_id,)) for name in ("known", "loose")
        )
        assert known.sizes == loose.sizes
        assert [s.class_ids for s in known] == [s.class_ids for s in loose]
        assert class_id not in {ids[0] for ids in (s.class_ids for s in known)}


def test_two_datasets_that_may_share_keys_are_compared_before_the_training_begins(
    draw, commit_shard, tmp_path
):
    roots = [tmp_path / name for name in "ab"]
    for root in roots:
        commit_shard(Store.create(root, {"min_yield": 0.5}), 0, [draw(1), draw(2)], 0)
    shards = [shard for root in roots for shard in find_shards(str(root))]
    with pytest.raises(
        DataError, match=rf"is in {roots[0]}.*tar and in {roots[1]}.*magicseg merge"
    ):
        SampleFiles(shards, VOCABULARY)


def test_a_copy_of_a_tar_beside_its_dataset_is_told(dataset, tmp_path):
    (tmp_path / "loose").mkdir()
    shutil.copy(tars(dataset)[1], tmp_path / "loose")
    shards = find_shards(str(dataset)) + find_shards(str(tmp_path / "loose"))
    samples = SampleFiles(shards, VOCABULARY)
    with pytest.raises(DataError, match="expected it in one tar"):
        list(samples)


def test_many_threads_open_a_shard_once(dataset, tmp_path):
    samples = samples_of(dataset)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: samples[n % 9].pair.labels.sum(), range(72)))
    assert found == [found[n % 9] for n in range(72)]
    for number, tar in enumerate(tars(dataset)):
        assert samples._indexes[number].keys == tuple(read_index(tar))
    assert np.all(np.array(samples.sizes) == 3)
