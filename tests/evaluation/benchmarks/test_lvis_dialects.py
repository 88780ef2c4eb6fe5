"""Annotations in LVIS's form as the API and other programs read and write them."""

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig
from storage.class_sets import load_benchmark
from storage.errors import DataError, InputError

WIDTH, HEIGHT, TREE, PLANE = 8, 6, 255, 3
SQUARE = [[1, 1, 4, 1, 4, 5, 1, 5]]
NAMES = load_benchmark("lvis").names
MASK = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
MASK[1:5, 1:4] = 1


def packed(mask: np.ndarray = MASK) -> dict[str, Any]:
    found = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def plain(mask: np.ndarray = MASK) -> dict[str, Any]:
    flat = mask.flatten(order="F")
    ends = [0, *np.flatnonzero(np.diff(flat)) + 1, flat.size]
    runs = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def image(number: int = 139, **other: Any) -> dict[str, Any]:
    url = f"http://images.cocodataset.org/val2017/{number:012}.jpg"
    row = {"id": number, "width": WIDTH, "height": HEIGHT, "coco_url": url}
    return {**row, "neg_category_ids": [7], **other}


def thing(shape: Any = SQUARE, **other: Any) -> dict[str, Any]:
    row = {"id": 1, "image_id": 139, "category_id": TREE, "segmentation": shape, "area": 12.0}
    return {**row, **other}


def without(row: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in fields}


def write(root: Path, images: Any, annotations: Any, **other: Any) -> Path:
    """The annotations, and the file of image 139."""
    rows = [{"id": k, "name": name, "synset": "x.n.01"} for k, name in enumerate(NAMES, start=1)]
    document = {"images": images, "annotations": annotations, "categories": rows, **other}
    (root / "val2017").mkdir(parents=True, exist_ok=True)
    (root / "lvis_v1_val.json").write_text(json.dumps(document))
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "val2017" / f"{139:012}.jpg")
    return root


def opened(root: Path, **options: str) -> Benchmark:
    return open_benchmark(BenchmarkConfig.model_validate({"name": "lvis", "root": root, **options}))


def labels(root: Path, **options: Any) -> list[list[int]]:
    [sample] = opened(root, **options)
    return sample.labels.tolist()


EXPECTED = (MASK.astype(int) * TREE).tolist()


@pytest.mark.parametrize("iscrowd", [0, 1])
@pytest.mark.parametrize("shape", [SQUARE, packed(), plain()])
def test_a_mask_may_be_polygons_or_run_lengths_of_either_kind(tmp_path, shape, iscrowd):
    root = write(tmp_path, [image()], [thing(shape, iscrowd=iscrowd)])
    assert labels(root) == EXPECTED
    assert opened(root).truth.startswith(
        "polygons of LVIS v1," if isinstance(shape, list) else "polygons and run lengths of LVIS"
    )


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_those_of_coco(tmp_path, seed):
    mask = (np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.5).astype(np.uint8)
    for shape in (packed(mask), plain(mask)):
        found = labels(write(tmp_path, [image()], [thing(shape)]))
        assert found == (mask.astype(int) * TREE).tolist()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({**packed(), "size": [WIDTH, HEIGHT]}, r"\(RLE\) of 6 x 8 pixels, .*8 x 6 .*exchanged"),
        ({**plain(), "size": [7, 8]}, r"\(RLE\) of 8 x 7 pixels, expected 8 x 6 as its image"),
        ({**plain(), "counts": [1, 2]}, "runs of 3 pixels, expected 8 x 6"),
        ({**plain(), "counts": [50, -2]}, r"\(RLE\) whose counts are neither .* from 0 to 48"),
        ({**plain(), "counts": [40.0, 8.0]}, r"\(RLE\) whose counts are neither"),
        ({**plain(), "counts": [True] * 48}, r"\(RLE\) whose counts are neither"),
        ({**packed(), "counts": "zz~~"}, "run lengths with .* no digit of COCO"),
        ({**packed(), "counts": ""}, "run lengths with no run"),
        ({"counts": "1"}, r"\(RLE\) of the size None, expected \[height, width\]"),
        ({"size": [6, 8]}, r"\(RLE\) whose counts are neither"),
        ([packed()], r"run lengths \(RLE\) in its list of polygons"),
        (None, r"no polygon and no run lengths"),
        ("abc", r"no polygon and no run lengths"),
        ([[[0, 0], [1, 1], [2, 2]]], "malformed polygon"),
        ([[0, 0, 1, 1, 10**400, 2]], "malformed polygon"),
        ([["a", 0, 1, 1, 2, 2]], "malformed polygon"),
    ],
)
def test_a_mask_that_fits_no_image_is_named(tmp_path, shape, words):
    root = write(tmp_path, [image()], [thing(shape)])
    with pytest.raises(DataError, match=rf"the part with id 1 is damaged \(annotation 1 .*{words}"):
        opened(root)


def test_what_coco_leaves_out_is_computed_or_left_out(tmp_path):
    small = thing([[1, 1, 3, 1, 3, 3, 1, 3]], id=2, category_id=PLANE)
    rows = [without(small, "area"), without(thing(), "area")]
    root = write(tmp_path, [without(image(), "neg_category_ids")], rows)
    found = np.array(labels(root))
    assert (found[1:3, 1:3] == PLANE).all()
    assert (found == TREE).sum() == MASK.sum() - 4
    with pytest.raises(DataError, match=r"image 139 lacks neg_category_ids, which candidates=fed"):
        opened(root, lvis={"candidates": "federated"})


@pytest.mark.parametrize(
    "place",
    [
        {"file_name": "val2017/000000000139.jpg"},
        {"file_name": "000000000139.jpg"},
        {"file_name": "images\\val2017\\000000000139.jpg"},
        {"file_name": "./000000000139.jpg", "coco_url": ""},
        {"file_name": "COCO_val2014_000000000139.jpg", "coco_url": None},
        {"file_name": "x.jpg", "coco_url": "http://h/val2017/000000000139.jpg"},
    ],
)
def test_an_image_is_found_by_its_file_name_too(tmp_path, place):
    row = {**without(image(), "coco_url"), **place}
    benchmark = opened(write(tmp_path, [row], [thing()]))
    benchmark.check()
    [sample] = benchmark
    assert (sample.key, sample.labels.tolist()) == ("val2017/000000000139", EXPECTED)


def test_an_image_may_have_another_ending(tmp_path):
    root = write(tmp_path, [image()], [thing()])
    path = root / "val2017" / "000000000139.jpg"
    path.rename(path.with_suffix(".JPG"))
    assert labels(root) == EXPECTED


@pytest.mark.parametrize("fields", [("synset",), ("synset", "frequency")])
def test_categories_need_no_more_than_their_name(tmp_path, fields):
    rows = [{"id": k, "name": name} for k, name in enumerate(NAMES, start=1)]
    licences = [{"id": 1, "name": "Attribution", "url": "x"}, {"id": "cc", "name": "Other"}]
    assert labels(write(tmp_path, [image()], [thing()], categories=rows, licenses=licences)) == (
        EXPECTED
    )


def test_numbers_may_be_texts_or_floats_without_a_rest(tmp_path):
    row = thing(image_id="139", category_id=float(TREE))
    assert labels(write(tmp_path, [image(width=8.0)], [row])) == EXPECTED


@pytest.mark.parametrize(
    ("images", "annotations", "words"),
    [
        ([without(image(), "coco_url")], [], r"row 1 of images, with id 139, lacks coco_url or fi"),
        ([image(), 3], [], "row 2 of images is of another kind"),
        ([without(image(), "width")], [], r"id 139 is damaged \(it lacks width"),
        ([image(height=10**9)], [], "image 139 is to have 8 x 1000000000 pixels"),
        ([image(height=0)], [], "image 139 is to have 8 x 0 pixels"),
        ([image(height=5.5)], [], "height is 5.5, expected a whole number"),
        ([image(coco_url=7)], [], "coco_url is 7, expected a text"),
        ([image(coco_url="http://h/../..")], [], r"expected the name of a file"),
        ([image(neg_category_ids=["a"])], [], r"neg_category_ids is \['a'\], expected ids"),
        ([image()], [without(thing(), "category_id")], r"id 1 is damaged \(it lacks category_id"),
        ([image()], [without(thing(), "id")], r"id None is damaged \(it lacks id"),
        (
            [image()],
            [without(thing(), "segmentation")],
            r"no list of annotations .*row 1 of annotations, with id 1, lacks segmentation",
        ),
        ([image()], [thing(area="big")], "area is 'big', expected a number of pixels"),
        ([image()], [thing(area=-1)], "area is -1, expected a number of pixels"),
        ([image()], [thing(area=float("nan"))], "area is nan, expected a number of pixels"),
        ([image()], [thing(area=10**400)], "area is 1000"),
        ({}, [], "images is a dict"),
    ],
)
def test_what_is_missing_or_of_another_kind_is_named_with_its_row(
    tmp_path, images, annotations, words
):
    root = write(tmp_path, images, annotations)
    with pytest.raises(DataError, match=rf"lvis_v1_val\.json.*{words}"):
        opened(root)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
    ],
)
def test_annotations_may_be_in_any_encoding_that_can_be_told(tmp_path, encode):
    root = write(tmp_path, [image()], [thing()])
    path = root / "lvis_v1_val.json"
    path.write_bytes(encode(path.read_text()))
    assert labels(root) == EXPECTED


def test_what_lies_in_place_of_the_annotations_is_named(tmp_path):
    root = write(tmp_path / "a", [image()], [thing()])
    path = root / "lvis_v1_val.json"
    with pytest.raises(InputError, match=rf"; {root} is laid out as the benchmark"):
        opened(tmp_path)
    with pytest.raises(InputError, match="there are files of the splits val: choose one of them"):
        opened(root, split="train")
    path.rename(root / "lvis_v1_train.json")
    with pytest.raises(InputError, match="there are files of the splits train: choose one"):
        opened(root)
    (root / "lvis_v1_train.json").rename(root / "lvis_v1_val.json.zip")
    with pytest.raises(InputError, match=r"lvis_v1_val\.json\.zip is there: unpack it"):
        opened(root)
    path.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match=r"is not JSON \(it is an archive\).*: unpack it"):
        opened(root)
    path.unlink()
    path.mkdir()
    (path / path.name).write_text("{}")
    with pytest.raises(InputError, match=r"lvis_v1_val\.json is a folder|is laid out"):
        opened(root)


def test_packed_or_nested_images_are_named(tmp_path):
    root = write(tmp_path, [image()], [thing()])
    nested = root / "val2017" / "val2017"
    nested.mkdir()
    (root / "val2017" / f"{139:012}.jpg").rename(nested / f"{139:012}.jpg")
    with pytest.raises(InputError, match=r"val2017/val2017 holds 1 of them: move them to"):
        opened(root).check()
    nested.rename(root / "other")
    (root / "val2017").rmdir()
    (root / "val2017.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"folder val2017 .*val2017\.zip is there: unpack it"):
        opened(root)
