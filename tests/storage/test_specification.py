"""What a dataset's specification decides: the names of its samples, and who may go on with it."""

import json

import pytest

from storage.errors import InputError
from storage.objects import open_objects
from storage.plan import DatasetSpec, plan_shard
from storage.slices import resolve_slice
from storage.specification import Specification, read_specification, write_specification
from storage.specification_copies import seal
from storage.store import Store
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("miniature")
CLASSES = resolve_slice(VOCABULARY, "cat,boat")
PLAN = DatasetSpec(vocabulary="miniature", seed=3)


def spec(painter="a", **plan):
    return {
        "plan": PLAN.model_copy(update=plan).model_dump(mode="json"),
        "stages": {"pairs": {"painter": painter}},
    }


@pytest.mark.parametrize(
    "other", [spec(seed=4), spec(painter="b"), spec(two_class_share=0.25)], ids=str
)
def test_two_datasets_of_one_slice_share_no_name(other):
    names = {Specification(each).named(CLASSES).slice_id for each in (spec(), other)}
    assert len(names) == 2
    assert CLASSES.slice_id not in names


def test_the_size_of_the_tars_has_no_part_in_the_names():
    named = [Specification(spec(samples_per_shard=size)).named(CLASSES) for size in (8, 1000)]
    assert named[0] == named[1]


def test_datasets_that_differ_in_the_painter_can_be_compared_sample_by_sample():
    plans = [
        plan_shard(PLAN, Specification(spec(painter=painter)).named(CLASSES), 0, 20).samples
        for painter in ("a", "b")
    ]
    plain = plan_shard(PLAN, CLASSES, 0, 20).samples
    for samples in plans:
        assert [(s.seed, s.class_ids) for s in samples] == [(s.seed, s.class_ids) for s in plain]
    assert not {s.key for s in plans[0]} & {s.key for s in plans[1]}
    assert [int(s.key[8:]) for s in plans[0]] == list(range(20))


def test_a_new_dataset_names_its_samples_by_itself_and_an_old_one_by_their_classes(tmp_path):
    new = Store.create(tmp_path / "new", spec()).specification
    assert new == Store.open(tmp_path / "new").specification
    assert new.named(CLASSES).slice_id != CLASSES.classes_id

    objects = open_objects(tmp_path / "old")
    objects.write_new(".engine/spec.json", seal(1, spec()))
    for old in (Store.create(tmp_path / "old", spec()), Store.open(tmp_path / "old")):
        assert old.specification.named(CLASSES) == CLASSES


def test_a_scheme_of_the_future_is_refused(tmp_path):
    objects = open_objects(tmp_path)
    write_specification(objects, spec())
    sealed = json.loads(objects.read(".engine/spec.json"))
    for path in (".engine/spec.json", ".engine/spec.copy.json"):
        objects.replace(path, seal(3, sealed["spec"]))
    with pytest.raises(InputError, match="scheme 3, this engine knows 1 and 2"):
        read_specification(objects)
