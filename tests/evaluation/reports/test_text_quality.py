"""How good texts are: figures that can be counted by hand."""

import pytest

from evaluation.reports.page import format_report, write_report
from evaluation.reports.text_quality import (
    MAX_TEXTS,
    SceneText,
    distinct,
    measure_texts,
    texts_of,
)
from storage.manifest import ManifestRow
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("lvis1205")
CAT, DOG, BUS, SCHOOL_BUS = (
    VOCABULARY.by_name(name).class_id for name in ("cat", "dog", "bus (vehicle)", "school bus")
)
LONG = "a cat rests on a {} wall in the early light of a quiet autumn morning"


def measure(*texts, classes=(CAT,), writer="w"):
    return measure_texts([SceneText(writer, classes, text) for text in texts], VOCABULARY)[0]


@pytest.mark.parametrize(
    ("texts", "length", "expected"),
    [
        ((), 1, 0.0),
        ((["a", "a", "a", "a"],), 1, 1 / 4),
        ((["a", "b"], ["a", "c"]), 1, 3 / 4),
        ((["a", "b", "c"], ["a", "b", "d"]), 2, 3 / 6),
        ((["a"],), 2, 0.0),
    ],
)
def test_distinct_n_is_different_runs_of_words_by_all_words(texts, length, expected):
    assert distinct(texts, length) == expected


def test_length_and_variety_are_those_of_the_texts():
    found = measure("A cat, a dog.", "a cat sleeps")
    assert (found.num_texts, found.measured) == (2, 2)
    assert (found.mean_words, found.least_words, found.most_words) == (3.5, 3, 4)
    assert found.distinct_1 == 4 / 7  # a, cat, dog, sleeps
    assert found.distinct_2 == 4 / 7  # a cat, cat a, a dog, cat sleeps


def test_nine_of_ten_texts_are_as_long_as_it_says():
    found = measure(*(" ".join(["cat"] * length) for length in range(10, 31)))
    assert (found.least_words, found.most_words) == (12, 28)


def test_texts_that_are_nearly_the_same_are_counted_within_their_classes():
    alike = [LONG.format("red"), LONG.format("red").upper()]
    other = "under the old bridge a small cat looks at the boats that pass in the rain"
    assert measure(*alike, other).near_duplicates == pytest.approx(2 / 3)
    elsewhere = [SceneText("w", (CAT,), alike[0]), SceneText("w", (CAT, DOG), alike[1])]
    assert measure_texts(elsewhere, VOCABULARY)[0].near_duplicates == 0


def test_classes_are_counted_as_mentions_are_found():
    found = measure("a cat and two dogs", "a cat", "a cat-shaped cloud", "a school bus")
    assert found.classes_named == pytest.approx((2 + 1 + 0 + 1) / 4)
    assert found.other_classes == pytest.approx(2 / 4)
    both = measure("a school bus and a bus", classes=(BUS, SCHOOL_BUS))
    assert (both.classes_named, both.other_classes) == (2, 0)


def test_without_a_vocabulary_nobody_knows_which_classes_are_named():
    [found] = measure_texts([SceneText("w", (CAT,), "a cat")], None)
    assert found.classes_named is None
    assert found.cells[-2:] == ("-", "-")


def test_writers_are_measured_apart_and_nothing_gives_nothing():
    texts = [SceneText("b", (CAT,), "a cat"), SceneText("a", (CAT,), "a cat by a wall")]
    assert [(each.writer, each.mean_words) for each in measure_texts(texts, None)] == [
        ("a", 5),
        ("b", 2),
    ]
    assert measure_texts([], VOCABULARY) == ()


def test_of_many_texts_whole_class_sets_from_all_over_are_measured():
    sets = 3 * MAX_TEXTS // 10
    texts = [
        SceneText("w", (number % 7, 7 + number % 5), f"text {number} {index}")
        for number in range(sets)
        for index in range(10)
    ]
    [found] = measure_texts(texts, None)
    assert found.num_texts == 3 * MAX_TEXTS
    assert MAX_TEXTS - 10 <= found.measured <= MAX_TEXTS
    assert found.measured % 10 == 0


def test_a_single_long_class_set_is_measured_in_part():
    texts = [SceneText("w", (CAT,), f"cat {index}") for index in range(MAX_TEXTS + 5)]
    assert measure_texts(texts, None)[0].measured == MAX_TEXTS


def test_texts_of_dropped_samples_count_and_samples_without_text_do_not():
    def row(number, **about):
        fate = {"status": "rejected", "stage": "masks", "reason": "mask-too-small"}
        return ManifestRow(
            key=f"{number:016x}",
            shard="0123abcd-000000",
            index=number,
            seed=0,
            class_ids=(CAT,),
            class_names=("cat",),
            **fate | about,
        )

    rows = [row(0, text="a cat", writer="w"), row(1), row(2, status="written", text="the cat")]
    assert [each.text for each in texts_of(rows)] == ["a cat", "the cat"]


def test_the_report_shows_the_texts(make_dataset, tmp_path):
    root = make_dataset()
    page = write_report(root, [], tmp_path / "r.html").read_text()
    assert "<h4>Texts</h4>" in page
    assert "distinct-2" in page
    assert "## Texts" in format_report(root, [])
