"""What people write must be read, or refused in words that help."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from storage.documents import read_yaml, split_assignment, suggest, validate
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
