import pytest

from models.protocols import TextRequest
from models.writing.instruction_sets import load_instructions
from models.writing.instructions import read_texts
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("lvis1205")


def message(*names, avoid=(), count=7):
    classes = tuple(VOCABULARY.by_name(name) for name in names)
    request = TextRequest(classes, count, 0, avoid=avoid)
    return load_instructions("paper").messages(request, count)[-1]["content"]


def test_the_message_names_count_classes_and_their_words():
    text = message("cat", "bull")
    assert "Write 7 captions" in text
    assert '"cat" or "cats"' in text
    assert "each object" in text


def test_a_qualifier_is_explained_and_never_written_in_parentheses():
    for record in VOCABULARY:
        text = message(record.name)
        assert f'"{record.forms[0]}"' in text
        assert not record.qualifier or f"in the sense of: {record.qualifier}" in text
        assert not record.qualifier or f"({record.qualifier})" not in text


def test_only_the_latest_texts_to_avoid_are_named():
    text = message("cat", avoid=tuple(f"cat number {index}." for index in range(30)))
    assert "cat number 29." in text
    assert "cat number 10." in text
    assert "cat number 9." not in text


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('{"texts": []}', []),
        ('{"texts":["a","b"]}', ["a", "b"]),
        ('{"texts": ["a\\nb", "\\u00e9"', ["a\nb", "\u00e9"]),
        ('{"texts": ["a", 3, "b"]}', ["a"]),
        ('{"texts": ["bad \\x escape"]}', []),
        ('{"texts": "a"}', None),
        ("", None),
    ],
)
def test_whole_texts_are_read_and_nothing_else(content, texts):
    assert read_texts(content) == texts
