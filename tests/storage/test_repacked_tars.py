"""A tar of ours, packed again by other programs, in any order and with any folder in front."""

import dataclasses
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from importlib.util import find_spec

import numpy as np
import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.archives import read_archive
from storage.errors import DataError, InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import export_shards, read_export
from storage.shards import iterate, pack
from storage.vocabulary import load_vocabulary
from training.data import SampleFiles, find_shards

VOCABULARY = load_vocabulary("miniature")
NAME = VOCABULARY[0].name
LITTER = {".DS_Store": b"Bud1", "Thumbs.db": b"\xd0\xcf", "desktop.ini": b"[.ShellClassInfo]"}


def by_tarfile(kind, litter=False):
    """Python's tarfile, in one of its formats; folders and times are noted."""

    def write(path, folder, members):
        with tarfile.open(path, "w", format=kind) as out:
            if folder:
                place = tarfile.TarInfo(folder)
                place.type = tarfile.DIRTYPE
                out.addfile(place)
            beside = LITTER if litter else {}
            for name, data in [*beside.items(), *members]:
                for each, content in ((f"._{name}", b"\0\5\x16\7"), (name, data)):
                    if each != name and not litter:
                        continue
                    info = tarfile.TarInfo(f"{folder}/{each}" if folder else each)
                    info.size, info.mtime = len(content), 1234567890.25
                    out.addfile(info, io.BytesIO(content))

    return write


def by_tar(*options, here=False):
    """The program tar, from files in a folder."""

    def write(path, folder, members):
        place = path.parents[1] / "unpacked"
        inside = place if here else place / (folder or "data")
        inside.mkdir(parents=True)
        for name, data in members:
            (inside / name).write_bytes(data)
        prefix = "./" if here else f"{folder or 'data'}/"
        listed = [prefix, *(f"{prefix}{name}" for name, _ in members)]
        (path.parents[1] / "list").write_text("\n".join(listed))
        command = ["tar", *options, "--no-recursion", "-cf", path, "-C", place]
        command += ["--verbatim-files-from"]
        subprocess.run([*command, "-T", path.parents[1] / "list"], check=True)

    return write


def by_webdataset(path, folder, members):
    """webdataset's ShardWriter; it makes the order of a sample's members its own."""
    samples = {}
    for name, data in members:
        key, _, kind = name.partition(".")
        samples.setdefault(key, {})[kind] = data
    pattern = str(path.parent / "part-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=100, verbose=0) as out:
        for key, parts in samples.items():
            out.write({"__key__": f"{folder}/{key}" if folder else key, **parts})
    (path.parent / "part-000000.tar").rename(path)


WAYS = {
    "webdataset": by_webdataset,
    "tar": by_tar(),
    "tar, from the folder itself": by_tar(here=True),
    "tar in POSIX format": by_tar("--format=posix"),
    "tar in the old format": by_tar("--format=oldgnu"),
    "tarfile in PAX format": by_tarfile(tarfile.PAX_FORMAT),
    "tarfile in GNU format": by_tarfile(tarfile.GNU_FORMAT),
    "a desktop": by_tarfile(tarfile.PAX_FORMAT, litter=True),
}
FOLDERS = st.one_of(
    st.just(""),
    st.text("abz0 _-äß漢", min_size=1, max_size=12).map(str.strip).filter(bool),
    st.lists(st.text("xyz.", min_size=1, max_size=40), min_size=3, max_size=6).map(
        lambda parts: "/".join(f"f{part}" for part in parts)
    ),
)


@pytest.fixture(scope="module")
def samples(sample):
    return [
        dataclasses.replace(sample(index, class_id=0), class_names=(NAME,), text=f"it, {index}")
        for index in range(4)
    ]


ORDERS = st.tuples(
    st.permutations(range(4)), st.lists(st.permutations(range(4)), min_size=4, max_size=4)
)
"""Samples in any order, and the members of each."""


def in_order(samples, order):
    members = list(read_archive(pack(samples), "whole"))
    return [members[4 * sample + member] for sample in order[0] for member in order[1][sample]]


def written(way, folder, members, tmp_path_factory):
    place = tmp_path_factory.mktemp("tars")
    path = place / "in" / "s.tar"
    path.parent.mkdir()
    WAYS[way](path, folder, members)
    return path


def in_training(path):
    found = SampleFiles(find_shards(str(path.parent)), VOCABULARY)
    return [found[number] for number in range(len(found))]


@pytest.mark.parametrize("way", WAYS)
@given(order=ORDERS, folder=FOLDERS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
def test_it_reads_the_same_whoever_packed_it(way, order, folder, samples, tmp_path_factory):
    path = written(way, folder, in_order(samples, order), tmp_path_factory)
    read = {sample.key: sample for sample in iterate(path)}
    assert read == {sample.key: sample for sample in samples}
    assert [stored.text for stored in in_training(path)] == [each.text for each in iterate(path)]


OTHER_READERS = """
import hashlib, json, sys, tempfile
import datasets, webdataset

tars = json.loads(sys.argv[1])
datasets.disable_progress_bars()

def short(key, image, text):
    return key.rpartition("/")[2], hashlib.sha256(image).hexdigest(), text

found = {}
for name, path in tars.items():
    raw = webdataset.WebDataset(path, shardshuffle=False)
    rows = [short(each["__key__"], each["png"], json.loads(each["json"])["text"]) for each in raw]
    found[name] = {"webdataset": rows}
with tempfile.TemporaryDirectory() as cache:
    loaded = datasets.load_dataset("webdataset", data_files=tars, cache_dir=cache)
    for name, table in loaded.items():
        plain = table.cast_column("png", datasets.Image(decode=False))
        rows = [short(row["__key__"], row["png"]["bytes"], row["json"]["text"]) for row in plain]
        found[name]["datasets"] = rows
print(json.dumps(found))
"""


@pytest.mark.skipif(find_spec("datasets") is None, reason="needs datasets")
def test_all_readers_agree_on_every_sample(samples, tmp_path_factory, in_process):
    ways = [way for way in WAYS if way != "a desktop"]  # whose litter others take for samples
    paths = {}
    for number, way in enumerate(ways):
        draw = np.random.default_rng(number)
        order = draw.permutation(4), [draw.permutation(4) for _ in range(4)]
        folder = ("", "data", "f." * 60)[number % 3]
        members = in_order(samples, order)
        paths[f"way{number}"] = written(way, folder, members, tmp_path_factory)
    child = in_process(OTHER_READERS, json.dumps({name: str(path) for name, path in paths.items()}))
    told, error = child.communicate(timeout=120)
    assert child.returncode == 0, error[-2000:]
    found = json.loads(told.splitlines()[-1])

    expected = {each.key: each for each in samples}
    for name, path in paths.items():
        own = [(each.key, sha256(each.image_bytes), each.text) for each in iterate(path)]
        assert {key for key, _, _ in own} == expected.keys()
        assert all(expected[key].text == text for key, _, text in own)
        assert found[name]["webdataset"] == found[name]["datasets"] == [list(row) for row in own]

        assert [each.text for each in in_training(path)] == [text for _, _, text in own]

        out = path.parents[1] / "out"
        export_shards({str(path): "1"}, resolve_closed_set(VOCABULARY, NAME), out)
        exported = {each.stem: each.read_bytes() for each in (out / "images/train").iterdir()}
        assert exported == {key: each.image_bytes for key, each in expected.items()}
        keys = (out / "splits/train.txt").read_text().split()
        assert len(keys) == len(expected) == read_export(out).num_samples


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("reader", ["train", "export"])
def test_two_tars_with_one_key_are_both_named(reader, samples, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_bytes(pack(samples[:2] if name == "a" else samples[1:]))
    shards = {str(tmp_path / f"{name}.tar"): name for name in ("a", "b")}
    words = rf"sample {samples[1].key} is in .*a\.tar and in .*b\.tar"
    read = {
        "train": lambda: SampleFiles(find_shards(str(tmp_path)), VOCABULARY),
        "export": lambda: export_shards(
            shards, resolve_closed_set(VOCABULARY, NAME), tmp_path / "out"
        ),
    }
    with pytest.raises(DataError, match=words):
        read[reader]()


def test_what_lies_in_place_of_tars_is_named_and_the_advice_works(samples, tmp_path):
    def said():
        with pytest.raises(InputError) as refusal:
            find_shards(str(tmp_path))
        return str(refusal.value)

    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(pack(samples)))
    assert "a.tar.gz is compressed, unpack it to a plain .tar" in said()
    subprocess.run(["gunzip", packed], check=True)  # noqa: S607
    assert len(SampleFiles(find_shards(str(tmp_path)), VOCABULARY)) == 4

    (tmp_path / "data").mkdir()
    (tmp_path / "a.tar").rename(tmp_path / "data" / "a.tar")
    assert f"but {tmp_path / 'data'} is: name that" in said()
    assert len(SampleFiles(find_shards(str(tmp_path / "data")), VOCABULARY)) == 4
