"""What is kept of single images beside the scores: counts, and the best and worst in small."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from evaluation.scoring.image_counts import COUNTS_SCHEMA, CountedImages, read_counts
from evaluation.scoring.kept_pictures import (
    PictureKeeper,
    read_pictures,
    write_pictures,
)
from evaluation.scoring.metrics import Confusion
from storage.codecs import decode_label_map
from storage.errors import DataError
from storage.records import IGNORE_LABEL


def maps(*pairs: tuple[list[list[int]], list[list[int]]]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.array(truth), np.array(found)) for truth, found in pairs]


def counted(path: Path, images: list[tuple[np.ndarray, np.ndarray]], classes: int) -> np.ndarray:
    """Count images into a file; returns the confusion matrix of the scores."""
    confusion, single = Confusion(classes), CountedImages()
    for number, (truth, found) in enumerate(images):
        single.add(f"image {number}", confusion.update_with_pairs(truth, found))
    single.write(path)
    return confusion.matrix


def test_counts_of_images_add_up_to_those_of_the_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [
        (rng.integers(0, 7, (20, 30)), rng.integers(0, 7, (20, 30)).astype(np.int32))
        for _ in range(5)
    ]
    images[2][0][:, :9] = IGNORE_LABEL
    matrix = counted(tmp_path / "c.parquet", images, 7)
    read = read_counts(tmp_path / "c.parquet", 7)
    assert np.array_equal(read.matrix(7), matrix)
    assert matrix.sum() == 5 * 600 - 180
    assert read.keys == tuple(f"image {number}" for number in range(5))


def test_ious_of_single_images_by_hand(tmp_path: Path) -> None:
    images = maps(
        ([[0, 1, 1, 1]], [[0, 1, 1, 2]]),
        ([[0, 0, 0, 0]], [[0, 0, 0, 0]]),
        ([[2, 2, IGNORE_LABEL, 1]], [[1, 1, 1, 1]]),
    )
    counted(tmp_path / "c.parquet", images, 4)
    found = read_counts(tmp_path / "c.parquet", 4).ious(4)
    rows = zip(
        found.image.tolist(), found.label.tolist(), found.iou, found.union.tolist(), strict=True
    )
    assert list(rows) == [
        (0, 0, 1.0, 1),
        (0, 1, pytest.approx(2 / 3), 3),
        (0, 2, 0.0, 1),
        (1, 0, 1.0, 4),
        (2, 1, pytest.approx(1 / 3), 3),
        (2, 2, 0.0, 2),
    ]


def test_a_file_of_counts_may_have_fewer_bytes_for_a_row_than_a_footer_would_claim(
    tmp_path: Path,
) -> None:
    same = np.zeros((4, 4), np.int64)
    counted(tmp_path / "c.parquet", [(same, same)] * 5000, 2)
    assert len(read_counts(tmp_path / "c.parquet", 2).keys) == 5000
    counted(tmp_path / "none.parquet", [], 2)
    assert read_counts(tmp_path / "none.parquet", 2).keys == ()


def spoilt(column: str, value: int) -> bytes:
    columns = {"key": ["a"], "truth": [0], "found": [0], "pixels": [1], column: [value]}
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns, schema=COUNTS_SCHEMA), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a readable Parquet file"),
        (spoilt("truth", 0)[:-9], "not a readable Parquet file"),
        (spoilt("found", 5), "holds label 5, expected 0 to 4"),
        (spoilt("truth", -1), "holds label -1"),
        (spoilt("pixels", 0), "holds a count of 0 pixels"),
        (None, "is missing, though the scores name it"),
    ],
)
def test_damaged_counts_are_named_with_the_way_out(
    tmp_path: Path, data: bytes | None, words: str
) -> None:
    path = tmp_path / "c.parquet"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=rf"c\.parquet.*{words}.*evaluate .*--by-image"):
        read_counts(path, 5)


def strip(length: int, wrong: int, label: int = 1, other: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A thing of which some pixels are taken for something else."""
    truth = np.zeros((4, 32), np.int64)
    truth[1, :length] = label
    found = truth.copy()
    found[1, :wrong] = other
    return truth, found


def offered(images: dict[str, tuple[np.ndarray, np.ndarray]], classes: int) -> list[str]:
    confusion, keeper = Confusion(classes), PictureKeeper(classes, background=True)
    for key, (truth, found) in images.items():
        image = np.full((*truth.shape, 3), 99, np.uint8)
        keeper.offer(key, image, (truth, found), confusion.update_with_pairs(truth, found))
    return [each.key for each in keeper.kept(confusion.matrix)]


def test_the_best_and_the_worst_of_each_class_are_kept_and_what_is_taken_for_another() -> None:
    images = {f"middle {n}": strip(20, 8) for n in range(9)}
    images |= {f"best {n}": strip(20, n) for n in range(3)}
    images |= {f"worst {n}": strip(20, 20 - n) for n in range(3)}
    images["cat for dog"] = strip(20, 9, label=1, other=2)
    images["small cat for dog"] = strip(20, 3, label=1, other=2)
    kept = offered(images, 40)
    assert {"best 0", "best 1", "best 2", "worst 0", "worst 1", "worst 2"} <= set(kept)
    assert "cat for dog" in kept
    assert not any(each.startswith("middle") for each in kept)
    # with many classes there is one of each, and of equal ones the first
    assert set(offered({"a": strip(9, 0), "b": strip(9, 0), "c": strip(9, 9)}, 300)) == {"a", "c"}


def test_many_pairs_of_labels_do_not_keep_many_pictures() -> None:
    rng = np.random.default_rng(1)
    images = {}
    for number in range(400):
        truth = rng.integers(1, 500, (2, 8))
        images[f"{number}"] = (truth, rng.permutation(truth.ravel()).reshape(2, 8))
    keeper = PictureKeeper(500, background=True)
    confusion = Confusion(500)
    for key, (truth, found) in images.items():
        pairs = confusion.update_with_pairs(truth, found)
        keeper.offer(key, np.zeros((2, 8, 3), np.uint8), (truth, found), pairs)
        assert len(keeper._pairs) <= 601


def test_a_picture_is_small_and_its_labels_are_those_of_the_image(tmp_path: Path) -> None:
    truth = np.zeros((300, 900), np.uint16)
    truth[:, 450:] = 3
    found = np.zeros((300, 900), np.int32)
    found[150:] = 4
    image = np.zeros((300, 900, 3), np.uint8)
    image[:, 450:] = 250
    confusion, keeper = Confusion(5), PictureKeeper(5, background=True)
    keeper.offer("wide", image, (truth, found), confusion.update_with_pairs(truth, found))
    write_pictures(keeper.kept(confusion.matrix), tmp_path / "p.parquet")
    [kept] = read_pictures(tmp_path / "p.parquet").values()
    shown = np.asarray(Image.open(io.BytesIO(kept.image)))
    assert shown.shape == (85, 256, 3)
    assert (shown[:, :120] < 20).all()
    assert (shown[:, 136:] > 230).all()
    small, other = decode_label_map(kept.truth), decode_label_map(kept.prediction)
    assert (small[:, :128] == 0).all()
    assert (small[:, 128:] == 3).all()
    assert (other[43:] == 4).all()
    write_pictures([], tmp_path / "none.parquet")
    assert read_pictures(tmp_path / "none.parquet") == {}
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"p\.parquet is not a readable .*--by-image"):
        read_pictures(tmp_path / "p.parquet")


def test_a_parquet_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"key": ["a"]}), buffer)
    (tmp_path / "c.parquet").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="schema version none"):
        read_counts(tmp_path / "c.parquet", 2)
