"""Exports of all samples, held against the manifests of their dataset."""

import hashlib
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import yaml

from flows.dataset_exports import export_as
from models.outlines import fill_outline
from storage.codecs import decode_rle, encode_image, encode_label_map, encode_rle
from storage.commits import Counts
from storage.errors import InputError
from storage.exclusions import exclude_samples
from storage.manifest import describe_samples, encode_manifest
from storage.payloads import Payload
from storage.records import Instance, PlannedSample, PlannedShard, Stage
from storage.shards import Sample, iterate, pack
from storage.store import Store
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("miniature")
HEIGHT, WIDTH = 48, 64
SLICE = "0badcafe"
SUPPORT = Path(__file__).parents[1] / "support"


def masks_of(number):
    """Two objects that do not overlap: one with a hole, one in two parts."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot(rows - 16, columns - 16 - number)
    ring = (far < 12) & (far > 5)
    parts = np.zeros((HEIGHT, WIDTH), bool)
    parts[32:44, 4 : 20 + number] = True
    parts[36:46, 44:60] = True
    return ring, parts


def gap(number):
    """Pixels between the two parts, which the cut that joins them goes over."""
    return 44 - (20 + number)


def drawn(number):
    ids = (number % 3, 3 + number % 3)
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    instances = []
    for class_id, mask in zip(ids, masks_of(number), strict=True):
        labels[mask] = class_id + 1
        instances.append(
            Instance(
                class_id=class_id,
                score=0.5 + number / 100,
                predicted_iou=0.75,
                xyxy=(0.0, 0.0, 8.0, 8.0),
                area=int(mask.sum()),
                rle=encode_rle(mask),
            )
        )
    image = encode_image(np.full((HEIGHT, WIDTH, 3), number, np.uint8), "png")
    return Sample(
        key=f"{SLICE}{number:08x}",
        index=number,
        text="two things",
        counterfactual_text="nothing",
        class_ids=ids,
        class_names=tuple(VOCABULARY[i].name for i in ids),
        mentions=(),
        seed=number,
        instances=tuple(instances),
        image_bytes=image,
        counterfactual_bytes=image,
        mask_bytes=encode_label_map(labels),
    )


def commit(root, *shards):
    """A dataset with the samples of these numbers in each shard."""
    store = Store.create(root, {"seed": 7})
    for index, numbers in enumerate(shards):
        samples = [drawn(number) for number in numbers]
        planned = PlannedShard(
            slice_id=SLICE,
            index=index,
            samples=tuple(
                PlannedSample(key=s.key, index=s.index, class_ids=s.class_ids, seed=s.seed)
                for s in samples
            ),
        )
        names = {each.class_id: each.name for each in VOCABULARY}
        rows = describe_samples(planned, names, samples=samples, dropped=[])
        payload = Payload(data=pack(samples), manifest=encode_manifest(rows))
        counts = Counts.of(len(samples), len(samples), [])
        store.commit(Stage.SHARDS, planned.name, f"{index:016x}", payload, counts)
    return store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    local = request.param == "local"
    return commit(str(tmp_path / "d") if local else f"memory://{uuid4().hex}", [0, 1], [2])


def rows_of(store):
    return {row.key: row for shard in store.shards() for row in store.manifest(shard.commit)}


def yolo_objects(out):
    """What a reader of the format finds: by key the class and the filled mask of each line."""
    found = {}
    for path in sorted((out / "labels/train").iterdir()):
        lines = [line.split() for line in path.read_text().splitlines()]
        assert all(len(line) >= 7 and len(line) % 2 for line in lines)
        numbers = [np.array(line[1:], float).reshape(-1, 2) for line in lines]
        assert all(((each >= 0) & (each <= 1)).all() for each in numbers)
        # readers multiply by the size and cut off the fraction
        points = [(each * (WIDTH, HEIGHT)).astype(int) for each in numbers]
        masks = [fill_outline(each, HEIGHT, WIDTH) for each in points]
        found[path.stem] = [(int(line[0]), mask) for line, mask in zip(lines, masks, strict=True)]
    return found


def test_yolo_has_the_samples_objects_and_areas_of_the_manifest(store, tmp_path):
    out = tmp_path / "yolo"
    exported = export_as(store.root, "yolo", "miniature", out)
    rows, found = rows_of(store), yolo_objects(out)
    assert found.keys() == rows.keys() == {p.stem for p in (out / "images/train").iterdir()}
    assert (exported.num_samples, exported.num_regions) == (3, 6)
    assert exported.samples_by_class == Counter(n for r in rows.values() for n in r.class_names)
    for key, row in rows.items():
        objects = found[key]
        assert tuple(class_id for class_id, _ in objects) == row.instance_class_ids
        areas = dict(zip(row.mask_class_ids, row.mask_areas, strict=True))
        (_, ring), (_, parts) = objects
        assert ring.sum() == areas[row.class_ids[0]]
        assert parts.sum() == areas[row.class_ids[1]] + gap(row.index)


def test_yolo_s_polygons_cover_the_stored_masks(store, tmp_path):
    out = tmp_path / "yolo"
    export_as(store.root, "yolo", "miniature", out)
    found = yolo_objects(out)
    for sample in (s for shard in store.shards() for s in iterate(shard.path)):
        (_, ring), (_, parts) = found[sample.key]
        stored = [decode_rle(each.rle, HEIGHT, WIDTH) for each in sample.instances]
        assert (ring == stored[0]).all()  # the cut to its hole is in the mask
        assert (parts >= stored[1]).all()
        assert (parts & ~stored[1]).sum() == gap(sample.index)


def test_the_file_that_yolo_is_given_names_every_class(store, tmp_path):
    out = tmp_path / "yolo"
    exported = export_as(store.root, "yolo", "miniature", out)
    document = yaml.safe_load((out / exported.document).read_text())
    assert document["names"] == {each.class_id: each.name for each in VOCABULARY}
    # Without `path` they are looked for beside the file.
    assert document.keys() == {"train", "val", "names"}
    assert (out / document["train"]).is_dir()
    assert "licence" in (out / "DATASET_CARD.md").read_text().lower()


def test_names_that_yaml_would_take_for_something_else_stay_names():
    from storage.exports.forms import ExportFacts
    from storage.exports.yolo import YoloForm

    lvis = load_vocabulary("lvis1205")
    form = YoloForm(lvis, lambda mask: np.zeros((3, 2), np.int64))
    text = "".join(form.document_lines(ExportFacts(vocabulary="lvis1205"), {}))
    assert list(yaml.safe_load(text)["names"].values()) == [each.name for each in lvis]


def test_fiftyone_has_the_samples_objects_and_areas_of_the_manifest(store, tmp_path):
    out = tmp_path / "fiftyone"
    export_as(store.root, "fiftyone", "miniature", out)
    rows = rows_of(store)
    samples = json.loads((out / "samples.json").read_text())["samples"]
    assert {each["key"] for each in samples} == rows.keys()
    for each in samples:
        row, objects = rows[each["key"]], each["masks"]["detections"]
        assert (each["metadata"]["width"], each["metadata"]["height"]) == (row.width, row.height)
        assert (each["text"], each["counterfactual_text"]) == (row.text, row.counterfactual_text)
        ids = tuple(VOCABULARY.by_name(d["label"]).class_id for d in objects)
        assert ids == row.instance_class_ids
        assert tuple(d["confidence"] for d in objects) == row.instance_scores
        areas = dict(zip(row.mask_class_ids, row.mask_areas, strict=True))
        assert [d["area"] for d in objects] == [areas[class_id] for class_id in ids]


@pytest.mark.parametrize("form", ["yolo", "fiftyone"])
def test_a_dataset_that_grew_keeps_what_was_exported_and_exclusions_hold(form, tmp_path):
    root, out = str(tmp_path / "d"), tmp_path / "out"
    store = commit(root, [0, 1])
    before = export_as(root, form, "miniature", out)
    kept = {p: p.read_bytes() for p in out.rglob("*0.*") if p.parent.parent.name != ".export"}
    commit(root, [0, 1], [2])
    after = export_as(root, form, "miniature", out)
    assert (before.num_samples, after.num_samples) == (2, 3)
    assert kept
    assert {p: p.read_bytes() for p in kept} == kept
    exclude_samples(store, [drawn(1).key], who="me", why="torn")
    assert export_as(root, form, "miniature", out).num_samples == 2
    assert not [path for path in out.rglob("*") if path.stem == drawn(1).key]


def test_one_kind_of_export_in_a_folder(tmp_path):
    root = str(tmp_path / "d")
    commit(root, [0])
    export_as(root, "yolo", "miniature", tmp_path / "out")
    with pytest.raises(InputError, match=r"holds another export: .*format"):
        export_as(root, "fiftyone", "miniature", tmp_path / "out")


@pytest.mark.skipif(
    "MAGICSEG_FIFTYONE_PYTHON" not in os.environ,
    reason="FiftyOne has an environment of its own: set MAGICSEG_FIFTYONE_PYTHON to its python",
)
def test_fiftyone_s_importer_reads_samples_masks_and_ids(tmp_path):
    root, out = str(tmp_path / "d"), tmp_path / "out"
    store = commit(root, [0, 1], [2])
    export_as(root, "fiftyone", "miniature", out)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    read = subprocess.run(
        [os.environ["MAGICSEG_FIFTYONE_PYTHON"], SUPPORT / "read_fiftyone.py", out],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout.splitlines()[-1])
    assert found["classes"] == {"masks": [each.name for each in VOCABULARY]}
    assert found["media"] == ["filepath", "counterfactual"]
    assert found["info"]["card"] == (out / "DATASET_CARD.md").read_text()
    by_key = {each["key"]: each for each in found["samples"]}
    assert by_key.keys() == rows_of(store).keys()
    ids = [each["id"] for each in found["samples"]]
    ids += [own["id"] for each in found["samples"] for own in each["objects"]]
    assert len(set(ids)) == len(ids) == 3 + 6
    for sample in (s for shard in store.shards() for s in iterate(shard.path)):
        own = by_key[sample.key]
        assert own["there"]
        assert own["text"] == sample.text
        for instance, shown in zip(sample.instances, own["objects"], strict=True):
            mask = decode_rle(instance.rle, HEIGHT, WIDTH)
            assert shown["mask"] == hashlib.sha256(mask.tobytes()).hexdigest()
            assert shown["label"] == VOCABULARY[instance.class_id].name
            assert shown["score"] == instance.score
