import dataclasses

import numpy as np
import pytest

from storage.card import write_card
from storage.codecs import encode_label_map
from storage.commits import Counts, ObjectRef
from storage.manifest import describe_samples, encode_manifest
from storage.payloads import Payload
from storage.records import Stage
from storage.shards import pack
from storage.store import Store
from storage.verification import _check_tars, verify_bytes, verify_records

SHARD = "0badcafe-000000"
KEY = "a" * 64


@pytest.fixture
def store(root, sample, payload) -> Store:
    store = Store.create(root, {"seed": 7})
    store.commit(Stage.SHARDS, SHARD, KEY, *payload([sample(0), sample(1)]))
    write_card(store)
    return store


def problems(findings) -> str:
    return "\n".join(f"{finding.path}: {finding.problem}" for finding in findings)


def test_a_whole_dataset_has_no_findings(store):
    assert verify_records(store) == []
    assert verify_bytes(store, 1205) == []


def test_a_dataset_in_the_making_has_no_findings(root):
    assert verify_bytes(Store.create(root, {}), 1205) == []


def test_verification_changes_nothing(store):
    store.objects.replace(f"data/train-{SHARD}.tar", b"damaged")
    before = {path: store.objects.read(path) for path in store.objects.paths("")}
    verify_bytes(store, 1205)
    assert {path: store.objects.read(path) for path in store.objects.paths("")} == before


def test_a_missing_tar_is_found_without_reading(store):
    store.objects.delete(f"data/train-{SHARD}.tar")
    assert "found nothing, expected 20480 bytes" in problems(verify_records(store))


def test_a_flipped_byte_is_found_by_the_deep_check_only(store):
    path = f"data/train-{SHARD}.tar"
    data = bytearray(store.objects.read(path))
    data[700] ^= 1
    store.objects.replace(path, bytes(data))
    assert verify_records(store) == []
    assert "its sha256 is not" in problems(verify_bytes(store, 1205))


def test_an_orphan_tar_is_found(store):
    store.objects.write_new("data/train-0badcafe-000007.tar", b"x")
    assert "no commit record vouches for it" in problems(verify_records(store))


def test_a_broken_record_is_found_and_does_not_hide_the_rest(store):
    store.objects.write_new(f".engine/commits/prompts/{SHARD}/{KEY[:16]}.json", b"{}")
    store.objects.delete(f".engine/manifests/{SHARD}.parquet")
    found = problems(verify_bytes(store, 1205))
    assert "is not a Commit record" in found
    assert "manifests/0badcafe-000000.parquet: found nothing" in found


def test_a_record_in_the_wrong_place_is_found(store):
    (path,) = store.log.paths()
    store.objects.write_new(path.replace(KEY[:16], "b" * 16), store.objects.read(path))
    assert f"the record is about {path}" in problems(verify_records(store))


def test_a_second_record_is_found(store):
    (path,) = store.log.paths()
    other = store.log.read(path).model_copy(update={"key": "0" * 64}).sealed()
    store.objects.write_new(path.replace(KEY[:16], "0" * 16), other.encode())
    assert "2 records are about one shard" in problems(verify_records(store))
    assert [shard.commit.key for shard in store.shards()] == [KEY]


def test_counts_that_do_not_add_up_are_found(store):
    (path,) = store.log.paths()
    commit = store.log.read(path)
    wrong = commit.model_copy(update={"counts": commit.counts.model_copy(update={"requested": 9})})
    store.objects.replace(path, wrong.sealed().encode())
    assert "9 samples requested, but 2 written" in problems(verify_records(store))


class CountedName(str):
    """A name that counts how often it is compared with another one."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        CountedName.compared += 1
        return str.__eq__(self, other)


def test_the_work_of_verification_grows_with_the_shards_and_not_with_their_square(
    tmp_path, payload
):
    store = Store.create(tmp_path, {"seed": 7})
    record = store.commit(Stage.SHARDS, SHARD, KEY, *payload([], 1))
    (tmp_path / "data").mkdir()
    commits = []
    for number in range(200):
        path = CountedName(f"data/train-{number}.tar")
        (tmp_path / path).touch()
        tar = ObjectRef(path="", sha256="a" * 64, size=0).model_copy(update={"path": path})
        shard = CountedName(f"0badcafe-{number:06d}")
        commits.append(record.model_copy(update={"shard": shard, "object": tar}))
    (doubled,) = _check_tars(store, [*commits, commits[5]])
    assert doubled.finding.problem.startswith("2 records are about one shard")
    assert CountedName.compared < 10 * len(commits)


def test_an_unfinished_commit_is_found(store):
    store.objects.write_new(f".engine/intents/pairs/{SHARD}/{KEY[:16]}.json", b"{}")
    assert "begun and not finished" in problems(verify_records(store))


def recommit(root, samples, rows_of, plan, names):
    """Commit a shard whose manifest is about other samples than its tar."""
    store = Store.create(root, {"seed": 7})
    rows = describe_samples(plan, names, samples=rows_of, dropped=[])
    counts_of = len(samples)
    payload = Payload(pack(samples), encode_manifest(rows))
    store.commit(Stage.SHARDS, SHARD, KEY, payload, Counts.of(counts_of, counts_of, []))
    write_card(store)
    return store


def test_labels_beyond_the_vocabulary_are_found(root, sample, plan_of, names):
    samples = [sample(0)]
    store = recommit(root, samples, samples, plan_of(samples), names)
    assert verify_bytes(store, 1205) == []
    assert "labels [1205] are beyond the 14 classes" in problems(verify_bytes(store, 14))


def test_a_mask_without_its_class_is_found(root, sample, plan_of, names):
    empty = encode_label_map(np.zeros((16, 16), dtype=np.uint16))
    samples = [dataclasses.replace(sample(0), mask_bytes=empty)]
    store = recommit(root, samples, samples, plan_of(samples), names)
    assert "holds labels [], but the classes are [1204]" in problems(verify_bytes(store, 1205))


def test_a_tar_that_is_not_its_manifest_s_is_found(root, sample, plan_of, names):
    told, packed = [sample(0), sample(1)], [sample(0, seed=8), sample(2)]
    store = recommit(root, packed, told, plan_of(told), names)
    found = problems(verify_bytes(store, 1205))
    assert "0badcafe00000000: the image's sha256 is not the manifest's" in found
    assert "0badcafe00000002 is in the tar, but not written by the manifest" in found
    assert "0badcafe00000001 is in the manifest, but not in the tar" in found


def test_every_finding_says_what_to_do(store):
    store.objects.delete(f"data/train-{SHARD}.tar")
    store.objects.write_new("data/train-0badcafe-000007.tar", b"x")
    assert all("magicseg generate" in finding.way_out for finding in verify_bytes(store, 1205))


def test_an_object_reference_needs_a_digest():
    with pytest.raises(ValueError, match="sha256"):
        ObjectRef(path="x", sha256="", size=0)
