"""Masks that people corrected: out, edited as the tools write them, in, honoured, undone."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from flows.dataset_exports import export_as
from labelled_datasets import HEIGHT, VOCABULARY, WIDTH, commit_samples, key_of
from storage.card import is_current, render_card, write_card
from storage.codecs import decode_label_map
from storage.corrections import (
    CORRECTIONS,
    count_corrected,
    current_corrections,
    read_corrections,
    undo_corrections,
)
from storage.errors import DataError, InputError
from storage.exports.brush_rle import pack_brush, unpack_brush
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.corrected_masks import import_masks
from storage.layout import CORRECTION_FOLDER
from storage.merging import merge_datasets
from storage.shards import iterate
from storage.store import Store
from storage.verification import repair, verify_bytes, verify_records
from tasks.closed_sets import export_dataset
from training.data import SampleFiles, find_shards

ME = {"who": "ann@here", "why": "lost tails"}
TOOLS = ["label-studio", "cvat"]


@pytest.fixture
def store(tmp_path):
    return commit_samples(tmp_path / "d", 3, 2)


def labels_of(store):
    """The label maps that trainings read, by key."""
    samples = SampleFiles(find_shards(store.root), VOCABULARY)
    return {key_of(index): samples[index].pair.labels for index in range(len(samples))}


def stored_labels(store):
    return {
        sample.key: decode_label_map(sample.mask_bytes)
        for shard in store.shards()
        for sample in iterate(shard.path, shard.sha256)
    }


def add_stroke(file, mask, label, index):
    """Draw a mask into a file of Label Studio, as its export has it; every task is submitted."""
    tasks = json.loads(file.read_text(encoding="utf-8"))
    for number, task in enumerate(tasks):
        result = task.pop("predictions")[0]["result"]
        for each in result:
            each["origin"] = "prediction"
        if task["data"]["key"] == key_of(index):
            for each in result:
                own = unpack_brush(each["value"]["rle"], HEIGHT, WIDTH, name="m") & ~mask
                each["value"]["rle"] = pack_brush(own)
            stroke = json.loads(json.dumps(result[0])) | {"id": "new", "origin": "manual"}
            stroke["value"] = {"format": "rle", "rle": pack_brush(mask), "brushlabels": [label]}
            result.append(stroke)
        old = {"result": [], "was_cancelled": False, "updated_at": "2020-01-01T00:00:00Z"}
        new = {"id": number, "result": result, "was_cancelled": False, "completed_by": 1}
        cancelled = {"result": [], "was_cancelled": True, "updated_at": "2030-01-01T00:00:00Z"}
        task["annotations"] = [new | {"updated_at": "2026-01-01T00:00:00Z"}, old, cancelled]
        task["id"] = number
    file.write_text(json.dumps(tasks), encoding="utf-8")


def rle_of(mask):
    """Run lengths of CVAT, written out plainly."""
    runs, value, length = [], False, 0
    for pixel in mask.ravel().tolist():
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    return ", ".join(map(str, [*runs, length]))


def mask_of(element):
    left, top, wide, high = (int(element.get(k)) for k in ("left", "top", "width", "height"))
    runs = [int(run) for run in element.get("rle").split(",")]
    own = np.zeros((HEIGHT, WIDTH), bool)
    flat = [n % 2 == 1 for n, run in enumerate(runs) for _ in range(run)]
    own[top : top + high, left : left + wide] = np.array(flat).reshape(high, wide)
    return own


def add_mask(file, mask, label, index):
    """Draw a mask into a file of CVAT; others lose what it covers."""
    tree = ET.parse(file)  # noqa: S314 - we wrote it
    for image in tree.getroot().iter("image"):
        if image.get("name") == f"{key_of(index)}.png":
            for each in image.findall("mask"):
                own = mask_of(each) & ~mask
                whole = {"left": "0", "top": "0", "width": str(WIDTH), "height": str(HEIGHT)}
                each.attrib.update(whole | {"rle": rle_of(own)})
            new = ET.SubElement(image, "mask", dict(each.attrib))
            new.set("label", label)
            new.set("rle", rle_of(mask))
    tree.write(file, encoding="utf-8", xml_declaration=True)


@pytest.fixture
def corrected(store, tmp_path):
    """Exports tasks, draws a block of another class into one sample; file and mask."""

    def make(tool, index=1, label=VOCABULARY[9].name):
        out = tmp_path / f"{tool}-{index}"
        made = export_as(store.root, tool, "miniature", out, images=False)
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[2:7, 3:9] = True
        (add_stroke if tool == "label-studio" else add_mask)(
            out / made.document, mask, label, index
        )
        return out / made.document, mask

    return make


@pytest.mark.parametrize("tool", TOOLS)
def test_trainings_read_the_corrected_mask_and_others_stay(store, corrected, tool):
    before, prints = labels_of(store), [each.fingerprint for each in find_shards(store.root)]
    file, mask = corrected(tool)
    made = import_masks(store, file, **ME)
    assert (made.corrected, made.unchanged) == ((key_of(1),), 4)
    after = labels_of(store)
    expected = before[key_of(1)].copy()
    expected[mask] = 10
    assert (after[key_of(1)] == expected).all()
    assert all((after[key] == before[key]).all() for key in before if key != key_of(1))
    samples = SampleFiles(find_shards(store.root), VOCABULARY)
    assert samples[1].class_ids == (1, 4, 9)
    now = [each.fingerprint for each in find_shards(store.root)]
    assert now[0] != prints[0]
    assert now[1] == prints[1]
    assert (stored_labels(store)[key_of(1)] == before[key_of(1)]).all()  # the tar is as it was
    (line,) = read_corrections(store.objects)
    assert (line.who, line.why, line.tool.lower().replace(" ", "-")) == (*ME.values(), tool)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_nobody_changed_is_no_correction(store, tmp_path, corrected, tool):
    file, _ = corrected(tool)
    import_masks(store, file, **ME)
    again = import_masks(store, file, **ME)  # the same file once more
    assert (again.corrected, again.unchanged) == ((), 5)
    assert len(read_corrections(store.objects)) == 1
    out = tmp_path / "again"
    made = export_as(store.root, tool, "miniature", out, images=False)
    if tool == "cvat":  # the corrected masks are exported, and are what they are
        assert import_masks(store, out / made.document, **ME).corrected == ()


def test_a_correction_of_a_correction_counts_and_undoing_is_a_line(store, corrected):
    import_masks(store, corrected("cvat")[0], **ME)
    first = labels_of(store)[key_of(1)]
    file, mask = corrected("label-studio", label=VOCABULARY[10].name)
    import_masks(store, file, who="bob@there", why="no, that")
    second = labels_of(store)[key_of(1)]
    assert (second[mask] == 11).all()
    assert (second[~mask] == first[~mask]).all()
    assert undo_corrections(store, [key_of(1)], who="eve", why="was right") == 1
    assert (labels_of(store)[key_of(1)] == stored_labels(store)[key_of(1)]).all()
    assert [each.act for each in read_corrections(store.objects)] == ["correct", "correct", "undo"]
    with pytest.raises(InputError, match="is not corrected, expected one of the 0 samples"):
        undo_corrections(store, [key_of(1)], who="eve", why="again")


def test_exports_counts_card_and_verification_follow(store, corrected, tmp_path):
    classes = resolve_closed_set(VOCABULARY, VOCABULARY[9].name)
    with pytest.raises(InputError, match="no sample"):
        export_dataset(store.root, classes, tmp_path / "folders")
    before = export_as(store.root, "coco", "miniature", tmp_path / "coco")
    write_card(store)
    import_masks(store, corrected("cvat")[0], **ME)
    assert count_corrected(store) == {"0badcafe": 1}
    assert not is_current(store)
    assert "The masks of 1 of the samples above were corrected" in render_card(store)
    write_card(store)
    assert verify_bytes(store, len(VOCABULARY)) == []
    folders = export_dataset(store.root, classes, tmp_path / "folders")
    assert folders.samples_by_class == {VOCABULARY[9].name: 1}
    after = export_as(store.root, "coco", "miniature", tmp_path / "coco")
    assert after.digest != before.digest
    assert after.num_regions == before.num_regions + 1


def test_a_merge_has_the_corrections_of_its_sources(store, corrected, tmp_path):
    import_masks(store, corrected("cvat")[0], **ME)
    other = Store.create(tmp_path / "e", {**store.spec, "min_yield": 0.4})
    merge_datasets([store.root, other.root], tmp_path / "both")
    merged = Store.open(tmp_path / "both")
    assert (labels_of(merged)[key_of(1)] == labels_of(store)[key_of(1)]).all()
    merge_datasets([store.root, other.root], tmp_path / "both")
    assert len(read_corrections(merged.objects)) == 1


def test_a_correction_for_other_pictures_is_told_and_undone_by_repair(store, corrected):
    import_masks(store, corrected("cvat")[0], **ME)
    (line,) = read_corrections(store.objects)
    CORRECTIONS.append(store.objects, [line.model_copy(update={"image_sha256": "0" * 64})])
    with pytest.raises(DataError, match=r"made for other pictures.*corrections undo"):
        find_shards(store.root)
    (found,) = [each for each in verify_records(store) if each.path == CORRECTION_FOLDER]
    assert "magicseg corrections undo" in found.way_out
    repair(store, None)
    assert current_corrections(store.objects) == {}
    assert len(labels_of(store)) == 5


@pytest.mark.parametrize("damage", ["cut", "changed", "renamed", "emptied"])
def test_a_damaged_file_is_named_and_put_aside_by_repair_alone(store, corrected, tmp_path, damage):
    import_masks(store, corrected("cvat")[0], **ME)
    (file,) = (tmp_path / "d" / CORRECTION_FOLDER).iterdir()
    lines = file.read_bytes()
    if damage == "renamed":
        file.rename(file.with_name("000001-0123456789abcdef.jsonl"))
    else:
        ways = {"cut": lines[:100], "emptied": b""}
        file.write_bytes(ways.get(damage, lines.replace(b"tails", b"Tails")))
    with pytest.raises(DataError, match=r"corrections/000001-.*not what was written"):
        find_shards(store.root)
    assert CORRECTION_FOLDER in verify_records(store)[0].path
    assert all(each.repaired for each in repair(store, None))
    assert verify_records(store) == []


# hostile files: a clear word, and nothing is changed


def cvat(*images, head=""):
    return f'<?xml version="1.0"?>{head}<annotations>{"".join(images)}</annotations>'.encode()


def image(*masks, key=None, size=(WIDTH, HEIGHT)):
    key = key_of(1) if key is None else key
    inner = "".join(masks)
    return f'<image id="1" name="{key}.png" width="{size[0]}" height="{size[1]}">{inner}</image>'


def mask(label=VOCABULARY[0].name, rle="0, 4", box=(0, 0, 2, 2)):
    left, top, wide, high = box
    return (
        f'<mask label="{label}" rle="{rle}" left="{left}" top="{top}" width="{wide}" '
        f'height="{high}"/>'
    )


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
FOREIGN = [
    (b"", "is empty, expected JSON of Label Studio or XML"),
    (b"\x00\xff", "is neither JSON nor XML"),
    (b"[", "is no export of Label Studio"),
    (b"[" * 100_000, "is no export of Label Studio"),
    (b"{}", "is no export of Label Studio"),
    (b"[]", "there is nothing to import"),
    (b'[{"id": 1, "image": "x", "label": []}]', "is no export of Label Studio"),
    (b'[{"data": {"key": "a"}, "annotations": []}]', "there is nothing to import"),
    (b"<annotations><image", "is no whole XML file"),
    (b"<html></html>", "no file of CVAT"),
    (b'<?xml version="1.0" encoding="nope"?><annotations/>', "is no whole XML file"),
    (b'<?xml version="1.0" encoding="shift_jis"?><annotations/>', "is no whole XML file"),
    (b"<a>" * 100_000, "is no whole XML file"),
    (cvat(), "there is nothing to import"),
    (cvat(image(mask()), head=BOMB), "declares a document type"),
    (cvat(image(mask(), key="0badcafe00000099")), "is none of"),
    (cvat(image(mask(), key="../../etc/passwd")), "is none of"),
    (cvat(image(mask()), image(mask())), "twice"),
    (cvat(image(mask(), size=(WIDTH + 1, HEIGHT))), "drawn at 21 x 12 pixels, but has 20 x 12"),
    (cvat(image(mask(), size=(10**8, 10**8))), "drawn at"),
    (cvat(image(mask(label="unicorn"))), "unicorn"),
    (cvat(image()), "no mask of a class left"),
    (cvat(image(mask(rle="4"))), "no mask of a class left"),
    (cvat(image(mask(label="ignored"))), "no mask of a class left"),
    (cvat(image(mask(), mask(label=VOCABULARY[1].name))), "4 pixels that are"),
    (cvat(image(mask(rle="1, 4"))), "runs do not make 2 x 2"),
    (cvat(image(mask(rle="5, -1"))), "runs do not make 2 x 2"),
    (cvat(image(mask(rle="9" * 30))), "no list of numbers"),
    (cvat(image(mask(rle="9" * 5000))), "no list of numbers"),
    (cvat(image(mask(rle="a"))), "no list of numbers"),
    (cvat(image(mask(box=(19, 0, 2, 2)))), "beyond its picture"),
    (cvat(image(mask(box=(-1, 0, 2, 2)))), "expected a whole number"),
    (cvat(image("<mask/>")), "has no"),
    (cvat(image('<polygon label="bus" points="0,0"/>')), "expected masks alone"),
]


@pytest.mark.parametrize(("data", "why"), FOREIGN, ids=[why for _, why in FOREIGN])
def test_foreign_files_are_refused_and_change_nothing(store, tmp_path, data, why):
    good = image(mask(), key=key_of(0))
    if b"</annotations>" in data and b"image" in data:  # a good sample before the bad one
        data = data.replace(b"<annotations>", b"<annotations>" + good.encode())
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(InputError, match=why):
        import_masks(store, file, **ME)
    assert read_corrections(store.objects) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"type": "polygonlabels"}, "draw it with the brush"),
        ({"original_width": 21}, "drawn at 21 x 12"),
        ({"value": {"format": "rle", "rle": [1, 2], "brushlabels": ["bus"]}}, "an end before"),
        ({"value": {"format": "rle", "rle": [1], "brushlabels": []}}, "with 0 labels"),
        ({"value": {"format": "rle", "rle": [1], "brushlabels": ["unicorn"]}}, "unicorn"),
        ({"value": {"format": "rle", "rle": "x", "brushlabels": ["bus"]}}, "no export of Label"),
    ],
)
def test_foreign_strokes_are_refused_and_change_nothing(store, corrected, change, why):
    file, _ = corrected("label-studio")
    tasks = json.loads(file.read_text(encoding="utf-8"))
    tasks[1]["annotations"][0]["result"][0] |= change
    file.write_text(json.dumps(tasks), encoding="utf-8")
    with pytest.raises(InputError, match=why):
        import_masks(store, file, **ME)
    assert read_corrections(store.objects) == []


def test_a_reason_and_a_file_are_needed(store, tmp_path):
    with pytest.raises(InputError, match="no reason is given"):
        import_masks(store, tmp_path / "x", who="ann", why=" ")
    with pytest.raises(InputError, match="cannot be read"):
        import_masks(store, tmp_path / "x", **ME)
    with pytest.raises(InputError, match="is no ordinary file"):
        import_masks(store, tmp_path, **ME)
