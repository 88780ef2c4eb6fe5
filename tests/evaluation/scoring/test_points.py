"""The point metric, to values computed by hand."""

import math

import numpy as np
import pytest

from evaluation.scoring.points import Aggregate, PointCounts, point_ious, rescale

CLASS, PAIR = Aggregate.CLASS, Aggregate.PAIR


def tally(*, thresholds: tuple[float, ...] = (0.5,), strict: bool = False) -> PointCounts:
    """Two images, two classes.

    At 0.5, class 0 has TP FP FN TN = 2 1 1 1 in the first image and 1 0 0 0 in the second, class 1
    has 0 0 1 2 in the first.
    """
    made = PointCounts(3, thresholds, strict=strict)
    yes_no = np.array([True, True, True, False, False])
    made.update(0, np.array([0.9, 0.5, 0.2, 0.8, 0.1], np.float32), yes_no)
    made.update(0, np.array([0.7], np.float32), np.array([True]))
    made.update(1, np.array([0.4, 0.3, 0.0], np.float32), np.array([True, False, False]))
    return made


def means(made: PointCounts, threshold: int = 0) -> dict[tuple[Aggregate, bool], tuple[float, int]]:
    return {(m.aggregate, m.with_background): (m.value, m.count) for m in made.means(threshold)}


def test_every_way_to_average_comes_from_one_pass() -> None:
    found = means(tally())
    # Classes: 3/(3+1+1) and 0/1; with background (3/5 + 1/3) / 2 and (0 + 2/3) / 2.
    assert found[CLASS, False] == (pytest.approx((3 / 5 + 0) / 2), 2)
    assert found[CLASS, True] == (pytest.approx(((3 / 5 + 1 / 3) / 2 + (0 + 2 / 3) / 2) / 2), 2)
    # Pairs: 2/4, 1/1 and 0/1; the second pair has no point for the background.
    assert found[PAIR, False] == (pytest.approx((2 / 4 + 1 + 0) / 3), 3)
    pairs = ((2 / 4 + 1 / 3) / 2, 1, (0 + 2 / 3) / 2)
    assert found[PAIR, True] == (pytest.approx(sum(pairs) / 3), 3)


def test_a_point_on_the_threshold_is_predicted_unless_the_comparison_is_strict() -> None:
    assert tally().counts[0, 0].tolist() == [3, 1, 1, 1]
    assert tally(strict=True).counts[0, 0].tolist() == [2, 1, 2, 1]


def test_thresholds_are_counted_apart_in_any_order() -> None:
    made = tally(thresholds=(0.95, 0.0, 0.35))
    assert made.counts[:, 0].tolist() == [[0, 0, 4, 2], [4, 2, 0, 0], [3, 1, 1, 1]]
    assert made.counts[:, 1].tolist() == [[0, 0, 1, 2], [1, 2, 0, 0], [1, 0, 0, 2]]
    assert means(made, 0)[CLASS, False] == (0, 2)
    assert means(made, 1)[CLASS, False] == (pytest.approx((4 / 6 + 1 / 3) / 2), 2)


def test_a_class_without_a_yes_counts_for_the_foreground_only_where_it_is_predicted() -> None:
    made = PointCounts(2, (0.5,))
    made.update(0, np.array([0.1, 0.2], np.float32), np.array([False, False]))
    assert means(made)[CLASS, False][1] == means(made)[PAIR, False][1] == 0
    assert math.isnan(means(made)[CLASS, False][0])
    assert means(made)[CLASS, True] == (1, 1)
    made.update(1, np.array([0.6, 0.2], np.float32), np.array([False, False]))
    assert means(made)[CLASS, False] == (0, 1)


def test_an_iou_of_no_point_is_none() -> None:
    ious = point_ious(np.array([[0, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 3], [1, 1, 2, 4]]))
    assert np.isnan(ious[0]).all()
    np.testing.assert_allclose(ious[1], [1, 1])
    np.testing.assert_allclose(ious[2], [np.nan, 1])
    np.testing.assert_allclose(ious[3], [1 / 4, (1 / 4 + 4 / 7) / 2])


def test_a_map_is_stretched_between_its_own_extremes() -> None:
    values = np.array([0.2, 0.3, 0.4], np.float32)
    np.testing.assert_allclose(rescale(values, 0.2, 0.4), [0, 0.5, 1], atol=1e-6)
    assert rescale(values, 0.2, 0.4).dtype == np.float32
    assert rescale(values, 0.3, 0.3).tolist() == [0, 0, 0]
