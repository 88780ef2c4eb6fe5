import pytest

from storage.class_groups import category_positions, left_out_ids, load_zero_shot
from storage.class_sets import load_benchmark
from storage.errors import InputError
from storage.vocabulary import load_vocabulary

COCO_STUFF_UNSEEN = (19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160)


def test_the_splits_are_those_of_zegclip():
    """Places as the works name them; the class lists are those of VOC and COCO-Stuff."""
    voc = load_benchmark("voc20")
    assert load_zero_shot("voc15_5").positions(voc) == (15, 16, 17, 18, 19)
    stuff = load_benchmark("coco_stuff")
    assert load_zero_shot("coco_stuff156_15").positions(stuff) == COCO_STUFF_UNSEEN
    assert load_zero_shot("miniature11_3").positions(load_benchmark("miniature")) == (11, 12, 13)


def test_a_split_serves_the_class_sets_of_its_classes_alone():
    split = load_zero_shot("voc15_5")
    assert split.positions(load_benchmark("voc21")) == split.positions(load_benchmark("voc20"))
    with pytest.raises(InputError, match="one of the classes of voc20, but coco_stuff is scored"):
        split.positions(load_benchmark("coco_stuff"))


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match='"voc" does not exist, expected one of voc15_5'):
        load_zero_shot("voc")


def test_cityscapes_reports_two_categories():
    classes = load_benchmark("cityscapes")
    found = {
        name: [classes.names[k] for k in own] for name, own in category_positions(classes).items()
    }
    assert found == {
        "human": ["person", "rider"],
        "vehicle": ["car", "truck", "bus", "train", "motorcycle", "bicycle"],
    }
    assert category_positions(load_benchmark("voc20")) == {}


def test_left_out_names_are_classes_and_splits():
    lvis = load_vocabulary("lvis1205")
    names = [lvis[k].name for k in left_out_ids(lvis, ("voc15_5", "television set", "sofa"))]
    assert set(names) == {
        "potted plant",
        "sheep",
        "sofa",
        "train (railroad vehicle)",
        "tv monitor",
        "television set",
    }
    # Cardboard, clouds, grass ... are no classes of the vocabulary: nobody can train on them.
    stuff = {lvis[k].name for k in left_out_ids(lvis, ("coco_stuff156_15",))}
    assert {"cow", "giraffe", "frisbee"} < stuff
    assert len(stuff) == 7
    assert left_out_ids(lvis, ()) == ()


def test_left_out_names_that_fit_nothing_are_refused():
    drawn = load_vocabulary("miniature")
    with pytest.raises(InputError, match="belongs to the vocabulary lvis1205, the training has"):
        left_out_ids(drawn, ("voc15_5",))
    with pytest.raises(InputError, match='"baloon"'):
        left_out_ids(drawn, ("baloon",))
    with pytest.raises(InputError, match="all 14 classes of miniature are left out"):
        left_out_ids(drawn, tuple(record.name for record in drawn))
