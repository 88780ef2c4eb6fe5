"""Samples that are left out: said, undone, honoured by whoever reads, and damaged."""

import dataclasses
import hashlib
import subprocess
import sys

import pytest

from storage.card import is_current, render_card, write_card
from storage.errors import DataError, InputError
from storage.exclusions import (
    append_exclusions,
    count_excluded,
    exclude_samples,
    excluded_keys,
    include_samples,
    read_exclusions,
)
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import export_shards
from storage.layout import EXCLUSION_FOLDER
from storage.merging import merge_datasets
from storage.objects import open_objects
from storage.records import Stage
from storage.specification_copies import seal
from storage.store import Store
from storage.verification import repair, verify_records
from storage.vocabulary import load_vocabulary
from tasks.closed_sets import export_dataset
from training.data import SampleFiles, find_shards
from training.shard_cache import ShardCache

VOCABULARY = load_vocabulary("miniature")
NAME = "0badcafe-000000"
KEYS = [f"0badcafe{index:08x}" for index in range(4)]
ME = {"who": "ann@here", "why": "half a cat"}


@pytest.fixture
def dataset(tmp_path, sample, payload):
    """Makes a dataset of one shard with four samples and a lost one."""

    def make(root=tmp_path / "d", seed=1, *, scheme=2):
        plan = {"vocabulary": "miniature", "seed": seed, "samples_per_shard": 5}
        spec = {"plan": plan, "vocabulary": VOCABULARY.digest, "min_yield": 0.5}
        if scheme == 1:
            open_objects(root).write_new(".engine/spec.json", seal(1, spec))
        store = Store.create(root, spec)
        own = [
            dataclasses.replace(
                sample(index, class_id=0, seed=seed), class_names=(VOCABULARY[0].name,)
            )
            for index in range(4)
        ]
        content, counts = payload(own, 1)
        content = dataclasses.replace(content, about={"start": 0, "stop": 901})
        store.commit(Stage.SHARDS, NAME, "a" * 64, content, counts)
        return store

    return make


def test_the_last_word_about_a_sample_counts_and_all_are_kept(dataset):
    store = dataset()
    assert exclude_samples(store, [KEYS[1], KEYS[2], KEYS[1]], **ME) == 2
    assert exclude_samples(store, [KEYS[1]], **ME) == 0  # it is left out already
    assert include_samples(store, [KEYS[2]], who="bob@there", why="it is whole") == 1
    assert excluded_keys(store.objects) == {KEYS[1]}
    history = [(line.key, line.act, line.who) for line in read_exclusions(store.objects)]
    assert history == [
        (KEYS[1], "exclude", "ann@here"),
        (KEYS[2], "exclude", "ann@here"),
        (KEYS[2], "include", "bob@there"),
    ]
    assert count_excluded(store) == {"0badcafe": {"hand": 1}}


@pytest.mark.parametrize("key", ["0badcafe00000384", "0badcafe99999999", "", "../../x", "f" * 300])
def test_what_is_no_finished_sample_cannot_be_left_out(dataset, key):
    store = dataset()
    with pytest.raises(InputError, match="no sample of a finished shard, expected one of 4"):
        exclude_samples(store, [KEYS[0], key], **ME)
    assert read_exclusions(store.objects) == []


def test_what_is_not_left_out_cannot_be_taken_back_and_a_reason_is_needed(dataset):
    store = dataset()
    with pytest.raises(InputError, match="is not excluded, expected one of the 0 samples"):
        include_samples(store, [KEYS[0]], **ME)
    with pytest.raises(InputError, match="no reason is given"):
        exclude_samples(store, [KEYS[0]], who="ann", why=" ")


def test_two_who_speak_at_one_time_are_both_heard(dataset, tmp_path):
    store = dataset()
    program = (
        "import sys; from storage.store import Store; from storage.exclusions import *;"
        "from storage.exclusions import exclude_samples;"
        "exclude_samples(Store.open(sys.argv[1]), [sys.argv[2]], who='p', why='w')"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "d"), key])
        for key in KEYS[:3]
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert excluded_keys(store.objects) == set(KEYS[:3])


def test_trainings_do_not_see_it_and_are_other_runs(dataset):
    store = dataset()
    before = find_shards(store.root)
    exclude_samples(store, [KEYS[1]], **ME)
    after = find_shards(store.root)
    assert after[0].identity == before[0].identity == before[0].fingerprint
    assert after[0].fingerprint != before[0].fingerprint
    left = SampleFiles(after, VOCABULARY)
    assert len(left) == 3
    whole = SampleFiles(before, VOCABULARY)
    for index, same in enumerate([0, 2, 3]):
        assert (left[index].pair.image == whole[same].pair.image).all()
    include_samples(store, [KEYS[1]], **ME)
    assert find_shards(store.root)[0].fingerprint == before[0].fingerprint


def test_a_remote_shard_is_counted_without_reading_it(dataset, tmp_path):
    store = dataset("memory://left-out")
    exclude_samples(store, KEYS[:2], **ME)
    cache = ShardCache(tmp_path / "cache", 10**9)
    samples = SampleFiles(find_shards(store.root), VOCABULARY, shard_cache=cache)
    assert len(samples) == 2
    assert not (tmp_path / "cache").exists()


def test_exports_leave_it_out_and_bring_it_back(dataset, tmp_path):
    store = dataset()
    classes = resolve_closed_set(VOCABULARY, VOCABULARY[0].name)
    out = tmp_path / "out"
    whole = export_dataset(store.root, classes, out)
    exclude_samples(store, [KEYS[1]], **ME)
    less = export_dataset(store.root, classes, out)
    assert (whole.num_samples, less.num_samples) == (4, 3)
    assert less.digest != whole.digest
    assert (out / "splits/train.txt").read_text().split() == [KEYS[0], KEYS[2], KEYS[3]]
    assert not (out / f"labels/train/{KEYS[1]}.png").exists()
    include_samples(store, [KEYS[1]], **ME)
    assert export_dataset(store.root, classes, out) == whole


def test_an_export_of_tars_that_was_made_before_stays_as_it_is(dataset, tmp_path):
    dataset()
    classes = resolve_closed_set(VOCABULARY, VOCABULARY[0].name)
    tars = {str(path): "" for path in (tmp_path / "d/data").glob("*.tar")}
    first = export_shards(tars, classes, tmp_path / "out")
    assert export_shards(tars, classes, tmp_path / "out", excluded={}) == first


def test_card_and_verification_know_of_it(dataset):
    store = dataset()
    write_card(store)
    assert "left out" not in render_card(store)
    exclude_samples(store, [KEYS[1]], **ME)
    assert not is_current(store)
    write_card(store)
    assert is_current(store)
    assert "1 of the samples above are in the tars" in render_card(store)
    assert verify_records(store) == []


@pytest.mark.parametrize("damage", ["cut", "changed", "renamed", "emptied"])
def test_a_damaged_file_is_named_and_put_aside_by_repair_alone(dataset, tmp_path, damage):
    store = dataset()
    write_card(store)
    exclude_samples(store, KEYS[:2], **ME)
    (file,) = (tmp_path / "d" / EXCLUSION_FOLDER).iterdir()
    lines = file.read_bytes()
    if damage == "renamed":
        file.rename(file.with_name("000001-0123456789abcdef.jsonl"))
    else:
        ways = {"cut": lines[: lines.index(b"\n") + 1], "emptied": b""}
        file.write_bytes(ways.get(damage, lines.replace(b"half", b"Half")))
    for read in (lambda: find_shards(store.root), lambda: excluded_keys(store.objects)):
        with pytest.raises(DataError, match=r"exclusions/000001-.*not what was written"):
            read()
    assert verify_records(store)[0].path.startswith(EXCLUSION_FOLDER)
    assert all(each.repaired for each in repair(store, None))
    assert verify_records(store) == []
    assert excluded_keys(store.objects) == set()


def test_a_foreign_line_is_refused(dataset):
    store = dataset()
    data = b'{"key": "0badcafe00000000", "act": "destroy"}\n'
    name = f"000001-{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
    store.objects.write_new(f"{EXCLUSION_FOLDER}/{name}", data)
    with pytest.raises(DataError, match="is not a Exclusion record"):
        excluded_keys(store.objects)


@pytest.mark.parametrize("scheme", [1, 2])
def test_a_merge_leaves_out_what_its_sources_leave_out(dataset, tmp_path, scheme):
    roots = [tmp_path / "a", tmp_path / "b"]
    stores = [dataset(root, seed, scheme=scheme) for root, seed in zip(roots, (1, 20), strict=True)]
    exclude_samples(stores[0], [KEYS[1]], **ME)
    if scheme == 2:
        return_names(stores, tmp_path)
        return
    merge_datasets(roots, tmp_path / "both")
    merged = Store.open(tmp_path / "both")
    (key,) = excluded_keys(merged.objects)
    assert key.endswith(KEYS[1][8:])
    assert len(SampleFiles(find_shards(merged.root), VOCABULARY)) == 7
    include_samples(merged, [key], **ME)
    merge_datasets(roots, tmp_path / "both")  # says nothing again that was said
    assert excluded_keys(merged.objects) == set()
    exclude_samples(stores[1], [KEYS[0]], **ME)
    merge_datasets(roots, tmp_path / "both")
    assert len(SampleFiles(find_shards(merged.root), VOCABULARY)) == 7


def return_names(stores, tmp_path):
    """Datasets of scheme 2 name their samples themselves; one of these is enough."""
    other = tmp_path / "c"
    store = Store.create(other, {**stores[1].spec, "min_yield": 0.4})
    merge_datasets([stores[0].root, other], tmp_path / "both")
    assert excluded_keys(Store.open(tmp_path / "both").objects) == {KEYS[1]}
    assert store.shards() == []


def test_what_stays_beside_a_shard_that_is_gone_harms_nobody(dataset):
    store = dataset()
    exclude_samples(store, [KEYS[1]], **ME)
    (line,) = read_exclusions(store.objects)
    append_exclusions(store.objects, [line.model_copy(update={"key": "0badcafe00000050"})])
    assert count_excluded(store) == {"0badcafe": {"hand": 1}}
    assert len(SampleFiles(find_shards(store.root), VOCABULARY)) == 3
