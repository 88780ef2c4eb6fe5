import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.writing.text_lists import find_texts

ONE, TWO = "a cat sits on the red mat today", "a dog runs by the old harbour wall"
BOTH = [ONE, TWO]
PLAIN = json.dumps({"texts": BOTH})


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        json.dumps(BOTH),
        json.dumps({"captions": BOTH}),
        json.dumps({"result": {"data": {"texts": BOTH}}}),
        json.dumps([{"caption": text, "objects": ["cat", "tree"]} for text in BOTH]),
        json.dumps({"items": [{"text": text} for text in BOTH], "note": "two captions for you"}),
        json.dumps({"1": ONE, "2": TWO}),
        json.dumps({"indoor": [ONE], "outdoor": [TWO]}),
        json.dumps(json.dumps({"texts": BOTH})),
        json.dumps({"texts": json.dumps(BOTH)}),
        f"```json\n{PLAIN}\n```",
        f"```\n{json.dumps(BOTH, indent=2)}\n```\nI hope that these help!",
        f'The form is {{"texts": ["..."]}}. Here are mine: {PLAIN} Enjoy.',
        "\n".join(json.dumps({"text": text}) for text in BOTH),
        json.dumps({"description": "Some captions as you asked", "captions": BOTH}),
    ],
)
def test_whole_json_of_any_shape_gives_its_texts(content):
    found = find_texts(content)
    assert (list(found.texts), found.form) == (BOTH, "json")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('{"texts": ["a cat\\\'s \\- mat", "a dog"]}', ["a cat's - mat", "a dog"]),
        ('{"texts": ["a cat \\u12 here", "a dog \\u00e9"]}', ["a cat u12 here", "a dog \u00e9"]),
        ('{"texts": ["a cat", "a dog",]}', ["a cat", "a dog"]),
        ('{"texts": ["a cat" "a dog"', ["a cat", "a dog"]),
        ('{"texts": ["a cat named "Tom" sits", "a dog"]}', ['a cat named "Tom" sits', "a dog"]),
        ('{"texts": ["a cat \\u00e9", "a \\"cat\\"", "a c', ["a cat \u00e9", 'a "cat"']),
        ('[{"text": "a \\- cat"}, {"text": "the dog"}]', ["a - cat", "the dog"]),
        ('[{"text": "a cat"}, {"text": "a dog"}, {"te', ["a cat", "a dog"]),
        (str({"texts": ["a cat's mat", "a dog"]}), ["a cat's mat", "a dog"]),
        ("{\u201ctexts\u201d: [\u201ca cat\u201d, \u201ca dog\u201d]}", ["a cat", "a dog"]),
        ('{"texts": ["a bad \\x escape"], "meta": {"note": "two words"}}', ["a bad x escape"]),
    ],
)
def test_a_fault_in_one_text_costs_none_of_the_others(content, texts):
    assert list(find_texts(content).texts)[: len(texts)] == texts


@pytest.mark.parametrize(
    "content",
    [
        f"1. {ONE}\n2. {TWO}",
        f"1) {ONE}\n\n2) {TWO}\n",
        f'Here are two captions:\n- "{ONE}"\n- "{TWO}"',
        f"**Caption 1:** {ONE}\n**Caption 2:** {TWO}",
        f"* {ONE}\n* {TWO}\n\nLet me know if you want more!",
        f"Sure! Here you are:\n{ONE}\n{TWO}",
        f"texts:\n  - {ONE}\n  - {TWO}",
    ],
)
def test_one_text_a_line_is_read_without_its_marks(content):
    found = find_texts(content)
    assert (list(found.texts), found.form) == (BOTH, "lines")


def test_the_last_line_of_an_answer_that_was_cut_off_is_only_a_part():
    assert list(find_texts(f"1. {ONE}\n2. a dog runs by", cut_off=True).texts) == [ONE]


@pytest.mark.parametrize(
    "content", ["", "   ", '{"texts": []}', "Sure! Here you are: cats.", '{"n": 1}', "```\n```"]
)
def test_what_holds_no_texts_gives_none(content):
    assert find_texts(content).form == "nothing"


@given(st.lists(st.text(st.characters(codec="utf-8", categories=["L"]), min_size=1), min_size=1))
def test_any_texts_come_back_as_they_were(texts):
    assert list(find_texts(json.dumps({"texts": texts})).texts) == texts


@given(st.text(alphabet='{}[]",:\\\'a1 \n-*`"tu', max_size=60))
def test_no_content_is_an_error(content):
    assert all(isinstance(text, str) for text in find_texts(content).texts)
