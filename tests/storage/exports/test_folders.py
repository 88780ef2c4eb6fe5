import dataclasses
import json
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from storage.codecs import encode_label_map
from storage.errors import DataError, InputError, LeaseHeldError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import export_shards, read_export
from storage.locks import LOCK_FILE, hold_folder
from storage.shards import pack
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("miniature")
PAIR = resolve_closed_set(VOCABULARY, "rocket,bus")


@pytest.fixture
def shard(tmp_path, sample):
    """Writes a tar of samples that show the named classes; returns its path."""

    def write(name, *shown, fmt="png", first=0):
        samples = []
        for offset, classes in enumerate(shown):
            index = first + offset
            ids = tuple(VOCABULARY.by_name(each).class_id for each in classes.split("+"))
            labels = np.zeros((16, 16), np.uint16)
            for row, class_id in enumerate(ids):
                labels[row] = class_id + 1
            labels[15] = 65535
            plain = sample(index, fmt=fmt)
            samples.append(
                dataclasses.replace(
                    plain,
                    class_ids=ids,
                    class_names=tuple(VOCABULARY[i].name for i in ids),
                    mentions=(),
                    instances=(),
                    mask_bytes=encode_label_map(labels),
                )
            )
        path = tmp_path / f"{name}.tar"
        path.write_bytes(pack(samples))
        return str(path)

    return write


def labels_of(out, key):
    with Image.open(out / "labels/train" / f"{key}.png") as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_only_samples_with_a_class_of_the_set_are_exported(shard, sample, tmp_path):
    path = shard("a", "bus", "cat", "cat+rocket")
    out = tmp_path / "out"
    exported = export_shards({path: "1"}, PAIR, out)
    keys = (out / "splits/train.txt").read_text().split()
    assert keys == [sample(0).key, sample(2).key]
    assert (exported.num_samples, exported.num_skipped) == (2, 1)
    assert exported.samples_by_class == {"rocket": 1, "bus": 1}
    assert exported.labels == ("background", "rocket", "bus")
    assert (out / f"images/train/{keys[0]}.png").read_bytes() == sample(0).image_bytes
    first, second = (labels_of(out, key) for key in keys)
    assert first[0].tolist() == [2] * 16
    assert first[15].tolist() == [255] * 16
    # The cat of the second image is background, its rocket has the first label.
    assert second[:2].tolist() == [[0] * 16, [1] * 16]
    assert read_export(out) == exported


def test_an_interrupted_export_goes_on_with_the_shards_that_are_left(shard, tmp_path):
    out = tmp_path / "out"
    good, bad = shard("a", "bus"), shard("b", "rocket", first=10)
    whole = tmp_path.joinpath("b.tar").read_bytes()
    tmp_path.joinpath("b.tar").write_bytes(whole[:700])
    with pytest.raises(DataError):
        export_shards({good: "1", bad: "2"}, PAIR, out)
    with pytest.raises(InputError, match="no finished export"):
        read_export(out)
    tmp_path.joinpath("b.tar").write_bytes(whole)
    # What is done is not read again: the first tar may even be gone.
    tmp_path.joinpath("a.tar").unlink()
    assert export_shards({good: "1", bad: "2"}, PAIR, out).num_samples == 2
    assert len(list((out / "images/train").iterdir())) == 2


def test_a_dataset_that_has_grown_is_exported_further(shard, tmp_path):
    out = tmp_path / "out"
    first, second = shard("a", "bus"), shard("b", "rocket", first=10)
    before = export_shards({first: "1"}, PAIR, out)
    after = export_shards({first: "1", second: "2"}, PAIR, out)
    assert (before.num_samples, after.num_samples) == (1, 2)
    assert before.digest != after.digest
    assert len((out / "splits/train.txt").read_text().split()) == 2


def test_a_folder_of_other_classes_or_other_files_is_refused(shard, tmp_path):
    path, out = shard("a", "bus"), tmp_path / "out"
    export_shards({path: "1"}, PAIR, out)
    with pytest.raises(InputError, match=r"holds another export: .*names"):
        export_shards({path: "1"}, resolve_closed_set(VOCABULARY, "bus"), out)
    with pytest.raises(InputError, match="holds other files"):
        export_shards({path: "1"}, PAIR, tmp_path)


@pytest.mark.parametrize("damage", [b"", b"[" * 200_000, b"[]", b"\xff", b'{"a":'])
def test_a_damaged_request_is_named_and_another_folder_helps(shard, tmp_path, damage):
    path, out = shard("a", "bus"), tmp_path / "out"
    export_shards({path: "1"}, PAIR, out)
    (out / ".export/request.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"request\.json is not a JSON object .*another folder"):
        export_shards({path: "1"}, PAIR, out)
    assert export_shards({path: "1"}, PAIR, tmp_path / "other").num_samples == 1


def test_shards_of_another_vocabulary_or_without_the_classes_are_refused(shard, tmp_path):
    path = shard("a", "cat")
    with pytest.raises(InputError, match="no sample of the 1 shards shows a class of rocket,bus"):
        export_shards({path: "1"}, PAIR, tmp_path / "out")
    lvis = resolve_closed_set(load_vocabulary("lvis1205"), "voc20")
    with pytest.raises(InputError, match="calls class 2 'cat'"):
        export_shards({path: "1"}, lvis, tmp_path / "other")


def test_images_of_two_formats_are_refused(shard, tmp_path):
    shards = {shard("a", "bus"): "1", shard("b", "bus", fmt="jpg", first=10): "2"}
    with pytest.raises(DataError, match="both JPEG and PNG"):
        export_shards(shards, PAIR, tmp_path / "out")


def test_the_description_is_plain_json(shard, tmp_path):
    export_shards({shard("a", "bus", fmt="jpg"): "1"}, PAIR, tmp_path / "out")
    described = json.loads((tmp_path / "out/classes.json").read_text())
    assert described["labels"] == ["background", "rocket", "bus"]
    assert described["closed_set"]["class_ids"] == [13, 1]
    assert (described["ignore"], described["image_suffix"]) == (255, ".jpg")


def require_whole(out):
    """The split, the files and the description say the same."""
    exported = read_export(out)
    keys = (out / "splits/train.txt").read_text().split()
    assert len(keys) == exported.num_samples
    images = {path.name for path in (out / "images/train").iterdir()}
    labels = {path.name for path in (out / "labels/train").iterdir()}
    assert images == {f"{key}{exported.image_suffix}" for key in keys}
    assert labels == {f"{key}.png" for key in keys}
    return exported


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK_FILE
    }


def test_a_shard_that_has_grown_is_exported_anew(shard, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    first = shard("a", "bus")
    export_shards({first: "1", shard("b", "rocket", first=10): "2"}, PAIR, out)
    grown = {first: "1", shard("b", "rocket", "cat", "bus", first=10): "3"}
    exported = export_shards(grown, PAIR, out)
    assert exported.num_samples == 3
    assert require_whole(out) == exported == export_shards(grown, PAIR, whole)
    assert contents(out) == contents(whole)


def test_a_shard_that_was_remade_leaves_nothing_of_its_old_version(shard, tmp_path):
    out = tmp_path / "out"
    export_shards({shard("a", "bus", "rocket", "bus", fmt="jpg"): "1"}, PAIR, out)
    remade = {shard("a", "rocket", "cat"): "2"}
    exported = export_shards(remade, PAIR, out)
    assert exported.samples_by_class == {"rocket": 1, "bus": 0}
    assert require_whole(out) == exported


def test_a_shard_that_is_gone_leaves_nothing(shard, tmp_path):
    out = tmp_path / "out"
    first, second = shard("a", "bus"), shard("b", "rocket", first=10)
    export_shards({first: "1", second: "2"}, PAIR, out)
    assert export_shards({first: "1"}, PAIR, out).num_samples == 1
    require_whole(out)


def test_files_that_somebody_removed_are_exported_again(shard, tmp_path):
    out, shards = tmp_path / "out", {shard("a", "bus", "rocket"): "1"}
    export_shards(shards, PAIR, out)
    whole = contents(out)
    next((out / "labels/train").iterdir()).unlink()
    export_shards(shards, PAIR, out)
    assert contents(out) == whole


def test_an_export_of_the_same_shards_changes_no_file(shard, tmp_path):
    out, shards = tmp_path / "out", {shard("a", "bus", "rocket"): "1"}
    export_shards(shards, PAIR, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != LOCK_FILE}
    assert export_shards(shards, PAIR, out) == read_export(out)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != LOCK_FILE}
    assert after == before


def test_a_sample_in_two_shards_is_refused(shard, tmp_path):
    shards = {shard("a", "bus"): "1", shard("b", "rocket"): "2"}
    with pytest.raises(DataError, match=r"is in .*a\.tar and in .*b\.tar"):
        export_shards(shards, PAIR, tmp_path / "out")
    with pytest.raises(InputError, match="no finished export"):
        read_export(tmp_path / "out")


def test_a_file_where_the_folder_should_be_is_told(shard, tmp_path):
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"out cannot be written to .*choose another folder"):
        export_shards({shard("a", "bus"): "1"}, PAIR, tmp_path / "out")


EXPORT = """
import json, sys
from pathlib import Path
from storage.errors import LeaseHeldError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import export_shards
from storage.vocabulary import load_vocabulary
closed_set = resolve_closed_set(load_vocabulary("miniature"), "rocket,bus")
for _ in range(int(sys.argv[3])):
    try:
        export_shards(json.loads(sys.argv[1]), closed_set, Path(sys.argv[2]))
        print("done", flush=True)
    except LeaseHeldError as error:
        print("held", flush=True)
"""

# every write of an export that replaces a shard
REPLACE = [
    f"{kind}:*/{place}"
    for place in (
        "images/train/*b.png",
        "labels/train/*a.png",
        "shards/b.tar.json",
        "classes.json",
        "splits/train.txt",
    )
    for kind in ("temp", "named")
]
REPLACE += ["deleted:*/splits/train.txt", "deleted:*/b.tar.json", "deleted:*/images/train/*c.png"]
# and of one that begins
BEGIN = ["temp:*/request.json", "named:*/request.json", "temp:*/labels/*b.png"]


@pytest.mark.parametrize(
    ("begun", "step"), [*((True, each) for each in REPLACE), *((False, each) for each in BEGIN)]
)
def test_a_kill_at_any_write_leaves_an_export_that_is_whole_or_says_that_it_is_not(
    shard, tmp_path, in_process, step, begun
):
    out, whole = tmp_path / "out", tmp_path / "whole"
    first = shard("a", "bus")
    if begun:
        old = {first: "1", shard("b", "rocket", "bus", "bus", first=10): "2"}
        before = export_shards(old, PAIR, out)
    new = {first: "1", shard("b", "bus", "rocket", first=10): "3"}
    after = export_shards(new, PAIR, whole)
    process = in_process(EXPORT, json.dumps(new), str(out), "1", MAGICSEG_CRASH_AT=step)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    if (out / "splits/train.txt").exists():
        assert require_whole(out) in [after, *([before] if begun else [])]
    assert export_shards(new, PAIR, out) == after
    require_whole(out)
    assert contents(out) == contents(whole)


def test_two_processes_export_into_one_folder_one_at_a_time(shard, tmp_path, in_process):
    out = tmp_path / "out"
    shards = {shard("a", "bus", "rocket"): "1", shard("b", "rocket", first=10): "2"}
    start = [in_process(EXPORT, json.dumps(shards), str(out), "20") for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in start]
    assert [process.returncode for process in start] == [0, 0], outputs
    assert "done" in outputs[0][0] + outputs[1][0]
    assert require_whole(out).num_samples == 3


def test_a_second_thread_is_told_that_an_export_is_at_work(shard, tmp_path):
    out, shards = tmp_path / "out", {shard("a", "bus"): "1"}
    export_shards(shards, PAIR, out)
    with hold_folder(out), ThreadPoolExecutor(1) as pool:
        other = pool.submit(export_shards, shards, PAIR, out)
        with pytest.raises(LeaseHeldError, match=f"at work in {out}: .* is held by process"):
            other.result()
    export_shards(shards, PAIR, out)
