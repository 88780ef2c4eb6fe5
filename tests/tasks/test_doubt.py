"""The order of doubt, by hand."""

import pytest

from evaluation.scoring.agreement import Agreement
from storage.manifest import ManifestRow
from tasks.doubt import SIGNALS, rank_doubt, table_row


def row(key, *, scores=(0.9,), ious=(0.9,), areas=((1, 100),)):
    return ManifestRow(
        key=key,
        shard="s-0",
        index=0,
        seed=0,
        status="written",
        class_ids=tuple(class_id for class_id, _ in areas),
        class_names=tuple(f"class {class_id}" for class_id, _ in areas),
        width=100,
        height=10,
        mask_class_ids=tuple(class_id for class_id, _ in areas),
        mask_areas=tuple(area for _, area in areas),
        instance_class_ids=tuple(1 for _ in scores),
        instance_scores=scores,
        instance_ious=ious,
    )


def agreement(score, objects=0.5):
    return Agreement(classes={1: score}, objects=objects)


def test_places_are_shares_of_less_doubtful_samples_and_doubt_is_their_mean():
    rows = [
        row("a", scores=(0.9, 0.2), ious=(0.8,)),
        row("b", scores=(0.5,), ious=(0.9,)),
        row("c", scores=(0.7,), ious=(0.9,)),
        row("d", scores=(0.8,), ious=(0.3,)),
    ]
    first, second, *_ = ranked = rank_doubt(rows)
    assert [each.key for each in ranked] == ["a", "d", "b", "c"]
    assert first.values == {"box": 0.2, "iou": 0.8}  # four of a class tell nothing about areas
    assert first.places == {"box": 0.875, "iou": 0.625}  # of four: 3.5 and 2.5 of them
    assert first.doubt == pytest.approx(0.75)
    assert second.places == {"box": 0.125, "iou": 0.875}
    # of equals each has the middle of their places
    assert {each.places["iou"] for each in ranked[2:]} == {0.25}


def test_an_area_is_odd_by_its_class_whether_it_is_too_small_or_too_large():
    rows = [row(f"n{n}", areas=((1, 100 + n),)) for n in range(8)]
    rows += [row("small", areas=((1, 10),)), row("large", areas=((1, 900),))]
    rows += [row(f"other{n}", areas=((2, 900),)) for n in range(5)]
    ranked = rank_doubt(rows)
    assert {each.key for each in ranked[:2]} == {"small", "large"}
    by_key = {each.key: each for each in ranked}
    assert by_key["other0"].values["area"] == 0
    assert by_key["small"].values["area"] > 10
    few = rank_doubt([row(f"n{n}", areas=((1, 10**n),)) for n in range(4)])
    assert all("area" not in each.values for each in few)


def test_a_student_counts_three_times_all_records_together():
    rows = [row("a", scores=(0.1,)), row("b", scores=(0.5,)), row("c", scores=(0.9,))]
    told = {"a": agreement(0.9), "b": agreement(0.0, 0.4), "c": agreement(0.0, 0.1)}
    ranked = {each.key: each for each in rank_doubt(rows, told)}
    # of equal agreements that of all objects decides
    assert [ranked[key].places["student"] for key in "abc"] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert ranked["a"].places["box"] == pytest.approx(5 / 6)
    assert ranked["a"].doubt == pytest.approx(((5 / 6 + 1 / 2) / 2 + 3 / 6) / 4)


def test_what_is_not_known_of_a_sample_does_not_count_for_it():
    rows = [row("a", scores=(), ious=()), row("b"), row("c", scores=(0.1,))]
    ranked = rank_doubt(rows, {"c": agreement(0.5)})
    by_key = {each.key: each for each in ranked}
    assert by_key["a"].doubt == 0.5
    assert by_key["a"].values == {}
    shown = table_row(by_key["a"], 2)
    assert (shown["place"], shown["key"], shown["box"], shown["student_place"]) == (2, "a", "", "")
    assert list(shown)[:4] == ["place", "key", "classes", "doubt"]
    assert set(SIGNALS) < set(shown)
    assert rank_doubt([]) == []
