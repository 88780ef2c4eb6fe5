"""Acts that are taken back: what was before them holds again, and what came after them stays."""

from datetime import UTC, datetime

import pytest

from storage.exclusions import Exclusion, latest
from storage.marks import Mark, Marked, current_marks
from storage.taken_back import taken_back_exclusions, taken_back_marks

AT = datetime(2026, 1, 2, tzinfo=UTC)


def said(words):
    """Lines of one act, of words such as ``+a`` (left out), ``-a`` (taken in), ``~a`` (a judge)."""
    return [
        Exclusion(
            key=word[1:],
            act="include" if word[0] == "-" else "exclude",
            by="noise-learning" if word[0] == "~" else "hand",
            who="ann",
            at=AT,
            why=f"because {word}",
            score=0.25 if word[0] == "~" else None,
        )
        for word in words.split()
    ]


def marked(words):
    """Lines of one act: ``+a`` flags, ``-a`` takes the flag back, ``a=x`` notes."""
    kinds = {"+": "flag", "-": "unflag"}
    found = []
    for word in words.split():
        key, _, text = word.partition("=")
        act = kinds.get(word[0], "note")
        name = key if act == "note" else key[1:]
        found.append(Mark(key=name, act=act, text=text, who="ann", at=AT))
    return found


@pytest.mark.parametrize(
    ("history", "undone", "expected"),
    [
        (["+a +b"], 0, "-a -b"),
        (["+a", "+b"], 1, "-b"),
        (["-a"], 0, ""),  # it was in before
        (["+a", "-a"], 1, "+a"),
        (["~a", "-a"], 1, "~a"),  # the judge's word, with its score
        (["~a", "+a"], 1, "~a"),
        (["+a +b +c", "-b", "+c"], 0, "-a"),  # others have spoken since
        (["+a +b", "-a -b"], 0, ""),
    ],
)
def test_an_act_of_exclusions_is_taken_back(history, undone, expected):
    acts = {str(number): said(words) for number, words in enumerate(history)}
    lines = taken_back_exclusions(acts, str(undone), who="bob")
    assert [(each.key, each.act, each.by, each.score) for each in lines] == [
        (each.key, each.act, each.by, each.score) for each in said(expected)
    ]
    assert {each.who for each in lines} <= {"bob"}
    before = latest([line for each in list(acts)[:undone] for line in acts[each]])
    for line in lines:  # for their old reasons
        assert line.act == "include" or line.why == before[line.key].why


@pytest.mark.parametrize(
    ("history", "undone", "expected"),
    [
        (["+a +b"], 0, "-a -b"),
        (["+a", "+a"], 1, ""),  # it was flagged before
        (["+a", "-a"], 1, "+a"),
        (["-a"], 0, ""),
        (["a=dark"], 0, "a="),
        (["a=dark", "a=bright"], 1, "a=dark"),
        (["+a a=dark"], 0, "-a a="),
        (["+a", "a=dark"], 0, "-a"),  # a note says nothing of the flag
        (["+a +b", "-a", "+a"], 0, "-b"),
    ],
)
def test_an_act_of_marks_is_taken_back(history, undone, expected):
    acts = {str(number): marked(words) for number, words in enumerate(history)}
    lines = taken_back_marks(acts, str(undone), who="bob")
    assert [(each.key, each.act, each.text) for each in lines] == [
        (each.key, each.act, each.text) for each in marked(expected)
    ]


def test_one_act_after_the_other_is_taken_back():
    acts = {"1": marked("+a +b"), "2": marked("-a -b")}
    acts["3"] = taken_back_marks(acts, "2", who="bob")
    assert set(current_marks(line for each in acts.values() for line in each).values()) == {
        Marked(flagged=True)
    }
    assert taken_back_marks(acts, "1", who="bob") == []  # somebody flagged them again, it seems
    acts["4"] = marked("+b")
    lines = taken_back_marks(acts, "1", who="bob", settled={"2": "3"})
    assert [(line.key, line.act) for line in lines] == [("a", "unflag")]


def test_what_was_not_taken_back_still_counts():
    acts = {"1": said("+a +b"), "2": said("-a -b"), "3": said("-a")}
    acts["4"] = taken_back_exclusions(acts, "2", who="bob")  # of b alone: a was spoken of since
    assert [line.key for line in acts["4"]] == ["b"]
    lines = taken_back_exclusions(acts, "1", who="bob", settled={"2": "4"})
    assert [(line.key, line.act) for line in lines] == [("b", "include")]
