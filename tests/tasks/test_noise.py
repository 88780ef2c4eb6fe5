"""Which samples noise learning leaves out, and what it says of them."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scoring.agreement import Agreement, find_agreement
from storage.folds import Fold
from tasks.noise import NoiseRules, find_noise


def agreement(classes, objects=0.5):
    return Agreement(classes=classes, objects=objects)


EASY = {f"easy{n}": agreement({0: 0.9 + n / 100}) for n in range(4)}
HARD = {f"hard{n}": agreement({1: 0.1 + n / 100}) for n in range(4)}


def test_agreement_by_hand():
    labels = np.array([[1, 1, 0, 65535], [2, 0, 0, 0]], np.uint16)
    found = np.array([[1, 0, 1, 1], [0, 0, 0, 3]], np.uint16)
    # class 0: one pixel in both, three in either, the ignored one not counted; class 1: none;
    # objects: one pixel in both, five in either
    whole = find_agreement(labels, found, {0, 1, 2})
    assert whole.classes == {0: pytest.approx(1 / 3), 1: 0.0}
    assert whole.objects == pytest.approx(1 / 5)
    assert whole.score == pytest.approx(1 / 6)
    assert find_agreement(labels, found, {1}).classes == {1: 0.0}
    assert find_agreement(labels, found, {5}) is None
    assert find_agreement(np.zeros((2, 2), np.uint16), found[:, :2], {0}) is None
    assert find_agreement(np.full((2, 4), 65535, np.uint16), found, {0}) is None


def test_all_are_compared_by_their_mean():
    rules = NoiseRules(keep=0.5, ranking="all")
    assert find_noise(EASY | HARD, rules) == set(HARD)


def test_a_hard_class_loses_no_more_than_an_easy_one():
    rules = NoiseRules(keep=0.5, ranking="class")
    assert find_noise(EASY | HARD, rules) == {"easy0", "easy1", "hard0", "hard1"}


def test_a_sample_of_two_classes_has_the_mean_of_its_places():
    # places of class 0: a 1/6, b 3/6, c 5/6; of class 1: a 3/4, d 1/4; so a has 11/24
    classes = {"a": {0: 0.1, 1: 0.9}, "b": {0: 0.2}, "c": {0: 0.3}, "d": {1: 0.5}}
    samples = {key: agreement(own) for key, own in classes.items()}
    assert find_noise(samples, NoiseRules(keep=0.75)) == {"d"}
    assert find_noise(samples, NoiseRules(keep=0.5)) == {"d", "a"}


def test_a_class_that_no_segmenter_finds_is_not_wiped_out():
    unknown = {f"new{n}": agreement({2: 0.0}) for n in range(4)}
    noise = find_noise(EASY | unknown, NoiseRules(keep=0.75))
    assert noise == {"easy0", "easy1"}


@pytest.mark.parametrize("ranking", ["class", "all"])
def test_of_equal_samples_those_go_whose_objects_agree_less(ranking):
    mistaken = {f"mistaken{n}": agreement({0: 0.0}, objects=0.8) for n in range(2)}
    wrong = {f"wrong{n}": agreement({0: 0.0}, objects=0.4) for n in range(2)}
    assert find_noise(mistaken | wrong, NoiseRules(keep=0.5, ranking=ranking)) == set(wrong)


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=4),
        st.builds(
            Agreement,
            classes=st.dictionaries(st.integers(0, 3), st.floats(0, 1), min_size=1, max_size=2),
            objects=st.floats(0, 1),
        ),
        min_size=1,
    ),
    st.floats(0.01, 1),
    st.sampled_from(["class", "all"]),
)
def test_as_many_stay_as_were_wanted_whatever_the_order(samples, keep, ranking):
    rules = NoiseRules(keep=keep, ranking=ranking)
    noise = find_noise(samples, rules)
    assert len(samples) - len(noise) == round(keep * len(samples))
    assert noise == find_noise(dict(reversed(samples.items())), rules)


def test_folds_share_no_sample_and_leave_none_out():
    keys = [f"0badcafe{index:08x}" for index in range(300)]
    parts = [{key for key in keys if Fold(number=n, of=3).has(key)} for n in range(3)]
    assert sorted(key for part in parts for key in part) == keys
    assert all(Fraction(len(part), 300) > Fraction(1, 4) for part in parts)
    with pytest.raises(ValueError, match="expected less than of, which is 3"):
        Fold(number=3, of=3)
