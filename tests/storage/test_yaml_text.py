"""What people write without quotes is what they see, and no text harms the reader."""

import copy
import json
import math
import pickle
import random
import subprocess
import sys

import pytest
import yaml
from pydantic import BaseModel

from storage.errors import InputError
from storage.yaml_text import MAX_DEPTH, MAX_VALUES, parse_value, parse_yaml, spelling

TEXTS = ["no", "off", "on", "yes", "y", "N", "10:20", "12:30:45", "2024-01-01", "1_000", "0b1", "="]
"""Values of other types in YAML 1.1, texts in YAML 1.2."""

VALUES = {
    "9": 9,
    "010": 10,
    "-7": -7,
    "+7": 7,
    "0o17": 15,
    "0x1f": 31,
    "1e3": 1000.0,
    "1e-3": 0.001,
    ".5": 0.5,
    "5.": 5.0,
    "-.inf": -math.inf,
    "true": True,
    "FALSE": False,
    "~": None,
    "null": None,
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_version_1_1_takes_for_something_else_stays_text(text):
    assert parse_yaml(f"a: {text}", "x") == {"a": text}
    assert parse_value(text, "x") == text


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_numbers_truth_values_and_nothing_are_those_of_the_core_schema(text, value):
    for read in (parse_yaml(f"[{text}]", "x")[0], parse_value(text, "x")):
        assert read == value
        assert isinstance(read, type(value))
    assert parse_yaml(f"'{text}'", "x") == parse_value(f"'{text}'", "x") == text


@pytest.mark.parametrize("text", ["010", "0x1f", "1e3", "+7", "5.", "1.50", "9", "0.5"])
def test_a_number_remembers_how_it_was_spelt_in_copies_and_other_processes_too(text):
    value = parse_value(text, "x")
    assert spelling(value) == text
    assert spelling(copy.deepcopy(value)) == text
    assert spelling(pickle.loads(pickle.dumps(value))) == text  # noqa: S301
    assert json.loads(json.dumps(value)) == value


def test_any_text_that_is_quoted_comes_back_and_any_number_keeps_its_spelling():
    rng = random.Random(5)  # noqa: S311
    alphabet = "abno0123456789.:-+_~#'\"{}[]&*!|>%@` \té誤\U0001f431"
    for _ in range(2000):
        text = "".join(rng.choices(alphabet, k=rng.randrange(12)))
        assert parse_yaml(json.dumps(text, ensure_ascii=False), "x") == text
        assert parse_yaml(yaml.safe_dump([text], allow_unicode=True), "x") == [text]
        plain = text.strip()
        if plain and plain[0] not in "[{'\"":
            value = parse_value(text, "x")
            assert value is None or isinstance(value, bool | str) or spelling(value) == plain


def test_what_pyyaml_writes_is_read_as_it_was():
    rng = random.Random(6)  # noqa: S311

    def made(depth):
        kinds = [None, True, False, rng.randrange(-99, 99), rng.random() * 10 ** rng.randrange(9)]
        kinds += [rng.choice([*TEXTS, "true", "null", "9", "0x1f"])]
        if depth:
            kinds += [[made(depth - 1) for _ in range(3)], {f"k{i}": made(depth - 1) for i in "ab"}]
        return rng.choice(kinds)

    for _ in range(300):
        document = {"x": made(3)}
        for flow in (True, False):
            assert parse_yaml(yaml.safe_dump(document, default_flow_style=flow), "x") == document


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "key 'a' stands there twice, keep one of them (line 3, column 1)"),
        ("x: {a: 1, 'a': 2}", "key 'a' stands there twice"),
        ("1: x\n'1': y", "key '1' stands there twice"),
        ("? [1]\n: 2", "a key is not a text (line 1"),
        ("a: &a [*a]", "*a stands for nothing that is whole before it"),
        ("a: !!python/name:os.system x", "python/name:os.system means nothing"),
        ("a: !!bool no", "'no' with the tag"),
        ("a: !!set {b}", "is unknown"),
        ("a: 1\n---\nb: 2", "a second document begins"),
        ("a: {<<: 3}", "<< wants a mapping"),
        ("a: \x00", "unacceptable character"),
        ("a: [", "did not find"),
        ("a: " + "9" * 5000, "4300 digits"),
    ],
)
def test_what_means_nothing_is_refused_with_its_place(text, words):
    with pytest.raises(InputError, match="my file is not YAML") as caught:
        parse_yaml(text, "my file")
    assert words in str(caught.value)


def test_a_document_that_lies_deep_in_itself_is_refused_and_kills_nobody():
    deep = f"[{'[' * MAX_DEPTH}]"
    with pytest.raises(InputError, match=f"more than {MAX_DEPTH} lists and mappings"):
        parse_yaml(deep, "x")
    code = (
        "from storage.errors import InputError; from storage.yaml_text import parse_yaml\n"
        "for sign in ('[', '{a: ', '- ', '? '):\n"
        "    try: parse_yaml(sign * 100_000, 'x')\n"
        "    except InputError as error: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["refused"] * 4)


def test_aliases_of_aliases_are_refused_before_they_fill_the_memory():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for last, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]")
    with pytest.raises(InputError, match=f"more than {MAX_VALUES} values"):
        parse_yaml("\n".join(lines), "x")


def test_an_alias_is_a_copy_and_a_merged_mapping_gives_way_to_its_keys():
    document = parse_yaml("a: &a {b: 1, c: 2}\nd: *a\ne: {b: 3, <<: *a}", "x")
    assert document == {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 2}, "e": {"b": 3, "c": 2}}
    document["d"]["b"] = 9
    assert document["a"]["b"] == 1


@pytest.mark.parametrize(
    "text", ["#1", "a: b", "bow # weapon", "@x", "*x", "- x", "cat, dog", "%x"]
)
def test_a_single_value_of_a_command_line_is_taken_as_it_stands(text):
    assert parse_value(text, "x") == text


def test_lists_and_mappings_of_a_command_line_are_yaml():
    assert parse_value("[1, no, 010]", "x") == [1, "no", 10]
    assert parse_value("{a: 1}", "x") == {"a": 1}
    assert parse_value("", "x") is None
    for text in ("[1", "{a", "'a", "{a: 1, a: 2}"):
        with pytest.raises(InputError, match=r"^my value is not YAML"):
            parse_value(text, "my value")


def test_a_field_for_numbers_takes_a_number_however_it_is_spelt():
    class Sizes(BaseModel):
        whole: int
        real: float
        free: dict[str, object]

    sizes = Sizes.model_validate(parse_yaml("{whole: 1e3, real: 010, free: {a: 0x10}}", "x"))
    assert (type(sizes.whole), sizes.whole, type(sizes.real), sizes.real) == (int, 1000, float, 10)
    assert sizes.model_dump(mode="json") == {"whole": 1000, "real": 10.0, "free": {"a": 16}}
