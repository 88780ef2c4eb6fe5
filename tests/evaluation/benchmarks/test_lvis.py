"""LVIS v1: labels of 16 bits from polygons, and what its federated annotations leave open."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig
from evaluation.scoring.results import Scores, published_results
from storage.class_sets import load_benchmark
from storage.errors import DataError, InputError
from storage.records import IGNORE_LABEL

TREE, PLANE = 255, 3  # category ids of the Christmas tree and the airplane
WIDTH, HEIGHT = 8, 6


def box(x: int, y: int, width: int, height: int) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def picture(number: int, folder: str = "val2017", **other: Any) -> dict[str, Any]:
    url = f"http://images.cocodataset.org/{folder}/{number:012}.jpg"
    row = {"id": number, "width": WIDTH, "height": HEIGHT, "coco_url": url}
    return {**row, "neg_category_ids": [], "not_exhaustive_category_ids": [], **other}


def thing(number: int, image: int, category: int, rings: Any, **other: Any) -> dict[str, Any]:
    row = {"id": number, "image_id": image, "category_id": category, "segmentation": rings}
    return {**row, "area": 12.0, "bbox": [0, 0, 1, 1], **other}


def categories() -> list[dict[str, Any]]:
    """All of LVIS v1, the last one first."""
    names = load_benchmark("lvis").names
    rows = [
        {"id": number, "name": name.replace(" ", "_"), "synset": "some.n.01", "frequency": "f"}
        for number, name in enumerate(names, start=1)
    ]
    return rows[::-1]


def write(root: Path, images: Any, annotations: Any, **other: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    document = {"images": images, "annotations": annotations, "categories": categories(), **other}
    (root / "lvis_v1_val.json").write_text(json.dumps(document))
    for row in images:
        path = root.joinpath(*row["coco_url"].split("/")[-2:])
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), "grey").save(path)
    return root


def opened(root: Path, *, limit: int | None = None, **options: str) -> Benchmark:
    config = {"name": "lvis", "root": root, "limit": limit, "lvis": options}
    return open_benchmark(BenchmarkConfig.model_validate(config))


def filled(*areas: tuple[int, tuple[slice, slice]], rest: int = 0) -> np.ndarray:
    labels = np.full((HEIGHT, WIDTH), rest)
    for label, where in areas:
        labels[where] = label
    return labels


LEFT, CORNER = (slice(0, 6), slice(0, 4)), (slice(0, 3), slice(0, 2))
TREE_AND_PLANE = [
    thing(1, 139, TREE, box(0, 0, 2, 3), area=6.0),
    thing(2, 139, PLANE, box(0, 0, 4, 6), area=24.0),
]


def test_the_category_255_is_a_class_and_scores_to_the_value_computed_by_hand(
    tmp_path: Path, score_labels: Callable[..., Scores], ious: Callable[[Scores], dict[str, float]]
) -> None:
    # The second image shows nothing that is annotated.
    root = write(tmp_path, [picture(139), picture(285)], TREE_AND_PLANE)
    benchmark = opened(root)
    first, second = benchmark
    np.testing.assert_array_equal(first.labels, filled((PLANE, LEFT), (TREE, CORNER)))
    assert first.labels.dtype == np.uint16
    assert not second.labels.any()
    assert (first.key, first.candidates) == ("val2017/000000000139", None)
    wrong = filled((PLANE, LEFT), (TREE, CORNER), (1203, (0, slice(0, 8))))
    scores = score_labels(benchmark, wrong, second.labels)
    assert len(scores.classes) == 1204
    # The first row is taken from the tree (2 of 6), the plane (2 of 18), background (4 of 72).
    assert ious(scores) == {
        "background": 68 / 72,
        "airplane": 16 / 18,
        "Christmas tree": 4 / 6,
        "zucchini": 0,
    }
    assert scores.miou == pytest.approx((68 / 72 + 16 / 18 + 4 / 6 + 0) / 4)


def test_unlabelled_pixels_can_be_ignored_and_background_with_them(
    tmp_path: Path, score_labels: Callable[..., Scores], ious: Callable[[Scores], dict[str, float]]
) -> None:
    root = write(tmp_path, [picture(139)], TREE_AND_PLANE)
    benchmark = opened(root, unlabelled="ignore")
    [sample] = benchmark
    expected = filled((PLANE - 1, LEFT), (TREE - 1, CORNER), rest=IGNORE_LABEL)
    np.testing.assert_array_equal(sample.labels, expected)
    assert (benchmark.classes.name, benchmark.classes.background) == ("lvis1203", False)
    scores = score_labels(benchmark, np.full((HEIGHT, WIDTH), PLANE - 1))
    assert ious(scores) == {"airplane": 18 / 24, "Christmas tree": 0}
    assert scores.miou == pytest.approx(18 / 24 / 2)


def test_of_two_objects_the_smaller_or_the_later_one_is_on_top(tmp_path: Path) -> None:
    root = write(tmp_path, [picture(139)], TREE_AND_PLANE)
    [small] = opened(root, overlap="small_on_top")
    [later] = opened(root, overlap="file_order")
    np.testing.assert_array_equal(small.labels, filled((PLANE, LEFT), (TREE, CORNER)))
    np.testing.assert_array_equal(later.labels, filled((PLANE, LEFT)))
    write(tmp_path, [picture(139)], TREE_AND_PLANE[::-1])
    for overlap in ("small_on_top", "file_order"):
        [sample] = opened(root, overlap=overlap)
        np.testing.assert_array_equal(sample.labels, small.labels)


def test_all_polygons_of_an_object_are_drawn(tmp_path: Path) -> None:
    rings = box(0, 0, 2, 3) + box(5, 4, 3, 2)
    [sample] = opened(write(tmp_path, [picture(139)], [thing(1, 139, TREE, rings)]))
    expected = filled((TREE, CORNER), (TREE, (slice(4, 6), slice(5, 8))))
    np.testing.assert_array_equal(sample.labels, expected)


def test_images_of_val2017_or_of_the_whole_list(tmp_path: Path) -> None:
    # Images and annotations in no order, as references go by id.
    images = [picture(900, "train2017"), picture(285), picture(139)]
    annotations = [thing(5, 139, PLANE, box(0, 0, 8, 6)), thing(4, 900, TREE, box(0, 0, 8, 6))]
    root = write(tmp_path, images, annotations)
    part, whole = opened(root), opened(root, images="all")
    assert [sample.key for sample in part] == ["val2017/000000000285", "val2017/000000000139"]
    assert [int(sample.labels.max()) for sample in part] == [0, PLANE]
    assert [int(sample.labels.max()) for sample in whole] == [TREE, 0, PLANE]
    assert len(opened(root, images="all", limit=2)) == 2
    write(tmp_path, images[:1], annotations[1:])
    with pytest.raises(InputError, match=r"lists 1 images, none of them in val2017: set bench"):
        opened(root)


def test_federated_candidates_are_what_the_image_is_known_to_have_and_to_lack(
    tmp_path: Path, score_labels: Callable[..., Scores], ious: Callable[[Scores], dict[str, float]]
) -> None:
    images = [picture(139, neg_category_ids=[1203, 7]), picture(285)]
    root = write(tmp_path, images, TREE_AND_PLANE)
    benchmark = opened(root, candidates="federated")
    first, second = benchmark
    assert first.candidates == (PLANE - 1, 6, TREE - 1, 1202)
    assert second.candidates == ()
    # Category 9 cannot be found in the first image, nor anything in the second one.
    wrong = filled((PLANE, LEFT), (9, CORNER), (1203, (0, slice(4, 8))))
    scores = score_labels(benchmark, wrong, np.full((HEIGHT, WIDTH), PLANE))
    assert ious(scores) == {
        "background": 68 / 78,
        "airplane": 1,
        "Christmas tree": 0,
        "zucchini": 0,
    }
    write(tmp_path, [picture(139, neg_category_ids=[1204])], [])
    with pytest.raises(DataError, match="image 139 lists category 1204 as absent, expected 1 to"):
        opened(root)


def test_every_option_is_printed_with_the_number(tmp_path: Path) -> None:
    root = write(tmp_path, [picture(139)], [])
    assert opened(root).truth == (
        "polygons of LVIS v1, images of val2017, unlabelled pixels are background, smaller objects "
        "on top, all 1203 classes may be predicted"
    )
    others = opened(
        root, images="all", unlabelled="ignore", overlap="file_order", candidates="federated"
    )
    assert others.truth == (
        "polygons of LVIS v1, images of the whole list, unlabelled pixels and background ignored, "
        "later objects on top, classes annotated as present or absent in the image may be predicted"
    )


def test_published_numbers_stand_beside_the_plain_reading_of_the_paper(tmp_path: Path) -> None:
    images = [picture(n, "val2017" if n < 5 else "train2017") for n in range(19809)]
    document = {"images": images, "annotations": [], "categories": []}
    for folder in ("val2017", "train2017"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "lvis_v1_val.json"
    path.write_text(json.dumps(document))
    assert opened(tmp_path).published_as == "LVIS"
    assert {row.value for row in published_results("LVIS")} == {0.5, 4.9}
    for option in (
        {"images": "all"},
        {"unlabelled": "ignore"},
        {"candidates": "federated"},
        {"limit": 2},
    ):
        assert opened(tmp_path, **option).published_as == ""
    path.write_text(json.dumps({**document, "images": images[:-1]}))
    assert opened(tmp_path).published_as == ""


def test_images_may_lie_where_the_usual_layouts_have_them(tmp_path: Path) -> None:
    root = write(tmp_path / "lvis", [picture(139)], TREE_AND_PLANE)
    for folder in ("lvis/images", "lvis/coco", "coco"):
        (tmp_path / folder).mkdir()
        (root / "val2017").rename(tmp_path / folder / "val2017")
        assert opened(root).missing_files() == []
        (tmp_path / folder / "val2017").rename(root / "val2017")
    (root / "annotations").mkdir()
    (root / "lvis_v1_val.json").rename(root / "annotations" / "lvis_v1_val.json")
    assert len(list(opened(root))) == 1


def test_missing_files_are_named_with_the_place_where_they_are_had(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lvis_v1_val\.json is missing, .*lvis_v1_val\.json\.zip"):
        opened(tmp_path)
    root = write(tmp_path, [picture(139), picture(285)], TREE_AND_PLANE)
    image = root / "val2017" / "000000000285.jpg"
    image.unlink()
    assert opened(root).missing_files() == [image]
    with pytest.raises(InputError, match=r"1 files of the split val are missing: .*285\.jpg"):
        opened(root).check()
    image.with_name("000000000139.jpg").unlink()
    image.parent.rmdir()
    with pytest.raises(InputError, match=r"folder val2017 with images is missing in each of"):
        opened(root)


def test_an_image_of_another_size_than_the_annotations_say_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, [picture(139, width=9)], [])
    with pytest.raises(DataError, match=r"139 labels of 9 x 6 pixels, expected 8 x 6"):
        list(opened(root))


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([thing(1, 7, TREE, box(0, 0, 1, 1))], "annotation 1 is of image 7 and category 255"),
        ([thing(1, 139, 1204, box(0, 0, 1, 1))], "of image 139 and category 1204, expected both"),
        ([TREE_AND_PLANE[0], TREE_AND_PLANE[0]], "holds annotation 1 twice"),
        ([thing(1, 139, TREE, [])], "annotation 1 has no polygon"),
        ([thing(1, 139, TREE, [[0, 0, 1, 1]])], "annotation 1 has a malformed polygon"),
        ([thing(1, 139, TREE, [[0, 0, 1, 1, 2, 2, 3]])], "has a malformed polygon"),
        ([thing(1, 139, TREE, [[0, 0, 1, 1, float("nan"), 2]])], "has a malformed polygon"),
        ([thing(1, 139, TREE, [[0, 0, 1, 1, 1e9, 2]])], "has a malformed polygon"),
        ([thing(1, 139, TREE, {"counts": "1", "size": [6, 8]})], "the part with id 1 is damaged"),
        ([{"id": 1, "image_id": 139}], "has no list of annotations as LVIS v1 has it"),
        ([{**TREE_AND_PLANE[0], "area": None}], "the part with id 1 is damaged"),
    ],
)
def test_a_damaged_annotation_is_named(
    tmp_path: Path, annotations: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        opened(write(tmp_path, [picture(139)], annotations))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, [picture(139)], TREE_AND_PLANE)
    path = root / "lvis_v1_val.json"
    text = path.read_text()
    for damaged in (text[:-100], "", "[]", "{}", '{"images": 3}', text.replace("coco_url", "url")):
        path.write_text(damaged)
        with pytest.raises(DataError, match=r"lvis_v1_val\.json (is not JSON|has no list of)"):
            opened(root)
    path.write_text(text.replace("http:", "\udcff"), errors="surrogateescape")
    with pytest.raises(DataError, match=r"lvis_v1_val\.json is not JSON"):
        opened(root)
    write(tmp_path, [picture(139), picture(139)], [])
    with pytest.raises(DataError, match="holds image 139 twice"):
        opened(root)


def test_another_release_of_lvis_is_refused(tmp_path: Path) -> None:
    shifted = [{**row, "id": row["id"] + 1} for row in categories()]
    root = write(tmp_path, [picture(139)], [], categories=shifted)
    with pytest.raises(
        DataError, match=r"calls category 1204 'zucchini', expected None as in LVIS"
    ):
        opened(root)
    write(tmp_path, [picture(139)], [], categories=shifted[1:])
    with pytest.raises(DataError, match=r"fetch the annotations of version 1"):
        opened(root)
