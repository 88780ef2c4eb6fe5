import unicodedata

import numpy as np
import pytest

from models.writing.mentions import counterfactual_text, find_mentions
from storage.records import Mention
from storage.vocabulary import ClassRecord, load_vocabulary


def record(class_id, name, *forms):
    return ClassRecord(
        class_id=class_id,
        name=name,
        forms=forms,
        detector_phrase=forms[0],
        embedding_phrases=(forms[0],),
        qualifier="",
        frequency="",
    )


BUS = record(0, "bus (vehicle)", "bus", "buses")
SCHOOL_BUS = record(1, "school bus", "school bus", "school buses")
AIRPLANE = record(2, "airplane", "airplane", "airplanes", "aeroplane", "aeroplanes")
BOW = record(3, "bow (weapon)", "bow", "bows")
RIBBON = record(4, "bow (decorative ribbons)", "bow", "bows")
OX = record(5, "ox", "ox", "oxen")
CAT = record(6, "cat", "cat", "cats")
PEPPER = record(7, "jalapeno", "jalapeno", "jalapenos")
BALLOON = record(8, "hot-air balloon", "hot-air balloon", "hot-air balloons")
HIGH_SCHOOL = record(9, "high school", "high school")
EYE = record(10, "bull's eye", "bull's eye")
PLAYER = record(11, "CD player", "CD player", "CD players")
ORANGE = record(12, "orange (fruit)", "orange", "oranges")


def found(text, *classes):
    return [(m.class_id, text[m.start : m.end]) for m in find_mentions(text, classes)]


def without(text, *classes, rule="nothing"):
    return counterfactual_text(text, find_mentions(text, classes), rule=rule)


@pytest.mark.parametrize(
    ("text", "classes", "mentions"),
    [
        ("A bus, two Buses and a BUS.", [BUS], ["bus", "Buses", "BUS"]),
        ("an ox and a team of oxen", [OX], ["ox", "oxen"]),
        ("an aeroplane near other airplanes", [AIRPLANE], ["aeroplane", "airplanes"]),
        ("the archer's bow gleams", [BOW], ["bow"]),
        ("a rainbow, a bowl, an elbow", [BOW], []),
        ("a cat-shaped cushion, a scaredy-cat", [CAT], []),
        ("a cat--a grey one--sleeps", [CAT], ["cat"]),
        ("the bus's door", [BUS], ["bus"]),
        (
            "a hot air balloon, a hot-air  balloon",
            [BALLOON],
            ["hot air balloon", "hot-air  balloon"],
        ),
        ("the bull\u2019s eye", [EYE], ["bull\u2019s eye"]),
        ("\u201ccat\u201d (cat) cat_1 catty", [CAT], ["cat", "cat"]),
        ("", [CAT], []),
    ],
)
def test_whole_words_in_any_form_and_capitals_are_mentions(text, classes, mentions):
    assert [word for _, word in found(text, *classes)] == mentions


def test_a_class_inside_another_is_not_mentioned_when_both_are_asked_for():
    assert found("a school bus by a bus", BUS, SCHOOL_BUS) == [(1, "school bus"), (0, "bus")]
    assert found("a school bus", BUS, SCHOOL_BUS) == [(1, "school bus")]


def test_a_class_inside_a_compound_is_mentioned_when_only_it_is_asked_for():
    assert found("a yellow school bus", BUS) == [(0, "bus")]


def test_the_longest_form_wins_wherever_it_begins():
    assert found("the high school buses", HIGH_SCHOOL, SCHOOL_BUS) == [(1, "school buses")]


def test_classes_that_share_a_form_share_its_mentions():
    assert found("a bow and a bow", BOW, RIBBON) == [(3, "bow"), (4, "bow")]
    assert found("a bow and a bow", RIBBON, BOW) == [(4, "bow"), (3, "bow")]
    assert found("one bow", BOW, RIBBON) == [(3, "bow")]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_offsets_refer_to_the_text_as_given_with_accents_composed_or_not(form):
    text = unicodedata.normalize(form, "caf\u00e9: \u0130ce, jalape\u00f1os, \ud55c")
    word = unicodedata.normalize(form, "jalape\u00f1os")
    assert found(text, PEPPER) == [(7, word)]
    assert "caf" in without(text, PEPPER)
    assert "nothing," in without(text, PEPPER)


@pytest.mark.parametrize(
    ("text", "classes", "expected"),
    [
        ("a yellow school bus", [BUS], "a yellow school nothing"),
        ("a yellow school bus and a bus", [BUS, SCHOOL_BUS], "a yellow nothing and a nothing"),
        ("an airplane over an old airplane", [AIRPLANE], "a nothing over an old nothing"),
        ("An airplane lands.", [AIRPLANE], "A nothing lands."),
        ("Airplanes fly. Cats stare.", [AIRPLANE, CAT], "Nothing fly. Nothing stare."),
        ('"Airplanes," he said', [AIRPLANE], '"Nothing," he said'),
        ("on a CD player", [PLAYER], "on a nothing"),
        ("six oxen and a cat", [OX, CAT], "six nothing and a nothing"),
        ("the bus's door, the buses' doors", [BUS], "the nothing's door, the nothing's doors"),
        ("the 'red buses' here", [BUS], "the 'red nothing' here"),
        ("an orange orange", [ORANGE], "a nothing nothing"),
        ("an \u201cox\u201d in a van ox", [OX], "a \u201cnothing\u201d in a van nothing"),
        ("than airplanes", [AIRPLANE], "than nothing"),
    ],
)
def test_the_word_nothing_stands_for_each_mention(text, classes, expected):
    assert without(text, *classes) == expected


@pytest.mark.parametrize(
    ("text", "classes", "expected"),
    [
        ("a bus on the road", [BUS], "on the road"),
        ("The bus waits.", [BUS], "Waits."),
        ("Rain falls. A bus, red, waits.", [BUS], "Rain falls. Red, waits."),
        ("snow, a cat, ice", [CAT], "snow, ice"),
        ("a red bus on the road", [BUS], "a red on the road"),
        ("in front of the bus.", [BUS], "in front of."),
        ("two cats and three oxen rest", [CAT, OX], "and rest"),
        ("the cat's bowl and the cats' bed", [CAT], "bowl and bed"),
        ('grass (a cat) and "the ox" too', [CAT, OX], "grass and too"),
        ("grass (a cat asleep)...", [CAT], "grass (asleep)..."),
        ("A bus.", [BUS], ""),
        ("cat", [CAT], ""),
        ("well... a cat", [CAT], "well..."),
    ],
)
def test_a_removed_mention_takes_its_determiner_along(text, classes, expected):
    assert without(text, *classes, rule="remove") == expected


@pytest.mark.parametrize("rule", ["nothing", "remove"])
def test_no_class_survives_in_a_counterfactual_text_and_other_words_do(rule):
    classes = [BUS, SCHOOL_BUS, AIRPLANE, OX, CAT, ORANGE]
    forms = [form for entry in classes for form in entry.forms]
    for seed in range(300):
        rng = np.random.default_rng(seed)
        words = rng.choice([*forms, "grey", "hills", "an", "near", "it's"], rng.integers(1, 12))
        text = "".join(word + rng.choice([" ", ", ", ". ", " (", ") ", "' "]) for word in words)
        result = without(text, *classes, rule=rule)
        assert find_mentions(result, classes) == ()
        for word in ("grey", "hills", "near"):
            assert result.lower().count(word) == text.count(word)


@pytest.mark.parametrize("spans", [[(0, 9)], [(2, 3), (0, 1)], [(0, 2), (1, 3)], [(1, 1)]])
def test_mentions_that_do_not_fit_the_text_are_refused(spans):
    mentions = [Mention(class_id=0, start=start, end=end) for start, end in spans]
    with pytest.raises(ValueError, match="do not lie in order"):
        counterfactual_text("a cat", mentions)


@pytest.mark.parametrize(
    ("names", "text", "words", "expected"),
    [
        (["bow (weapon)"], "an archer's bow", ["bow"], "an archer's nothing"),
        (
            ["bow (weapon)", "bow (decorative ribbons)"],
            "a bow with a bow",
            ["bow", "bow"],
            "a nothing with a nothing",
        ),
        (
            ["bus (vehicle)", "school bus"],
            "School buses pass an autobus.",
            ["School buses", "autobus"],
            "Nothing pass a nothing.",
        ),
        (["bus (vehicle)"], "a yellow school bus", ["bus"], "a yellow school nothing"),
        (["bull"], "bulls pull a cart", ["bulls"], "nothing pull a cart"),
        (["mouse (computer equipment)"], "three mice", ["mice"], "three nothing"),
        (["person"], "Children and a woman", ["Children", "woman"], "Nothing and a nothing"),
        (["knife", "steak knife"], "knives, steak knives", ["knives", "steak knives"], None),
        (["scissors"], "a pair of scissors", ["scissors"], "a pair of nothing"),
        (["flip-flop (sandal)"], "wet flip flops", ["flip flops"], "wet nothing"),
        (["Ferris wheel"], "a ferris wheel", ["ferris wheel"], "a nothing"),
        (["doughnut"], "an iced donut", ["donut"], "an iced nothing"),
    ],
)
def test_real_classes_are_found_and_taken_out(names, text, words, expected):
    vocabulary = load_vocabulary("lvis1205")
    classes = [vocabulary.by_name(name) for name in names]
    assert [word for _, word in found(text, *classes)] == words
    assert without(text, *classes) == (expected or "nothing, nothing")


def test_every_form_of_the_vocabulary_is_a_mention_of_its_class():
    for entry in load_vocabulary("lvis1205"):
        for form in entry.forms:
            assert found(f"See the {form}'s colour!", entry) == [(entry.class_id, form)]
