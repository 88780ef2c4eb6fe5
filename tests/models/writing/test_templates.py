import re

import pytest

from models.writing.mentions import find_mentions
from models.writing.templates import TemplateSet, load_templates, template_names
from storage.errors import InputError
from storage.vocabulary import ClassRecord, load_vocabulary


def record(class_id, *forms):
    return ClassRecord(
        class_id=class_id,
        name=forms[0],
        forms=forms,
        detector_phrase=forms[0],
        embedding_phrases=(forms[0],),
        qualifier="",
        frequency="",
    )


CAT = record(0, "cat", "cats")
UMBRELLA = record(1, "umbrella", "umbrellas")
SCISSORS = record(2, "scissors")
UNICYCLE = record(3, "unicycle", "unicycles")
HOURGLASS = record(4, "hourglass", "hourglasses")
BUS = record(5, "bus", "buses")

SMALL = TemplateSet(
    one=("{a} {colour1} {class1}", "{a} {class1}", "{a} {class1}"),
    two=("{a} {colour1} {class1} by {a} {colour2} {class2}",),
    slots={"colour": ("red", "orange")},
)


def one(template, *classes, **slots):
    key = "one" if len(classes) == 1 else "two"
    templates = {"one": ("{class1}",), key: (template,)}
    return TemplateSet(**templates, slots=slots).texts(classes, 1, 0)[0]


@pytest.mark.parametrize("name", template_names())
@pytest.mark.parametrize("classes", [(CAT,), (UMBRELLA, BUS), (SCISSORS, CAT)])
def test_every_shipped_text_names_its_classes_in_order(name, classes):
    for text in load_templates(name).texts(classes, 60, 7):
        mentions = [mention.class_id for mention in find_mentions(text, classes)]
        assert mentions == [record.class_id for record in classes]
        assert "{" not in text
        assert "  " not in text
        assert text == text.strip()


def test_the_rich_set_is_rich():
    rich = load_templates("rich")
    assert len(rich.one) + len(rich.two) >= 60
    assert rich.capacity(1) > 100_000
    assert rich.capacity(2) > 100_000


@pytest.mark.parametrize("name", ["simple", "rich"])
def test_no_phrase_names_a_class_that_was_not_asked_for(name):
    templates = load_templates(name)
    phrases = [re.sub(r"\{.*?\}", "", text) for text in (*templates.one, *templates.two)]
    phrases += [value for values in templates.slots.values() for value in values]
    named = find_mentions(" | ".join(phrases), load_vocabulary("lvis1205").classes)
    assert [" | ".join(phrases)[mention.start : mention.end] for mention in named] == []


def test_a_text_depends_on_the_seed_and_its_place_alone():
    rich = load_templates("rich")
    few, many = rich.texts([CAT], 5, 1), rich.texts([CAT], 50, 1)
    assert many[:5] == few
    assert rich.texts([CAT], 5, 2) != few


def test_texts_are_distinct_until_the_grammar_is_exhausted_and_then_repeat():
    assert SMALL.capacity(1) == 3
    assert SMALL.capacity(2) == 4
    texts = SMALL.texts([CAT], 5, 0)
    assert set(texts[:3]) == {"a red cat", "an orange cat", "a cat"}
    assert set(texts[3:]) <= set(texts[:3])


def test_texts_that_exist_already_are_avoided():
    assert SMALL.texts([CAT], 1, 3, avoid=["a red cat", "a cat"]) == ["an orange cat"]


def test_a_template_that_stands_twice_is_drawn_more_often():
    drawn = [SMALL.texts([CAT], 1, seed)[0] for seed in range(600)]
    assert 350 < drawn.count("a cat") < 450


def test_placeholders_of_one_name_agree_and_numbered_ones_are_drawn_apart():
    texts = {one("{class1}: {colour1} {colour1} {colour2}", CAT, colour=("red",))}
    assert texts == {"cat: red red red"}
    drawn = {tuple(text.split()[1::4]) for text in SMALL.texts([CAT, BUS], 4, 0)}
    assert len(drawn) == 4


@pytest.mark.parametrize(
    ("template", "classes", "text"),
    [
        ("{a} {class1}", (UMBRELLA,), "an umbrella"),
        ("{a} {class1} and {a} {class2}", (UNICYCLE, HOURGLASS), "a unicycle and an hourglass"),
        ("{a} {old1} {class1}", (CAT,), "an old cat"),
        ("{a} {old1} photo of {a} {class1}", (SCISSORS,), "an old photo of scissors"),
        ("{a} {old1} {class1} and {a} {class2}", (SCISSORS, CAT), "old scissors and a cat"),
        ("{a} corner with {class1}", (SCISSORS,), "a corner with scissors"),
    ],
)
def test_articles_follow_the_next_word_and_plurals_have_none(template, classes, text):
    assert one(template, *classes, old=("old",)) == text


def test_two_classes_need_templates_for_two():
    with pytest.raises(InputError, match="no texts with 2 classes"):
        TemplateSet(one=("{class1}",)).texts([CAT, BUS], 1, 0)


def test_a_file_of_ones_own_is_read_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text('one: ["{class1} {when}"]\nslots: {when: [now]}\n')
    assert load_templates(str(path)).texts([CAT], 1, 0) == ["cat now"]


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ("two: ['{class1} {class2}']", ["'one' is missing"]),
        ("one: []", ["one", "at least 1"]),
        ("one: ['{class1} {colour1}']", ["{colour1}", "slots []"]),
        ("one: ['a dog', '{class2}']", ["one[0]", "misses {class1}", "one[1]", "has {class2}"]),
        ("one: ['{class1}']\ntwo: ['{class1}']", ["two[0]", "misses {class2}"]),
        ("one: ['{class1']", ["single brace"]),
        ("one: ['{class1} {x}']\nslots: {x: []}", ["slot 'x' is empty"]),
        ("one: ['{class1} {x}']\nslots: {x: [[1]]}", ["slots.x.0"]),
        ("one: ['{class1}']\nthree: []", ["three"]),
        ("one: [", ["is not YAML"]),
        ("", ["expected a mapping"]),
    ],
)
def test_a_faulty_file_is_refused_with_every_fault_named(tmp_path, contents, words):
    path = tmp_path / "faulty.yaml"
    path.write_text(contents)
    with pytest.raises(InputError) as caught:
        load_templates(str(path))
    for word in [*words, "faulty.yaml"]:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["richest", "nowhere/templates.yaml"])
def test_an_unknown_set_is_refused(name):
    with pytest.raises(InputError, match=name):
        load_templates(name)
