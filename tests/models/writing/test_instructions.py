from pathlib import Path

import pytest
import yaml

import models
from models.protocols import TextRequest
from models.writing.calls import cut_calls
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from models.writing.instructions import instruction_names, load_instructions
from storage.errors import InputError
from storage.identity import digest
from storage.ledger import Ledger
from storage.objects import open_objects
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("lvis1205")
CAT = VOCABULARY.by_name("cat")
BOW = VOCABULARY.by_name("bow (weapon)")

SHORT = {
    "system": 'Answer with JSON: {"texts": ["..."]}',
    "request": "{count} captions of",
    "item": "* {forms}{sense}",
    "sense": " ({qualifier})",
    "rules": ["Name {each}.", "{least}-{most} words."],
    "avoid": "Not like these:",
    "words": [5, 9],
    "one": {"each": "it"},
    "two": {"each": "them both"},
}


@pytest.fixture
def write(tmp_path):
    """A file of instructions; what is None is left out."""

    def write_(name="mine.yaml", **changes):
        document = {k: v for k, v in (SHORT | changes).items() if v is not None}
        file = tmp_path / name
        file.write_text(yaml.safe_dump(document))
        return str(file)

    return write_


def test_the_requests_of_the_default_are_those_of_earlier_versions():
    requests = [
        TextRequest((CAT,), 10, 7),
        TextRequest((BOW, CAT), 23, 7, 1, ("a cat {x}", "b")),
    ]
    config = ChatWriterConfig(model="m")
    assert [call.key[:16] for call in cut_calls(config, requests)] == [
        "20dc454c7531409d",
        "931685fb412f4f23",
        "f4031d2c039989a2",
        "3393ef601673f7eb",
    ]
    assert digest(config.identity())[:16] == "e36bb96d3d695dfe"


def test_a_file_of_ones_own_puts_the_request_into_its_words(write):
    own = load_instructions(write())
    system, user = own.messages(TextRequest((BOW, CAT), 3, 0, avoid=("a {count} cat",)), 3)
    assert system == {"role": "system", "content": SHORT["system"]}
    assert user["content"].splitlines() == [
        "3 captions of",
        '* "bow" or "bows" (weapon)',
        '* "cat" or "cats"',
        "Rules:",
        "1. Name them both.",
        "2. 5-9 words.",
        "Not like these:",
        "- a {count} cat",
    ]
    [_, user] = own.messages(TextRequest((CAT,), 3, 0), 3)
    assert "1. Name it." in user["content"]


def test_texts_depend_on_the_contents_of_a_file_and_not_on_its_name(write):
    def identity(name):
        return ChatWriterConfig(model="m", instructions=name).identity()

    first, second = write("first.yaml"), write("second.yaml")
    assert identity(first) == identity(second)
    assert identity(first) != identity("paper")
    assert identity(write("third.yaml", words=[5, 10])) != identity(first)


def test_a_copy_of_the_default_is_the_default(tmp_path):
    shipped = Path(models.__path__[0]) / "data" / "instructions" / "paper.yaml"
    copy = tmp_path / "copy.yaml"
    copy.write_bytes(shipped.read_bytes())
    config = ChatWriterConfig(model="m", instructions=str(copy))
    assert config.identity() == ChatWriterConfig(model="m").identity()
    requests = [TextRequest((CAT,), 2, 0)]
    assert cut_calls(config, requests) == cut_calls(ChatWriterConfig(model="m"), requests)


def test_every_fault_of_a_file_is_named_at_once(write):
    file = write(
        system="Write what is asked",
        request="Some captions of {word}",
        item="- {sense}",
        rules=["Name {EACH}."],
        words=[9, 5],
        one={"each": "it", "count": "x"},
        two={"count": "x"},
    )
    with pytest.raises(InputError) as error:
        load_instructions(file)
    message = str(error.value)
    for words in (
        "mine.yaml",
        "request has {word}, expected {count}, {least}, {most}",
        "request misses {count}",
        "item names no class",
        "rules[0] has {EACH}",
        "words is [9, 5]",
        "one has 'each' and two does not",
        "one has 'count'",
        '{"texts": ["..."]}',
    ):
        assert words in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"words": None}, "words"),
        ({"rules": "be short"}, "rules"),
        ({"ruels": ["x"]}, "rules"),
        ({"words": [0, 9]}, "words is [0, 9]"),
        ({"system": ""}, "system"),
    ],
)
def test_a_faulty_file_is_refused_before_anything_is_asked(write, tmp_path, changes, words):
    config = ChatWriterConfig(model="m", api_key_env=None, instructions=write(**changes))
    for use in (
        config.identity,
        config.check,
        lambda: ChatWriter(config, Ledger(open_objects(tmp_path))),
    ):
        with pytest.raises(InputError) as error:
            use()
        assert words in str(error.value)


def test_an_unknown_set_is_refused_with_the_names_of_those_that_are_there():
    with pytest.raises(InputError) as error:
        load_instructions("papre")
    assert "paper" in str(error.value)
    with pytest.raises(InputError, match=r"none\.yaml"):
        load_instructions("none.yaml")


@pytest.mark.parametrize("name", instruction_names())
def test_the_shipped_sets_are_whole(name):
    [system, user] = load_instructions(name).messages(TextRequest((CAT, BOW), 4, 0), 4)
    assert "JSON" in system["content"]
    assert "{" not in user["content"]


def test_the_model_is_asked_in_the_words_of_the_file(write, chat_server, tmp_path):
    config = ChatWriterConfig(
        model="small", base_url=chat_server.url, api_key_env=None, instructions=write()
    )
    chat_server.queue = [chat_server.completion(["a cat here", "a cat there"])]
    ledger = Ledger(open_objects(tmp_path))
    [answer] = ChatWriter(config, ledger).write([TextRequest((CAT,), 2, 0)])
    assert answer.texts == ("a cat here", "a cat there")
    [body] = chat_server.requests
    assert body["messages"][0]["content"] == SHORT["system"]
    assert ledger.find(cut_calls(config, [TextRequest((CAT,), 2, 0)])[0].key) is not None


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
