"""What people write must be read, or refused in words that help."""

import os
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from storage.documents import (
    MAX_BYTES,
    read_assignments,
    read_yaml,
    split_assignment,
    suggest,
    validate,
)
from storage.errors import InputError


class Cat(BaseModel, extra="forbid"):
    kind: Literal["cat"] = "cat"
    lives: int = Field(9, ge=1)


class Dog(BaseModel, extra="forbid"):
    kind: Literal["dog"] = "dog"
    tricks: int = 0

    @field_validator("tricks")
    @classmethod
    def _even(cls, value):
        if value % 2:
            message = "expected an even number"
            raise ValueError(message)
        return value


class Person(BaseModel, extra="forbid"):
    kind: Literal["person"] = "person"
    name: str


class House(BaseModel, extra="forbid"):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    guest: Cat | None = None
    rooms: int = 1


def test_a_document_becomes_a_model():
    house = validate(House, {"pet": {"kind": "dog", "tricks": 2}, "rooms": 3}, "house")
    assert house == House(pet=Dog(tricks=2), rooms=3)


def test_an_unknown_key_is_named_with_its_neighbours():
    with pytest.raises(InputError) as caught:
        validate(House, {"pet": {"kind": "cat"}, "room": 3}, "house.yaml")
    assert str(caught.value) == (
        "house.yaml: unknown key 'room'; did you mean rooms? known: guest, pet, rooms"
    )


def test_an_unknown_key_inside_a_union_is_named_as_it_stands_in_the_document():
    with pytest.raises(InputError, match=r"unknown key 'pet\.trick'; did you mean tricks\?"):
        validate(House, {"pet": {"kind": "dog", "trick": 2}}, "house")
    with pytest.raises(InputError, match=r"unknown key 'pet\.tricks'; known: kind, lives"):
        validate(House, {"pet": {"kind": "cat", "tricks": 2}}, "house")


def test_an_unknown_key_inside_an_optional_model_is_named():
    with pytest.raises(InputError, match=r"unknown key 'guest\.live'; did you mean lives\?"):
        validate(House, {"pet": {"kind": "cat"}, "guest": {"live": 1}}, "house")


def test_a_wrong_value_is_named_with_what_was_expected():
    with pytest.raises(InputError, match=r"'pet\.lives' is 0: Input should be greater than or eq"):
        validate(House, {"pet": {"kind": "cat", "lives": 0}}, "house")
    with pytest.raises(InputError, match=r"'pet\.tricks' is 3: expected an even number"):
        validate(House, {"pet": {"kind": "dog", "tricks": 3}}, "house")


def test_all_faults_are_named_at_once():
    with pytest.raises(InputError, match=r"'pet' is missing; .*'rooms' is 'many'"):
        validate(House, {"rooms": "many"}, "house")


def test_suggestions_name_everything_that_is_known():
    assert suggest("zzz", ["b", "a"]) == "known: a, b"
    assert suggest("rooms", ["room", "x"]) == "did you mean room? known: room, x"


def test_yaml_files_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("rooms: 2\n")
    assert read_yaml(tmp_path / "a.yaml") == {"rooms": 2}


@pytest.mark.parametrize(
    ("contents", "words"),
    [(b"a: [1", "is not YAML"), (b"\xff\xfe\x00", "is not YAML"), (b"- 1", "holds a list")],
)
def test_a_file_that_holds_no_mapping_is_refused(tmp_path, contents, words):
    (tmp_path / "a.yaml").write_bytes(contents)
    with pytest.raises(InputError, match=words):
        read_yaml(tmp_path / "a.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml cannot be read \(No such file"):
        read_yaml(tmp_path / "none.yaml")


class Notes(BaseModel, extra="forbid"):
    title: str
    place: Path | None = None
    words: tuple[str, ...] = ()
    by_name: dict[str, str] = Field(default_factory=dict)
    either: int | str | None = None
    pet: Annotated[Cat | Dog | Person, Field(discriminator="kind")] | None = None
    count: Annotated[int, Field(ge=1)] = 1


@pytest.mark.parametrize("text", ["9", "010", "1e3", "no", "10:20", "2024-01-01", "true", "1.50"])
def test_a_field_for_text_takes_what_was_written(tmp_path, text):
    file = tmp_path / "a.yaml"
    lines = [f"title: {text}", f"place: {text}", f"words: [{text}]", f"by_name: {{{text}: {text}}}"]
    file.write_text("\n".join([*lines, f"pet: {{kind: person, name: {text}}}", "count: 010"]))
    notes = validate(Notes, read_yaml(file), "a.yaml")
    assert (notes.title, notes.place, notes.words) == (text, Path(text), (text,))
    assert notes.by_name == {text: text}
    assert notes.pet == Person(name=text)
    assert notes.count == 10
    name, value = split_assignment(f"title={text}")
    assert validate(Notes, {name: value}, "settings").title == text


def test_a_number_stays_one_where_a_number_is_welcome():
    assert validate(Notes, {"title": "a", "either": 9}, "notes").either == 9


def test_nothing_is_no_text():
    with pytest.raises(InputError, match="'title' is None: Input should be a valid string"):
        validate(Notes, {"title": None}, "notes")


def test_the_document_of_the_caller_is_left_as_it_is():
    document = {"title": 9, "words": [1]}
    assert validate(Notes, document, "notes").words == ("1",)
    assert document == {"title": 9, "words": [1]}


def test_other_faults_are_still_told_where_text_was_wanted():
    with pytest.raises(InputError, match=r"notes: 'count' is 0: Input should be greater"):
        validate(Notes, {"title": 9, "count": 0}, "notes")


def test_a_truth_value_is_no_number_wherever_it_stands():
    class Many(BaseModel):
        houses: tuple[House, ...] = ()
        named: dict[str, float] = Field(default_factory=dict)
        loose: dict[str, Any] = Field(default_factory=dict)
        sure: bool = False

    with pytest.raises(InputError, match=r"'houses\.0\.rooms' is true, expected a number$"):
        validate(Many, {"houses": [{"pet": {"kind": "cat"}, "rooms": True}]}, "many")
    with pytest.raises(InputError, match=r"'named\.a' is false"):
        validate(Many, {"named": {"a": False}}, "many")
    assert validate(Many, {"sure": True, "loose": {"a": True}}, "many").loose == {"a": True}


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf", "1e400"])
def test_numbers_are_finite(text):
    class Loose(BaseModel):
        share: float = 0.0
        settings: dict[str, Any] = Field(default_factory=dict)

    name, value = split_assignment(f"share={text}")
    with pytest.raises(InputError, match=rf"'share' is {text}, expected a finite number"):
        validate(Loose, {name: value}, "x")
    with pytest.raises(InputError, match=rf"'settings\.a\.0' is {text}"):
        validate(Loose, {"settings": {"a": [value]}}, "x")


def test_no_text_holds_nul():
    with pytest.raises(InputError, match=r"'name' is 'a\\x00b', expected a text without the char"):
        validate(Person, {"name": "a\0b"}, "x")


def test_numbers_fit_a_machine():
    assert validate(House, {"pet": {"kind": "cat"}, "rooms": 2**63 - 1}, "x").rooms == 2**63 - 1
    with pytest.raises(InputError, match=r"'rooms' is 9+\.\.\., expected a number below 2\*\*63"):
        validate(House, {"pet": {"kind": "cat"}, "rooms": int("9" * 400)}, "x")


def test_a_setting_that_is_given_twice_is_refused():
    assert read_assignments(["a.b=1", "a.c=x"]) == {"a.b": 1, "a.c": "x"}
    with pytest.raises(InputError, match=r"'a\.b' is set twice, the second time by ' a\.b =2'"):
        read_assignments(["a.b=1", " a.b =2"])


def test_a_file_of_any_kind_ends_in_words(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="a pipe into which nobody writes"):
        read_yaml(pipe)
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="more than 4000000 bytes"):
        read_yaml(large)
    for none in (tmp_path, tmp_path / "none", large / "x", tmp_path / ("x" * 300)):
        with pytest.raises(InputError, match="cannot be read"):
            read_yaml(none)
    latin = tmp_path / "latin"
    latin.write_bytes("a: caf\u00e9".encode("latin-1"))
    with pytest.raises(InputError, match="save it as UTF-8"):
        read_yaml(latin)


def test_a_pipe_is_read_to_its_end(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a: 1\nb: " + "x" * 100_000,))
    writer.start()
    found = read_yaml(pipe)
    writer.join()
    assert (found["a"], len(found["b"])) == (1, 100_000)


def test_a_mark_at_the_start_of_a_file_is_no_part_of_its_first_key(tmp_path):
    file = tmp_path / "marked.yaml"
    file.write_bytes(b"\xef\xbb\xbfroot: d")
    assert read_yaml(file) == {"root": "d"}
