"""Datasets joined into one: earlier ones, whose names were the same, and new ones."""

import dataclasses
import json
import shutil

import pytest

from storage.codecs import decode_label_map
from storage.errors import DataError, InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import export_shards
from storage.merging import merge_datasets
from storage.objects import open_objects
from storage.records import Stage
from storage.shards import iterate
from storage.specification_copies import seal
from storage.store import Store
from storage.verification import repair, verify_bytes
from storage.vocabulary import load_vocabulary
from training.data import SampleFiles, find_shards

VOCABULARY = load_vocabulary("miniature")
NAME = "0badcafe-000000"


def spec(seed, **fields):
    plan = {"vocabulary": "miniature", "seed": seed, "samples_per_shard": 3}
    return {"plan": plan, "vocabulary": VOCABULARY.digest, "min_yield": 0.5, **fields}


@pytest.fixture
def dataset(tmp_path, sample, payload):
    """Makes a dataset of one shard, of scheme 1 or 2, all of the same slice."""

    def make(name, seed, *, scheme=1, lost=1, **fields):
        root = tmp_path / name
        if scheme == 1:
            open_objects(root).write_new(".engine/spec.json", seal(1, spec(seed, **fields)))
        store = Store.create(root, spec(seed, **fields))
        made = [
            dataclasses.replace(
                sample(index, class_id=0, seed=seed), class_names=(VOCABULARY[0].name,)
            )
            for index in range(2)
        ]
        content, counts = payload(made, lost)
        about = {"start": 0, "stop": 900 + lost}  # where the fixture has the lost ones
        content = dataclasses.replace(content, about=about)
        with store.lease(Stage.SHARDS, NAME):
            store.commit(Stage.SHARDS, NAME, "a" * 64, content, counts)
        return root

    return make


def pictures(root):
    return {
        (each.seed, each.image_bytes, each.mask_bytes, each.text)
        for shard in Store.open(root).shards()
        if shard.path
        for each in iterate(shard.path, shard.sha256)
    }


def test_two_datasets_whose_samples_have_the_same_keys_become_one(dataset, tmp_path):
    roots = [dataset("a", 1), dataset("b", 20)]
    for read in (
        lambda tars: SampleFiles(find_shards(str(tars)), VOCABULARY),
        lambda tars: export_shards(
            {str(path): path.name for path in tars.glob("*.tar")},
            resolve_closed_set(VOCABULARY, VOCABULARY[0].name),
            tmp_path / "out",
        ),
    ):
        tars = tmp_path / "tars"
        tars.mkdir(exist_ok=True)
        for root in roots:
            shutil.copy(root / "data" / f"train-{NAME}.tar", tars / f"{root.name}.tar")
        with pytest.raises(DataError, match=r"in .*a\.tar and in .*b\.tar.*'magicseg merge'"):
            read(tars)

    merged = tmp_path / "merged"
    done = merge_datasets(roots, merged)
    assert (done.shards, done.samples, done.added, done.left_out) == (2, 4, 2, 0)
    assert pictures(merged) == pictures(roots[0]) | pictures(roots[1])
    store = Store.open(merged)
    assert verify_bytes(store, len(VOCABULARY)) == []
    keys = [each.key for shard in store.shards() for each in iterate(shard.path, shard.sha256)]
    assert len(set(keys)) == 4
    assert not any(key.startswith("0badcafe") for key in keys)
    assert len(SampleFiles(find_shards(str(merged)), VOCABULARY)) == 4
    shards = {shard.path: shard.sha256 for shard in store.shards()}
    names = resolve_closed_set(VOCABULARY, VOCABULARY[0].name)
    exported = export_shards(shards, names, tmp_path / "exported")
    files = list((tmp_path / "exported/images/train").iterdir())
    lines = (tmp_path / "exported/splits/train.txt").read_text().split()
    assert exported.num_samples == len(files) == len(set(lines)) == 4
    rows = [row for shard in store.shards() for row in store.manifest(shard.commit)]
    assert {row.key for row in rows if row.status == "written"} == set(keys)
    assert sum(row.status == "rejected" for row in rows) == 2


def test_a_dataset_keeps_the_name_that_it_gave_its_samples(dataset, tmp_path):
    merge_datasets([dataset("a", 1, scheme=2), dataset("b", 20)], tmp_path / "merged")
    names = [shard.name for shard in Store.open(tmp_path / "merged").shards()]
    assert NAME in names
    assert len(set(names)) == 2


def test_it_is_repeated_without_copying_and_follows_its_sources(dataset, tmp_path):
    roots, merged = [dataset("a", 1), dataset("b", 20)], tmp_path / "merged"
    merge_datasets(roots, merged)
    before = {path: path.stat().st_mtime_ns for path in (merged / "data").iterdir()}
    assert merge_datasets(roots[::-1], merged).added == 0
    assert {path: path.stat().st_mtime_ns for path in (merged / "data").iterdir()} == before


def test_a_damaged_shard_of_a_merge_comes_back_by_merging_again(dataset, tmp_path):
    roots, merged = [dataset("a", 1), dataset("b", 20)], tmp_path / "merged"
    merge_datasets(roots, merged)
    expected = pictures(merged)
    tar = next((merged / "data").iterdir())
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes()[:-512])
    store = Store.open(merged)
    found = repair(store, len(VOCABULARY))
    assert any(tar.name in each.problem for each in found)
    assert any("(or 'merge') again" in each.way_out for each in found)
    assert merge_datasets(roots, merged).added == 1
    assert pictures(merged) == expected
    assert verify_bytes(Store.open(merged), len(VOCABULARY)) == []


def test_a_damaged_source_is_named_and_nothing_of_it_is_taken(dataset, tmp_path):
    roots = [dataset("a", 1), dataset("b", 20)]
    tar = roots[1] / "data" / f"train-{NAME}.tar"
    tar.chmod(0o644)
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DataError, match=f"train-{NAME}"):
        merge_datasets(roots, tmp_path / "merged")
    assert len(Store.open(tmp_path / "merged").shards()) == 1


def test_shards_that_a_source_holds_for_degraded_are_left_out(dataset, tmp_path):
    roots = [dataset("a", 1), dataset("b", 20, lost=5)]
    assert merge_datasets(roots, tmp_path / "m").left_out == 1
    assert merge_datasets(roots, tmp_path / "n", use_degraded=True).samples == 4


def test_a_merge_of_a_merge_knows_all_its_sources(dataset, tmp_path):
    a, b, c = dataset("a", 1), dataset("b", 20), dataset("c", 40)
    merge_datasets([a, b], tmp_path / "ab")
    merge_datasets([tmp_path / "ab", c], tmp_path / "abc")
    merge_datasets([a, b, c], tmp_path / "at-once")
    tars = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "data").iterdir()}
        for name in ("abc", "at-once")
    ]
    assert tars[0] == tars[1]
    specs = [Store.open(tmp_path / name).spec for name in ("abc", "at-once")]
    assert specs[0] == specs[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda roots, out: merge_datasets(roots[:1], out), "expected two or more"),
        (lambda roots, out: merge_datasets([*roots, roots[0]], out), "hold the same dataset"),
        (lambda roots, out: merge_datasets(roots[:2], roots[0]), "a dataset of its own"),
        (lambda roots, out: merge_datasets([*roots, out / "none"], out), "there is no dataset"),
        (lambda roots, out: merge_datasets(roots[:2], roots[2]), "a merge of other datasets"),
        (lambda roots, out: merge_datasets([roots[0], roots[3]], out), "vocabulary alone"),
        (lambda roots, out: Store.create(roots[2], spec(1)), "is a merge of datasets"),
        (lambda roots, out: merge_datasets([roots[0], roots[4]], out), "hold the same dataset"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_words(change, words, dataset, tmp_path):
    roots = [dataset("a", 1), dataset("b", 20), tmp_path / "merge"]
    merge_datasets([roots[0], dataset("x", 60)], roots[2])
    other = dataset("other", 3)
    for name in ("spec.json", "spec.copy.json"):
        path = other / ".engine" / name
        path.chmod(0o644)
        path.write_bytes(seal(1, json.loads(path.read_bytes())["spec"] | {"vocabulary": "f" * 64}))
    shutil.copytree(roots[0], tmp_path / "copy")
    roots += [other, tmp_path / "copy"]
    with pytest.raises(InputError, match=words):
        change(roots, tmp_path / "out")


def test_labels_are_untouched(dataset, tmp_path):
    merge_datasets([dataset("a", 1), dataset("b", 20)], tmp_path / "merged")
    for shard in Store.open(tmp_path / "merged").shards():
        for each in iterate(shard.path, shard.sha256):
            assert decode_label_map(each.mask_bytes)[5, 5] == 1
