"""All formats say the same of a dataset: samples, numbers, areas."""

import json
import xml.etree.ElementTree as ET
from collections import Counter

from flows.dataset_exports import export_as
from labelled_datasets import HEIGHT, WIDTH, commit_samples
from storage.exports.brush_rle import unpack_brush
from storage.exports.forms import stable_id


def test_counts_numbers_and_areas_are_those_of_the_manifests(tmp_path):
    store = commit_samples(tmp_path / "d", 3, 2)
    made = {
        form: export_as(store.root, form, "miniature", tmp_path / form)
        for form in ("coco", "label-studio", "cvat")
    }
    rows = [row for shard in store.shards() for row in store.manifest(shard.commit)]
    areas = {
        (row.key, name): area
        for row in rows
        for name, area in zip(row.class_names, row.mask_areas, strict=True)
    }
    assert {each.num_samples for each in made.values()} == {len(rows)}
    assert len({each.digest for each in made.values()}) == 1
    assert len({str(each.samples_by_class) for each in made.values()}) == 1
    pictures = {
        form: sorted(p.name for p in (tmp_path / form / "images").iterdir()) for form in made
    }
    assert pictures["coco"] == pictures["label-studio"] == pictures["cvat"]

    coco = json.loads((tmp_path / "coco/instances.json").read_text(encoding="utf-8"))
    ids = {each["key"]: each["id"] for each in coco["images"]}
    assert ids == {row.key: stable_id(row.key) for row in rows}
    objects = Counter(each["image_id"] for each in coco["annotations"])
    assert objects == {ids[row.key]: len(row.instance_class_ids) for row in rows}

    strokes: Counter[tuple[str, str]] = Counter()
    for task in json.loads((tmp_path / "label-studio/tasks.json").read_text(encoding="utf-8")):
        for each in task["predictions"][0]["result"]:
            mask = unpack_brush(each["value"]["rle"], HEIGHT, WIDTH, name="m")
            strokes[task["data"]["key"], each["value"]["brushlabels"][0]] += int(mask.sum())
    masks: Counter[tuple[str, str]] = Counter()
    for image in ET.parse(tmp_path / "cvat/annotations.xml").getroot().iter("image"):  # noqa: S314
        key = image.get("name").removesuffix(".png")
        assert int(image.get("id")) == ids[key]
        for each in image.iter("mask"):
            runs = [int(run) for run in each.get("rle").split(",")]
            masks[key, each.get("label")] += sum(runs[1::2])
    assert strokes == masks
    ignored = {place: strokes.pop(place) for place in list(strokes) if place[1] == "ignored"}
    assert set(ignored.values()) == {3}
    assert strokes == areas
