import base64
import dataclasses
import io
import json
import signal
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from storage.codecs import decode_label_map, encode_label_map, encode_rle
from storage.errors import DataError, InputError, LeaseHeldError
from storage.exports.documents import export_document, read_exported_document
from storage.exports.fiftyone import FiftyOneForm
from storage.exports.forms import ExportFacts
from storage.exports.source_shards import SourceShard
from storage.locks import LOCK_FILE, hold_folder
from storage.records import Instance
from storage.shards import pack
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("miniature")
FORM = FiftyOneForm(VOCABULARY)
FACTS = ExportFacts(dataset="d" * 64, vocabulary="miniature", card="# A dataset\n\nTerms.\n")


def square(top, left, side):
    mask = np.zeros((16, 16), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def instance(name, mask):
    return Instance(
        class_id=VOCABULARY.by_name(name).class_id,
        score=0.5,
        predicted_iou=0.75,
        xyxy=(0.0, 0.0, 16.0, 16.0),
        area=int(mask.sum()),
        rle=encode_rle(mask),
    )


@pytest.fixture
def shard(tmp_path, sample):
    """Writes a tar of samples with a square of each named class; returns what is exported."""

    def write(name, *shown, fmt="png", first=0, identity="1", excluded=(), masks=True):
        samples = []
        for offset, classes in enumerate(shown):
            names = classes.split("+")
            ids = tuple(VOCABULARY.by_name(each).class_id for each in names)
            found = [square(2 * n, 2 * n, 5) for n in range(len(names))]
            labels = np.zeros((16, 16), np.uint16)
            for class_id, mask in zip(ids, found, strict=True):
                labels[mask] = class_id + 1
            instances = tuple(instance(*each) for each in zip(names, found, strict=True))
            samples.append(
                dataclasses.replace(
                    sample(first + offset, fmt=fmt),
                    class_ids=ids,
                    class_names=tuple(VOCABULARY[i].name for i in ids),
                    mentions=(),
                    instances=instances if masks else (),
                    mask_bytes=encode_label_map(labels),
                )
            )
        path = tmp_path / f"{name}.tar"
        path.write_bytes(pack(samples))
        keys = frozenset(samples[at].key for at in excluded)
        return SourceShard(str(path), identity, keys)

    return write


def export(out, *tars, facts=FACTS):
    return export_document(tars, FORM, VOCABULARY, facts, out)


def samples_of(out):
    return json.loads((out / "samples.json").read_text())["samples"]


def mask_of(detection):
    data = zlib.decompress(base64.b64decode(detection["mask"]["$binary"]["base64"]))
    return np.load(io.BytesIO(data), allow_pickle=False)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK_FILE
    }


def require_whole(out):
    """The document, the files and the description say the same."""
    exported, samples = read_exported_document(out), samples_of(out)
    assert len(samples) == exported.num_samples
    assert sum(len(each["masks"]["detections"]) for each in samples) == exported.num_regions
    data = {f"data/{path.name}" for path in (out / "data").iterdir()}
    assert data == {each["filepath"] for each in samples}
    assert {f"fields/counterfactual/{path.rpartition('/')[2]}" for path in data} == {
        each["counterfactual"] for each in samples
    }
    assert len(list((out / "fields/counterfactual").iterdir())) == len(samples)
    return exported


def test_samples_become_detections_with_masks_boxes_and_scores(shard, sample, tmp_path):
    out = tmp_path / "out"
    exported = export(out, shard("a", "bus+rocket", "cat"))
    assert (exported.num_samples, exported.num_regions) == (2, 3)
    assert exported.samples_by_class == {"bus": 1, "cat": 1, "rocket": 1}
    first = samples_of(out)[0]
    assert first["key"] == sample(0).key
    assert (first["text"], first["counterfactual_text"]) == (
        "a photo of it",
        "a photo of nothing",
    )
    assert (out / first["filepath"]).read_bytes() == sample(0).image_bytes
    assert (out / first["counterfactual"]).read_bytes() == sample(0).counterfactual_bytes
    bus, rocket = first["masks"]["detections"]
    assert (bus["label"], rocket["label"]) == ("bus", "rocket")
    # The rocket's square begins at row and column 2 of 16; the mask of the bus is not cut by it.
    assert rocket["bounding_box"] == [2 / 16, 2 / 16, 5 / 16, 5 / 16]
    assert (rocket["confidence"], rocket["predicted_iou"], bus["area"]) == (0.5, 0.75, 25)
    assert mask_of(bus).shape == (5, 5)
    assert mask_of(bus).all()
    described = json.loads((out / "metadata.json").read_text())
    assert described["info"]["card"] == FACTS.card
    assert described["classes"]["masks"] == [each.name for each in VOCABULARY]
    assert (out / "DATASET_CARD.md").read_text() == FACTS.card
    assert require_whole(out) == exported


def test_a_sample_without_objects_has_one_for_each_class_of_its_label_map(shard, tmp_path):
    out = tmp_path / "out"
    export(out, shard("a", "bus+rocket", masks=False))
    [sample] = samples_of(out)
    bus, rocket = sample["masks"]["detections"]
    assert (bus["label"], bus["area"]) == ("bus", 25 - 9)  # the rocket lies over nine pixels
    assert (rocket["label"], rocket["area"]) == ("rocket", 25)
    assert "confidence" not in bus


def test_ids_follow_from_keys_alone(shard, tmp_path):
    one, more = tmp_path / "one", tmp_path / "more"
    second = shard("b", "rocket", first=10)
    export(one, second)
    export(more, shard("a", "bus", "cat"), second)
    [alone] = samples_of(one)
    assert alone in samples_of(more)
    ids = [each["_id"]["$oid"] for each in samples_of(more)]
    ids += [d["_id"]["$oid"] for each in samples_of(more) for d in each["masks"]["detections"]]
    assert len(set(ids)) == len(ids) == 6


def test_excluded_samples_are_left_out_and_come_back(shard, tmp_path):
    out = tmp_path / "out"
    export(out, shard("a", "bus", "cat", excluded=[0]))
    assert [each["class_names"] for each in samples_of(out)] == [["cat"]]
    assert export(out, shard("a", "bus", "cat")).num_samples == 2
    require_whole(out)


def test_an_interrupted_export_goes_on_with_the_shards_that_are_left(shard, tmp_path):
    out = tmp_path / "out"
    good, bad = shard("a", "bus"), shard("b", "rocket", first=10)
    whole = tmp_path.joinpath("b.tar").read_bytes()
    tmp_path.joinpath("b.tar").write_bytes(whole[:700])
    with pytest.raises(DataError):
        export(out, good, bad)
    with pytest.raises(InputError, match="no finished export"):
        read_exported_document(out)
    assert not (out / "samples.json").exists()
    tmp_path.joinpath("b.tar").write_bytes(whole)
    tmp_path.joinpath("a.tar").unlink()  # what is done is not read again
    assert export(out, good, bad).num_samples == 2
    require_whole(out)


@pytest.mark.parametrize(
    "lost", ["data/*", "fields/counterfactual/*", ".export/shards/*.lines", "samples.json"]
)
def test_files_that_somebody_removed_are_exported_again(shard, tmp_path, lost):
    out, tar = tmp_path / "out", shard("a", "bus", "rocket")
    export(out, tar)
    whole = contents(out)
    next(out.glob(lost)).unlink()
    export(out, tar)
    assert contents(out) == whole


def test_an_export_of_the_same_shards_changes_no_file(shard, tmp_path):
    out, tar = tmp_path / "out", shard("a", "bus", "rocket")
    export(out, tar)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != LOCK_FILE}
    assert export(out, tar) == read_exported_document(out)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != LOCK_FILE}
    assert after == before


def test_a_shard_that_is_gone_or_was_remade_leaves_nothing(shard, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    export(out, shard("a", "bus", "cat", fmt="jpg"), shard("b", "rocket", first=10, fmt="jpg"))
    remade = shard("a", "rocket", identity="2")
    assert export(out, remade).num_samples == 1
    require_whole(out)
    export(whole, remade)
    assert contents(out) == contents(whole)


def test_another_card_is_written_anew(shard, tmp_path):
    out, tar = tmp_path / "out", shard("a", "bus")
    export(out, tar)
    export(out, tar, facts=FACTS.model_copy(update={"card": "# Other terms\n"}))
    assert (out / "DATASET_CARD.md").read_text() == "# Other terms\n"
    assert json.loads((out / "metadata.json").read_text())["info"]["card"] == "# Other terms\n"


def test_what_is_no_export_of_this_kind_is_refused(shard, tmp_path):
    tar = shard("a", "bus")
    with pytest.raises(InputError, match="holds other files"):
        export(tmp_path, tar)
    other = load_vocabulary("lvis1205")
    with pytest.raises(InputError, match="calls class"):
        export_document([tar], FiftyOneForm(other), other, FACTS, tmp_path / "lvis")
    with pytest.raises(InputError, match="has a sample to export"):
        export(tmp_path / "none", dataclasses.replace(tar, excluded=shard_keys(tar)))
    with pytest.raises(DataError, match=r"is in .*a\.tar and in .*b\.tar"):
        export(tmp_path / "twice", tar, shard("b", "rocket"))
    mixed = tmp_path / "mixed.tar"
    mixed.write_bytes(mixed_tar(shard))
    with pytest.raises(DataError, match="both JPEG and PNG"):
        export(tmp_path / "mixed", SourceShard(str(mixed), "1"))


def shard_keys(tar):
    from storage.shards import read_index

    return frozenset(read_index(tar.path))


def mixed_tar(shard):
    from storage.shards import iterate

    tars = shard("c", "bus"), shard("d", "bus", fmt="jpg", first=10)
    return pack([sample for tar in tars for sample in iterate(tar.path)])


@pytest.mark.parametrize("damage", [b"", b"[" * 100_000, b"[]", b"\xff", b'{"a":'])
def test_a_damaged_request_is_named_and_another_folder_helps(shard, tmp_path, damage):
    out, tar = tmp_path / "out", shard("a", "bus")
    export(out, tar)
    (out / ".export/request.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"request\.json is not a JSON object .*another folder"):
        export(out, tar)


EXPORT = """
import json, sys
from pathlib import Path
from storage.exports.fiftyone import FiftyOneForm
from storage.exports.documents import export_document
from storage.exports.forms import ExportFacts
from storage.exports.source_shards import SourceShard
from storage.vocabulary import load_vocabulary
known = load_vocabulary("miniature")
tars = [SourceShard(path, identity) for path, identity in json.loads(sys.argv[1])]
card = "# A dataset\\n\\nTerms.\\n"
facts = ExportFacts(dataset="d" * 64, vocabulary="miniature", card=card)
export_document(tars, FiftyOneForm(known), known, facts, Path(sys.argv[2]))
"""

# writes of an export that replaces a shard
STEPS = [
    f"{kind}:*/{place}"
    for place in ("data/*a.png", "shards/b.tar.samples.lines", "shards/b.tar.json", "samples.json")
    for kind in ("temp", "named")
]
STEPS += ["deleted:*/export.json", "deleted:*/samples.json", "temp:*/export.json"]


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_write_leaves_an_export_that_is_whole_or_says_that_it_is_not(
    shard, tmp_path, in_process, step
):
    out, whole = tmp_path / "out", tmp_path / "whole"
    first = shard("a", "bus")
    before = export(out, first, shard("b", "rocket", "bus", "bus", first=10))
    second = shard("b", "bus", "rocket", first=10, identity="3")
    after = export(whole, first, second)
    tars = json.dumps([[each.path, each.identity] for each in (first, second)])
    process = in_process(EXPORT, tars, str(out), MAGICSEG_CRASH_AT=step)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    if (out / "export.json").exists():
        assert require_whole(out) in (before, after)
    assert export(out, first, second) == after
    assert contents(out) == contents(whole)


def test_a_second_export_is_told_that_one_is_at_work(shard, tmp_path):
    out, tar = tmp_path / "out", shard("a", "bus")
    export(out, tar)
    with hold_folder(out), ThreadPoolExecutor(1) as pool:
        second = pool.submit(export, out, tar)
        with pytest.raises(LeaseHeldError, match="at work"):
            second.result()


def test_the_label_map_is_not_what_is_exported_where_objects_are_stored(shard, tmp_path):
    from storage.shards import iterate

    out, tar = tmp_path / "out", shard("a", "bus+rocket")
    export(out, tar)
    [sample] = iterate(tar.path)
    shown = (decode_label_map(sample.mask_bytes) == VOCABULARY.by_name("bus").class_id + 1).sum()
    bus, _ = samples_of(out)[0]["masks"]["detections"]
    assert (shown, bus["area"]) == (16, 25)
