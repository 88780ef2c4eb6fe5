from models.protocols import TextRequest
from models.writing.instructions import chat_messages
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("lvis1205")


def message(*names, avoid=(), count=7):
    classes = tuple(VOCABULARY.by_name(name) for name in names)
    return chat_messages(TextRequest(classes, count, 0, avoid=avoid), count)[-1]["content"]


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
