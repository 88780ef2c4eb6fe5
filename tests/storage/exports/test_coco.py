import dataclasses
import json
import os
import signal

import numpy as np
import pytest
from pycocotools.coco import COCO

from bucket import serve_bucket
from storage.codecs import decode_rle, encode_rle
from storage.commits import Counts
from storage.errors import DataError, InputError, LeaseHeldError
from storage.exports.coco import export_coco, read_coco_export
from storage.exports.coco_entries import SliceNumbers, image_id
from storage.exports.selection import ExportFacts, ExportShard, SeenSamples, committed_shards
from storage.locks import hold_folder
from storage.manifest import describe_samples, encode_manifest
from storage.payloads import Payload
from storage.records import Instance, Stage
from storage.shards import iterate, pack
from storage.store import Store
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("miniature")
FACTS = ExportFacts(vocabulary="miniature", models={"painter": "someone/painter@1"})


def instance_of(name, mask):
    return Instance(
        class_id=VOCABULARY.by_name(name).class_id,
        score=0.5,
        predicted_iou=0.75,
        xyxy=(0.0, 0.0, 16.0, 16.0),
        area=int(mask.sum()),
        rle=encode_rle(mask),
    )


def with_objects(sample, index, *names):
    """A sample with an object of each name: a ring with a hole, and a second part far away."""
    objects = []
    for number, name in enumerate(names):
        mask = np.zeros((16, 16), bool)
        mask[number : number + 6, 2:9] = True
        mask[number + 2, 4:6] = False
        mask[14, index % 16] = True
        objects.append(instance_of(name, mask))
    ids = tuple(dict.fromkeys(each.class_id for each in objects))
    return dataclasses.replace(
        sample(index),
        key=f"0badcafe{index:08d}",
        class_ids=ids,
        class_names=tuple(VOCABULARY[i].name for i in ids),
        mentions=(),
        instances=tuple(objects),
    )


@pytest.fixture
def shard(tmp_path, sample):
    """Writes a tar of samples that show the named classes."""

    def write(name, *shown, first=0, identity="", excluded=()):
        samples = [
            with_objects(sample, first + offset, *names.split("+"))
            for offset, names in enumerate(shown)
        ]
        path = tmp_path / f"{name}.tar"
        path.write_bytes(pack(samples))
        identity = identity or f"{name} of {len(shown)}"
        return ExportShard(str(path), identity, frozenset(excluded))

    return write


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_pycocotools_reads_the_masks_as_they_are_stored(shard, tmp_path, capsys):
    shards = [shard("a", "cat+bus", "rocket"), shard("b", "bus+bus", first=10)]
    exported = export_coco(shards, FACTS, tmp_path / "out")
    coco = COCO(str(tmp_path / "out/annotations/instances.json"))
    assert (exported.num_images, exported.num_annotations) == (3, 5)
    assert exported.annotations_by_class == {"bus": 3, "cat": 1, "rocket": 1}
    stored = {each.key: each for tar in shards for each in iterate(tar.path)}
    assert len(coco.getImgIds()) == len(stored) == 3
    for image in coco.loadImgs(coco.getImgIds()):
        sample = stored[image["key"]]
        file = tmp_path / "out/images" / image["file_name"]
        assert file.read_bytes() == sample.image_bytes
        twin = tmp_path / "out/images" / image["counterfactual_file_name"]
        assert twin.read_bytes() == sample.counterfactual_bytes
        assert (image["text"], image["width"], image["height"]) == (sample.text, 16, 16)
        found = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert len(found) == len(sample.instances)
        for annotation, instance in zip(found, sample.instances, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
            assert (mask == decode_rle(instance.rle, 16, 16)).all()
            assert annotation["area"] == mask.sum() == instance.area
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
            [category] = coco.loadCats([annotation["category_id"]])
            assert category["id"] == instance.class_id + 1
            assert category["name"] == VOCABULARY[instance.class_id].name
    capsys.readouterr()


def test_the_file_says_what_the_dataset_is(shard, tmp_path):
    export_coco([shard("a", "bus")], FACTS, tmp_path / "out")
    found = json.loads((tmp_path / "out/annotations/instances.json").read_text())
    assert found["info"]["models"] == {"painter": "someone/painter@1"}
    assert found["info"]["vocabulary"] == "miniature"
    assert "terms of those models" in found["licenses"][0]["name"]
    assert len(found["categories"]) == len(VOCABULARY)


def test_ids_stay_when_a_dataset_grows_and_are_exact_as_floats(shard, tmp_path):
    first, out = shard("a", "bus", "cat+bus"), tmp_path / "out"
    export_coco([first], FACTS, out)
    file = out / "annotations/instances.json"
    before = {each["id"] for each in json.loads(file.read_text())["annotations"]}
    grown = [shard("a", "bus", "cat+bus", "rocket"), shard("b", "cat", first=7)]
    export_coco(grown, FACTS, out)
    entries = json.loads(file.read_text())["annotations"]
    after = [each["id"] for each in entries]
    assert before < set(after)
    assert len(set(after)) == len(after) == 5
    assert max(after) < 2**53
    assert all(each["id"] // 1000 == each["image_id"] for each in entries)
    export_coco(grown, FACTS, tmp_path / "elsewhere")
    assert contents(out) == contents(tmp_path / "elsewhere")


def test_the_largest_ids_are_below_two_to_the_53(tmp_path):
    numbers = SliceNumbers(tmp_path / "numbers.json")
    series = f"{89_999:08x}"
    largest = image_id(f"{series}99999999", numbers.of(series)) * 1000 + 999
    assert numbers.of(series) == 90_000
    assert largest < 2**53


def test_two_slices_with_one_number_get_two_that_stay(tmp_path):
    first, second = f"{5:08x}", f"{90_005:08x}"
    numbers = SliceNumbers(tmp_path / "numbers.json")
    assert [numbers.of(second), numbers.of(first)] == [6, 7]
    assert [SliceNumbers(tmp_path / "numbers.json").of(each) for each in (first, second)] == [7, 6]


def test_some_classes_alone_keep_their_ids(shard, tmp_path):
    tar = shard("a", "cat+bus", "rocket")
    export_coco([tar], FACTS, tmp_path / "all")
    bus = VOCABULARY.by_name("bus").class_id
    exported = export_coco([tar], FACTS, tmp_path / "some", classes=[bus], images=False)
    assert (exported.num_images, exported.num_annotations, exported.num_skipped) == (1, 1, 1)
    whole, part = (
        json.loads((tmp_path / each / "annotations/instances.json").read_text())
        for each in ("all", "some")
    )
    [only] = part["annotations"]
    assert only in whole["annotations"]
    assert part["images"][0] in whole["images"]
    assert not (tmp_path / "some/images").exists()
    with pytest.raises(InputError, match="none of the 2 samples"):
        export_coco([tar], FACTS, tmp_path / "none", classes=[0])


def test_what_is_left_out_is_not_exported_and_comes_back(shard, tmp_path):
    out, bad = tmp_path / "out", "0badcafe00000001"
    assert export_coco([shard("a", "bus", "cat")], FACTS, out).num_images == 2
    exported = export_coco([shard("a", "bus", "cat", excluded=[bad])], FACTS, out)
    assert exported.num_images == 1
    assert bad not in (out / "annotations/instances.json").read_text()
    assert not list((out / "images").rglob(f"{bad}*"))
    assert export_coco([shard("a", "bus", "cat")], FACTS, out).num_images == 2


def test_an_export_that_was_cut_is_not_taken_for_whole_and_goes_on(shard, tmp_path):
    out, good, bad = tmp_path / "out", shard("a", "bus"), shard("b", "cat", first=10)
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:700])
    with pytest.raises(DataError):
        export_coco([good, bad], FACTS, out)
    with pytest.raises(InputError, match="no finished export"):
        read_coco_export(out)
    (tmp_path / "b.tar").write_bytes(whole)
    (tmp_path / "a.tar").unlink()  # what is done is not read again
    assert export_coco([good, bad], FACTS, out) == read_coco_export(out)
    assert read_coco_export(out).num_images == 2


def test_nothing_is_written_where_nothing_has_changed(shard, tmp_path):
    out, tar = tmp_path / "out", shard("a", "bus")
    export_coco([tar], FACTS, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    export_coco([tar], FACTS, out)
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".lock"}


def test_images_that_were_lost_and_shards_that_are_gone_are_put_right(shard, tmp_path):
    out, tars = tmp_path / "out", [shard("a", "bus"), shard("b", "cat", first=10)]
    export_coco(tars, FACTS, out)
    whole = contents(out)
    next((out / "images/a").iterdir()).unlink()
    (out / "images/b/stray.png").write_bytes(b"x")
    export_coco(tars, FACTS, out)
    assert contents(out) == whole
    export_coco(tars[:1], FACTS, out)
    export_coco(tars[:1], FACTS, tmp_path / "one")
    assert contents(out) == contents(tmp_path / "one")


@pytest.mark.parametrize("when", range(1, 14, 2))
def test_an_export_that_is_killed_anywhere_goes_on_to_the_same_end(
    shard, tmp_path, when, monkeypatch
):
    tars = [shard("a", "bus", "cat"), shard("b", "cat", first=10)]
    export_coco(tars, FACTS, tmp_path / "whole")
    out = tmp_path / "out"
    export_coco([shard("a", "bus")], FACTS, out)
    tars = [shard("a", "bus", "cat"), tars[1]]
    child = os.fork()
    if not child:
        import storage.files as files

        counted = iter(range(1, 1000))

        def crash(place):
            if next(counted) == when:
                os.kill(os.getpid(), signal.SIGKILL)

        files.crash_point = crash
        export_coco(tars, FACTS, out)
        os._exit(0)
    os.waitpid(child, 0)
    left = out / "annotations/instances.json"
    if left.exists():
        json.loads(left.read_text())
    export_coco(tars, FACTS, out)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_does_not_belong_together_is_refused(shard, tmp_path):
    tar, out = shard("a", "bus"), tmp_path / "out"
    export_coco([tar], FACTS, out)
    with pytest.raises(InputError, match="holds another export"):
        export_coco([tar], FACTS, out, images=False)
    with pytest.raises(InputError, match="holds other files"):
        export_coco([tar], FACTS, tmp_path)
    with pytest.raises(DataError, match="is in another tar too"):
        export_coco([tar, shard("c", "bus")], FACTS, tmp_path / "twice")
    with pytest.raises(InputError, match="same file name"):
        export_coco([tar, tar], FACTS, tmp_path / "same")
    with pytest.raises(InputError, match="calls class"):
        export_coco([tar], ExportFacts(vocabulary="lvis1205"), tmp_path / "lvis")
    with hold_folder(out), pytest.raises(LeaseHeldError):
        export_coco([tar], FACTS, out)
    (out / ".export/done.json").write_bytes(b"[")
    with pytest.raises(DataError, match=r"done\.json is not a CocoExport"):
        read_coco_export(out)


def test_areas_that_lie_are_damage_and_foreign_keys_are_refused(sample, tmp_path):
    honest = with_objects(sample, 0, "bus")
    lying = honest.instances[0].model_copy(update={"area": 5})
    for name, changes, error in (
        ("lies", {"instances": (lying,)}, r"mask of 41 pixels, its area says 5"),
        ("key", {"key": "photo-7"}, "'photo-7' is none of the engine's"),
        ("many", {"instances": honest.instances * 1000}, "1000 objects, expected fewer"),
    ):
        path = tmp_path / f"{name}.tar"
        path.write_bytes(pack([dataclasses.replace(honest, **changes)]))
        with pytest.raises((DataError, InputError), match=error):
            export_coco([ExportShard(str(path), "1")], FACTS, tmp_path / name)
        assert not (tmp_path / name / "annotations/instances.json").exists()


def test_a_million_samples_are_remembered_in_little_memory():
    seen = SeenSamples()
    for index in range(0, 1_000_000, 7):
        seen.add(f"0badcafe{index:08d}", "x")
    assert len(seen._bits["0badcafe"]) <= 125_000
    with pytest.raises(DataError, match="another tar"):
        seen.add("0badcafe00000007", "y")


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_dataset_on_a_disk_and_in_an_object_store_gives_the_same(
    place, sample, plan_of, tmp_path, monkeypatch
):
    with serve_bucket() as server:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "eu-central-1",
        }.items():
            monkeypatch.setenv(name, value)
        root = "s3://bucket/d" if place == "s3" else tmp_path / "d"
        store = Store.create(root, {"plan": {"vocabulary": "miniature"}, "min_yield": 0})
        samples = [with_objects(sample, index, "cat", "bus") for index in range(2)]
        plan = plan_of(samples)
        names = {each.class_id: each.name for each in VOCABULARY}
        rows = describe_samples(plan, names, samples=samples, dropped=[])
        payload = Payload(pack(samples), encode_manifest(rows))
        store.commit(Stage.SHARDS, plan.name, "0" * 16, payload, Counts.of(2, 2, []))
        exported = export_coco(committed_shards(store), ExportFacts.of(store), tmp_path / "out")
    assert (exported.num_images, exported.num_annotations) == (2, 4)
    assert len(list((tmp_path / "out/images").rglob("*.png"))) == 2


def test_a_dataset_without_shards_has_nothing_to_export(tmp_path):
    store = Store.create(tmp_path / "d", {"plan": {"vocabulary": "miniature"}})
    with pytest.raises(InputError, match="0 committed shards of which none can be exported"):
        committed_shards(store)
