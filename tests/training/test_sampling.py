import numpy as np
import pytest

from storage.errors import DataError
from storage.records import IGNORE_LABEL
from training.sampling import BACKGROUND, IGNORE, remap, sample_subsets


def seeds(*values):
    return np.array(values, np.uint64)


def test_own_classes_come_first_and_names_are_distinct():
    found = sample_subsets([(7, 300), (1204,)], 1205, 100, seeds(1, 2))
    assert set(found.class_ids[0, :2]) == {7, 300}
    assert found.class_ids[1, 0] == 1204
    assert all(len(set(row)) == 100 for row in found.class_ids.tolist())
    assert found.active.all()


def test_each_image_and_each_seed_has_other_names():
    own = [(0,), (0,)]
    found = sample_subsets(own, 1205, 50, seeds(1, 2)).class_ids
    assert len(set(found[0]) & set(found[1])) < 20
    again = sample_subsets(own[:1], 1205, 50, seeds(2)).class_ids
    np.testing.assert_array_equal(found[1:], again)


def test_one_name_is_an_own_one():
    found = sample_subsets([(3, 5)] * 200, 10, 1, np.arange(200, dtype=np.uint64)).class_ids
    assert set(found.ravel()) == {3, 5}


@pytest.mark.parametrize("size", [14, 500])
def test_all_names_are_all_of_them_once(size):
    found = sample_subsets([(4,), (13, 0)], 14, size, seeds(1, 2)).class_ids
    np.testing.assert_array_equal(np.sort(found, axis=1), np.broadcast_to(np.arange(14), (2, 14)))
    assert found[0, 0] == 4


def test_negatives_are_drawn_evenly():
    found = sample_subsets([(0,)] * 4000, 21, 6, np.arange(4000, dtype=np.uint64)).class_ids
    counts = np.bincount(found[:, 1:].ravel(), minlength=21)[1:]
    # 5 of 20 names, 4000 times: 1000 each, standard deviation 27.
    assert counts.min() > 860
    assert counts.max() < 1140


def test_excluded_names_are_drawn_only_to_fill_up_and_then_teach_nothing():
    found = sample_subsets([(0,), (0,)], 6, 4, seeds(1, 2), [(1, 2), (1, 2, 3, 4)])
    assert not {1, 2} & set(found.class_ids[0])
    assert found.active[0].all()
    assert set(found.class_ids[1, :2]) == {0, 5}
    assert found.active[1].tolist() == [True, True, False, False]


def test_an_own_class_is_never_excluded():
    found = sample_subsets([(0, 1)], 6, 4, seeds(1), [(1, 2)])
    assert set(found.class_ids[0, :2]) == {0, 1}
    assert found.active[0].all()


def mapped(labels, class_ids, num_classes):
    """Targets of an image, and the places of the names that it shows."""
    labels = np.array(labels, np.uint16)
    out = np.full(labels.shape, 99, np.int16)
    present = remap(labels, class_ids, num_classes, out)
    return out.tolist(), np.flatnonzero(present).tolist()


def test_labels_become_positions():
    subsets = sample_subsets([(2, 9), (5,)], 12, 5, seeds(1, 2))
    position = {int(c): i for i, c in enumerate(subsets.class_ids[0])}
    found, present = mapped([[0, 3], [10, IGNORE_LABEL]], subsets.class_ids[0], 12)
    assert found == [[BACKGROUND, position[2]], [position[9], IGNORE]]
    assert present == [0, 1]
    found, present = mapped([[6, 0], [0, 6]], subsets.class_ids[1], 12)
    assert found == [[0, BACKGROUND], [BACKGROUND, 0]]
    assert present == [0]


@pytest.mark.parametrize("flipped", [False, True])
def test_labels_of_every_kind_become_positions(flipped):
    """Beside a comparison of each label with each name."""
    rng = np.random.default_rng(5)
    for shape in ((1, 1), (1, 7), (6, 1), (9, 13)):
        labels = rng.choice([0, 1, 3, 4, 20, IGNORE_LABEL], shape).astype(np.uint16)
        labels = labels[:, ::-1] if flipped else labels
        names = rng.permutation(20)[:8]
        expected = np.full(shape, BACKGROUND)
        expected[labels == IGNORE_LABEL] = IGNORE
        for place, name in enumerate(names):
            expected[labels == name + 1] = place
        found, present = mapped(labels, names, 20)
        assert found == expected.tolist()
        assert present == [k for k in range(8) if (expected == k).any()]


def test_a_class_that_was_not_drawn_is_background():
    subsets = sample_subsets([(2, 9)], 12, 1, seeds(1))
    other = 9 if subsets.class_ids[0, 0] == 2 else 2
    assert mapped([[other + 1]], subsets.class_ids[0], 12) == ([[BACKGROUND]], [])


def test_the_255th_class_is_a_class_like_any_other():
    subsets = sample_subsets([(254,)], 1205, 3, seeds(1))
    assert mapped([[255]], subsets.class_ids[0], 1205) == ([[0]], [0])


def test_a_label_beyond_the_vocabulary_is_refused():
    subsets = sample_subsets([(2,)], 12, 3, seeds(1))
    with pytest.raises(DataError, match="label 13, expected at most 12"):
        mapped([[0, 13, IGNORE_LABEL]], subsets.class_ids[0], 12)
