"""COCO: read back by its own library, cut and gone on with, followed, and hostile folders."""

import json
import subprocess
import sys
from uuid import uuid4

import numpy as np
import pytest
from pycocotools.coco import COCO

from flows.dataset_exports import export_as
from labelled_datasets import HEIGHT, TEXT, VOCABULARY, WIDTH, commit_samples, drawn_sample, key_of
from storage.codecs import decode_rle
from storage.errors import DataError, InputError
from storage.exclusions import exclude_samples
from storage.exports.documents import read_exported_document
from storage.shards import iterate


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    """Two shards of three and two samples, on a disk or in an object store."""
    local = request.param == "local"
    return commit_samples(tmp_path / "d" if local else f"memory://{uuid4().hex}", 3, 2)


def opened(out, capsys):
    coco = COCO(str(out / "instances.json"))
    capsys.readouterr()
    return coco


def test_its_library_reads_the_stored_masks_back(store, tmp_path, capsys):
    out = tmp_path / "coco"
    exported = export_as(store.root, "coco", "miniature", out)
    coco = opened(out, capsys)
    assert (exported.num_samples, exported.num_regions) == (5, 10)
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == [
        each.name for each in VOCABULARY
    ]
    by_key = {each["key"]: each for each in coco.imgs.values()}
    assert sorted(by_key) == [key_of(index) for index in range(5)]
    for shard in store.shards():
        for sample in iterate(shard.path, shard.sha256):
            image = by_key[sample.key]
            assert (image["width"], image["height"], image["text"]) == (WIDTH, HEIGHT, TEXT)
            assert (out / image["file_name"]).read_bytes() == sample.image_bytes
            twin = out / image["counterfactual_file_name"]
            assert twin.read_bytes() == sample.counterfactual_bytes
            found = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
            assert len(found) == len(sample.instances)
            for own, stored in zip(found, sample.instances, strict=True):
                mask = decode_rle(stored.rle, HEIGHT, WIDTH)
                assert (coco.annToMask(own) == mask).all()
                assert own["area"] == stored.area == mask.sum()
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                left, top, wide, high = own["bbox"]
                assert (left, top) == (columns[0], rows[0])
                assert (left + wide, top + high) == (columns[-1] + 1, rows[-1] + 1)
                assert own["category_id"] == stored.class_id + 1
                assert 0 < own["id"] < 2**53


def test_the_terms_and_the_card_come_along(store, tmp_path):
    out = tmp_path / "coco"
    exported = export_as(store.root, "coco", "miniature", out, images=False)
    document = json.loads((out / "instances.json").read_text(encoding="utf-8"))
    assert document["info"]["version"] == store.specification.dataset_id == exported.facts.dataset
    assert "terms of those models" in document["licenses"][0]["name"]
    assert "## Licences" in (out / "DATASET_CARD.md").read_text(encoding="utf-8")
    assert not (out / "images").exists()


def test_numbers_stay_when_the_dataset_grows_or_is_exported_elsewhere(tmp_path, capsys):
    store, out = commit_samples(tmp_path / "d", 3), tmp_path / "coco"
    export_as(store.root, "coco", "miniature", out)
    before = opened(out, capsys)
    first = (out / "instances.json").read_bytes()
    export_as(store.root, "coco", "miniature", out)
    assert (out / "instances.json").read_bytes() == first
    commit_samples(tmp_path / "d", 2, first=3)
    export_as(store.root, "coco", "miniature", out)
    export_as(store.root, "coco", "miniature", tmp_path / "other")
    after = opened(out, capsys)
    assert (len(before.imgs), len(after.imgs)) == (3, 5)
    assert before.imgs.items() <= after.imgs.items()
    assert before.anns.items() <= after.anns.items()
    other = tmp_path / "other/instances.json"
    assert other.read_bytes() == (out / "instances.json").read_bytes()


def test_what_is_left_out_goes_and_comes_back(store, tmp_path, capsys):
    out = tmp_path / "coco"
    whole = export_as(store.root, "coco", "miniature", out)
    exclude_samples(store, [key_of(1)], who="ann", why="torn")
    less = export_as(store.root, "coco", "miniature", out)
    assert (less.num_samples, less.num_regions) == (4, 8)
    assert key_of(1) not in {each["key"] for each in opened(out, capsys).imgs.values()}
    assert not (out / f"images/{key_of(1)}.png").exists()
    assert not (out / f"counterfactuals/{key_of(1)}.png").exists()
    assert less.digest != whole.digest


POINTS = (
    "temp:*/.export/request.json",
    "named:*/images/*",
    "temp:*.annotations.lines",
    "named:*.annotations.lines",
    "named:*/.export/shards/*.tar.json",
    "temp:*/instances.json",
    "temp:*/export.json",
)


def test_a_killed_export_is_not_whole_and_goes_on(tmp_path):
    """Killed at every step that touches the disk: never taken for whole, and then finished."""
    store = commit_samples(tmp_path / "d", 2, 1)
    whole = tmp_path / "whole"
    export_as(store.root, "coco", "miniature", whole)
    program = """
import os, sys
from pathlib import Path
from flows.dataset_exports import export_as

for point in sys.argv[3:]:
    child = os.fork()
    if not child:
        os.environ["MAGICSEG_CRASH_AT"] = point
        export_as(sys.argv[1], "coco", "miniature", Path(sys.argv[2]))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), point
    assert not Path(sys.argv[2], "export.json").exists(), point
"""
    out = tmp_path / "cut"
    line = [sys.executable, "-c", program, store.root, str(out), *POINTS]
    assert subprocess.run(line, check=False).returncode == 0
    with pytest.raises(InputError, match="no finished export"):
        read_exported_document(out)
    export_as(store.root, "coco", "miniature", out)
    for name in ("instances.json", "export.json", "DATASET_CARD.md"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(p.name for p in (out / "images").iterdir()) == [
        f"{key_of(index)}.png" for index in range(3)
    ]


def test_what_is_damaged_gone_or_strange_in_the_folder_is_made_again(tmp_path):
    store, out = commit_samples(tmp_path / "d", 2), tmp_path / "coco"
    export_as(store.root, "coco", "miniature", out)
    first = (out / "instances.json").read_bytes()
    (out / f"images/{key_of(0)}.png").unlink()
    (out / "images/stranger.png").write_bytes(b"x")
    (out / "instances.json").unlink()
    export_as(store.root, "coco", "miniature", out)
    assert (out / "instances.json").read_bytes() == first
    assert sorted(p.stem for p in (out / "images").iterdir()) == [key_of(0), key_of(1)]
    place = next((out / ".export/shards").glob("*.json"))
    place.write_text("{")
    with pytest.raises(DataError, match="remove it and export again"):
        export_as(store.root, "coco", "miniature", out)


def test_other_folders_other_requests_and_damaged_tars_are_refused(tmp_path):
    store, out = commit_samples(tmp_path / "d", 2), tmp_path / "coco"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        export_as(store.root, "coco", "miniature", tmp_path / "full")
    export_as(store.root, "coco", "miniature", out)
    with pytest.raises(InputError, match="holds another export: images"):
        export_as(store.root, "coco", "miniature", out, images=False)
    with pytest.raises(InputError, match="holds another export: format"):
        export_as(store.root, "cvat", "miniature", out)
    tar = next((tmp_path / "d/data").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DataError, match="sha256"):
        export_as(store.root, "coco", "miniature", tmp_path / "new")
    assert not (tmp_path / "new/export.json").exists()


def test_a_folder_of_tars_is_exported_too(tmp_path, capsys):
    from storage.shards import pack

    folder = tmp_path / "tars"
    folder.mkdir()
    (folder / "a.tar").write_bytes(pack([drawn_sample(0, fmt="jpg")]))
    export_as(str(folder), "coco", "miniature", tmp_path / "coco")
    assert len(opened(tmp_path / "coco", capsys).anns) == 2
    (folder / "b.tar").write_bytes(pack([drawn_sample(0, fmt="jpg")]))
    with pytest.raises(DataError, match="expected it in one tar"):
        export_as(str(folder), "coco", "miniature", tmp_path / "coco")
