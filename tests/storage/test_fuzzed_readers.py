"""Readers and random damage: what they give back, or an error in words; nothing else, and soon."""

import io
import json
import resource
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzzing import damaged, survives
from storage.archives import read_archive, write_archive
from storage.codecs import (
    decode_image,
    decode_label_map,
    decode_rle,
    encode_image,
    encode_label_map,
    encode_rle,
)
from storage.errors import DataError
from storage.manifest import count_outcomes, decode_manifest, describe_samples, encode_manifest
from storage.pairs import EncodedPair, iterate_pairs, pack_pairs
from storage.rows import read_rows, write_rows
from storage.sample_members import check_sample
from storage.shards import iterate, pack
from storage.vocabulary import load_vocabulary
from training.data import SampleFiles
from training.shard_cache import ShardFile

VOCABULARY = load_vocabulary("lvis1205")
MEMORY = 3 << 29
"""Bytes by which this process may grow: enough for the largest picture."""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=[150, pytest.param(2000, marks=pytest.mark.fuzz)])
def rounds(request):
    """How many damaged files there are; memory is bounded meanwhile."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield request.param
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MEMORY


@pytest.fixture
def samples(sample):
    return [replace(sample(number), class_names=(VOCABULARY[1204].name,)) for number in range(3)]


@pytest.fixture
def read_tar(tmp_path):
    """Reads a tar as every command does."""

    def read(data: bytes):
        path = tmp_path / "s.tar"
        path.write_bytes(data)
        for each in iterate(path):
            decode_image(each.image_bytes, name=each.member("image"))
            decode_image(each.counterfactual_bytes, name=each.member("counterfactual"))
            decode_label_map(each.mask_bytes, name=each.member("mask"))
            for instance in each.instances:
                decode_rle(instance.rle, 16, 16, name=each.member("image"))

    return read


@pytest.fixture
def train_on(tmp_path):
    def read(data: bytes):
        path = tmp_path / "t.tar"
        path.write_bytes(data)
        files = SampleFiles([ShardFile(str(path), "x", len(data))], VOCABULARY)
        assert [files[number] for number in range(len(files))]

    return read


@pytest.fixture
def manifest(samples, plan_of, names):
    rows = describe_samples(plan_of(samples), names, samples=samples, dropped=[])
    return encode_manifest(rows)


def test_damaged_tars(samples, read_tar, train_on, rounds):
    whole = bytes(pack(samples))
    read_tar(whole)
    train_on(whole)
    results = []
    for number in range(rounds):
        data = damaged(whole, number)
        results.append(survives(read_tar, data, named="s.tar"))
        results.append(survives(train_on, data, named="t.tar"))
    assert sum(results) < len(results) / 2


def test_tars_with_damaged_members(samples, read_tar, rounds):
    members = list(read_archive(pack(samples), "whole"))
    for number in range(rounds):
        name, data = members[number % len(members)]
        parts = dict(members) | {name: damaged(data, number)}
        survives(read_tar, bytes(write_archive(parts.items())), named="s.tar")


def test_damaged_tar_headers_with_a_right_checksum(samples, read_tar, rounds):
    whole = bytes(pack(samples))
    for number in range(rounds):
        block = bytearray(damaged(whole[:512], number)[:512].ljust(512, b"\0"))
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        survives(read_tar, bytes(block) + whole[512:], named="s.tar")


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_damaged_pictures(kind, rounds):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    whole = encode_image(pixels, kind)
    for number in range(rounds):
        survives(
            lambda data: decode_image(data, name="a.img"), damaged(whole, number), named="a.img"
        )


def test_damaged_label_maps(rounds):
    whole = encode_label_map(np.arange(960, dtype=np.uint16).reshape(24, 40))
    for number in range(rounds):
        survives(
            lambda data: decode_label_map(data, name="a.map"), damaged(whole, number), named="a.map"
        )


def test_damaged_pairs(samples, rounds):
    pairs = [EncodedPair(s.key, s.image_bytes, s.counterfactual_bytes) for s in samples]
    whole = bytes(pack_pairs(pairs, []))
    for number in range(rounds):
        survives(
            lambda data: list(iterate_pairs(io.BytesIO(data), "p.tar")),
            damaged(whole, number),
            named="p.tar",
        )


def test_damaged_rows(rows, rounds):
    whole = bytes(rows[0].data)
    for number in range(rounds):
        survives(read_rows, damaged(whole, number))


def test_damaged_manifests(manifest, rounds):
    read = [
        survives(
            lambda data: decode_manifest(data, name="m.parquet"),
            damaged(manifest, n),
            named="m.parquet",
        )
        for n in range(rounds)
    ]
    assert not all(read)
    for number in range(rounds):
        survives(
            lambda data: count_outcomes(data, name="m.parquet"),
            damaged(manifest, number),
            named="m.parquet",
        )


@given(st.binary(max_size=3000))
@example(b"\0" * 1024)
def test_any_bytes(data):
    for read in (decode_image, decode_label_map, read_rows, decode_manifest):
        survives(read, data)
    survives(lambda data: list(read_archive(data, "it")), data)
    survives(lambda data: list(iterate_pairs(data, "it")), data)


SIDES = st.integers(-1, 40) | st.sampled_from([200_000, 2**31, 2**63, 2**70])
DIGITS = st.text(st.characters(min_codepoint=48, max_codepoint=111))


@given(DIGITS | st.text() | st.binary().map(lambda data: data.decode("latin-1")), SIDES, SIDES)
@example("zzzz", 200_000, 200_000)
@example("oooooooooooo0", 4, 4)
def test_any_run_lengths(counts, height, width):
    try:
        mask = decode_rle(counts, height, width)
    except DataError:
        return
    assert mask.shape == (height, width)
    assert (decode_rle(encode_rle(mask), height, width) == mask).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 6))
def test_run_lengths_of_a_mask_are_those_of_coco(runs, height):
    """Runs of no pixel too, which other programs write."""
    total = sum(runs)
    width = max(1, -(-total // height))
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask = np.pad(flat, (0, width * height - total)).reshape(width, height).T
    assert (decode_rle(encode_rle(mask), height, width) == mask).all()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NESTED = JSON.map(json.dumps)


@pytest.fixture(scope="module")
def parts():
    """The members of a sample by extension."""
    pixels = encode_image(np.zeros((16, 16, 3), np.uint8), "png")
    about = {
        "key": "k",
        "index": 0,
        "seed": 0,
        "width": 16,
        "height": 16,
        "text": "a cat",
        "counterfactual_text": "nothing",
        "class_ids": [1],
        "class_names": ["cat"],
        "writer": "",
        "mentions": "[]",
        "instances": "[]",
        "counterfactual_boxes": "[]",
    }
    mask = encode_label_map(np.zeros((16, 16), np.uint16))
    return {"png": pixels, "cf.png": pixels, "mask.png": mask, "json": json.dumps(about).encode()}


@given(st.data())
def test_any_values_in_the_json_of_a_sample(parts, data):
    about = json.loads(parts["json"])
    assert check_sample(parts, "k", "s.tar").text == "a cat"
    for field in data.draw(st.sets(st.sampled_from(sorted(about)), min_size=1, max_size=3)):
        about[field] = data.draw(JSON | NESTED)
    survives(
        lambda text: check_sample({**parts, "json": text}, "k", "s.tar"), json.dumps(about).encode()
    )


def test_damaged_json_of_a_sample(parts, rounds):
    for number in range(rounds):
        survives(
            lambda text: check_sample({**parts, "json": text}, "k", "s.tar"),
            damaged(parts["json"], number),
            named="s.tar",
        )


@given(JSON)
def test_any_json_in_place_of_that_of_a_sample(parts, value):
    text = json.dumps(value).encode()
    assert not survives(lambda text: check_sample({**parts, "json": text}, "k", "s.tar"), text)
    survives(read_rows, text)


def test_rows_that_are_whole_come_back(rows):
    records = read_rows(bytes(rows[0].data))
    assert write_rows(records) == bytes(rows[0].data)
