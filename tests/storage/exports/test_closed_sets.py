import numpy as np
import pytest

from storage.class_sets import load_benchmark
from storage.errors import DataError, InputError
from storage.exports.closed_sets import CLOSED_IGNORE, resolve_closed_set
from storage.records import IGNORE_LABEL
from storage.vocabulary import load_vocabulary

LVIS = load_vocabulary("lvis1205")
MINIATURE = load_vocabulary("miniature")


def test_labels_follow_the_order_of_the_benchmark():
    voc = resolve_closed_set(LVIS, "voc20")
    assert voc.labels == ("background", *load_benchmark("voc20").names)
    assert voc.labels[1] == "aeroplane"
    stored = np.array([[LVIS.by_name("airplane").class_id + 1, 0]], np.uint16)
    assert voc.encode(stored).tolist() == [[1, 0]]


def test_classes_outside_the_set_are_background_and_ignored_pixels_stay_ignored():
    pair = resolve_closed_set(MINIATURE, "rocket, bus")
    assert pair.names == ("rocket", "bus")
    stored = np.array([[0, 2, 14, 3], [IGNORE_LABEL, 14, 1, 2]], np.uint16)
    labels = pair.encode(stored)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 2, 1, 0], [CLOSED_IGNORE, 1, 0, 2]]


def test_the_class_with_the_id_254_is_not_taken_for_an_ignored_pixel():
    name = LVIS[254].name
    stored = np.array([[255, 254, IGNORE_LABEL]], np.uint16)
    assert resolve_closed_set(LVIS, name).encode(stored).tolist() == [[1, 0, CLOSED_IGNORE]]


def test_a_class_that_the_vocabulary_lacks_keeps_its_label_but_has_no_pixel():
    coco = resolve_closed_set(LVIS, "coco80")
    hot_dog = coco.labels.index("hot dog")
    assert len(coco.labels) == 81
    everything = np.arange(len(LVIS) + 1, dtype=np.uint16)[None]
    assert set(range(81)) - set(coco.encode(everything).ravel().tolist()) == {hot_dog}


def test_more_classes_than_a_byte_holds_are_refused():
    names = [record.name for record in LVIS if "," not in record.name]
    assert len(resolve_closed_set(LVIS, ",".join(names[:254])).labels) == 255
    with pytest.raises(InputError, match="255 classes, expected at most 254"):
        resolve_closed_set(LVIS, ",".join(names[:255]))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("cat,cat", "twice"),
        ("voc20", "belong to vocabulary lvis1205"),
        ("cat,unicorn", "unicorn"),
        ("", "not in vocabulary"),
    ],
)
def test_classes_that_mean_nothing_are_refused(classes, message):
    with pytest.raises(InputError, match=message):
        resolve_closed_set(MINIATURE, classes)


def test_a_label_that_is_no_class_is_damage():
    stored = np.array([[len(MINIATURE) + 1]], np.uint16)
    with pytest.raises(DataError, match="holds 15, expected at most 14"):
        resolve_closed_set(MINIATURE, "miniature").encode(stored)
