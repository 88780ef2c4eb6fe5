"""What holds for the mentions of any text."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.writing.mentions import ClassFinder, counterfactual_text, find_mentions
from storage.vocabulary import load_vocabulary

LVIS = load_vocabulary("lvis1205")
CLASSES = st.lists(st.sampled_from(LVIS.classes), min_size=1, max_size=3, unique=True)
FILLERS = st.sampled_from(
    ["a", "An", "the", "two", "red", "on", "beside", "of", "It is", "and", "É", "caf\u00e9"]
)
SEPARATORS = st.sampled_from([" ", " ", " ", ", ", ". ", " - ", "-", " '", "' ", "'s ", "  ", ""])


@st.composite
def sentences(draw):
    """Classes, and a text that is likely to name some of them, in odd surroundings."""
    classes = draw(CLASSES)
    forms = st.sampled_from([form for record in classes for form in record.forms])
    capitals = st.sampled_from([str, str.upper, str.capitalize])
    words = draw(st.lists(FILLERS | st.builds(lambda f, c: c(f), forms, capitals), max_size=8))
    return classes, "".join(word + draw(SEPARATORS) for word in words)


def names(mention, text, classes):
    """Whether a span, looked at alone, names its class."""
    record = next(each for each in classes if each.class_id == mention.class_id)
    own = text[mention.start : mention.end]
    return find_mentions(own, [record])


@given(sentences())
def test_spans_point_at_what_they_name_and_never_overlap(case):
    classes, text = case
    mentions = find_mentions(text, classes)
    for mention in mentions:
        (alone,) = names(mention, text, classes)
        assert (alone.start, alone.end) == (0, mention.end - mention.start)
    edges = [edge for mention in mentions for edge in (mention.start, mention.end)]
    assert edges == sorted(edges)


@given(sentences())
def test_a_whole_vocabulary_is_searched_as_a_few_classes_are(case):
    classes, text = case
    expected = {mention.class_id for mention in find_mentions(text, classes)}
    assert ClassFinder(classes).named(text) == expected


@given(st.text(string.printable + "\u0301\u00e9\u2019\u2010", max_size=40), CLASSES)
def test_any_text_has_mentions_inside_it(text, classes):
    for mention in find_mentions(text, classes):
        assert 0 <= mention.start < mention.end <= len(text)
    counterfactual_text(text, find_mentions(text, classes))


@pytest.mark.parametrize("rule", ["nothing", "remove"])
@given(case=sentences())
def test_the_counterfactual_mentions_nothing_and_stays_what_it_is(rule, case):
    classes, text = case
    without = counterfactual_text(text, find_mentions(text, classes), rule=rule)
    assert find_mentions(without, classes) == ()
    assert counterfactual_text(without, (), rule=rule) == without
