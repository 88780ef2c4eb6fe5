from pathlib import Path

import pytest
from pydantic import TypeAdapter

from models.labelling.config import DetectorConfig
from models.profiles import load_profile
from models.registry import (
    KINDS,
    Role,
    WriterConfig,
    build,
    kind_of,
    kinds_of,
    kinds_table,
)
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from models.writing.writers import TemplateWriter, TemplateWriterConfig
from storage.documents import validate
from storage.errors import InputError
from storage.ledger import Ledger
from storage.objects import open_objects

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"
WRITER = TypeAdapter(WriterConfig)


def test_every_role_has_a_kind_and_no_two_kinds_of_a_role_share_a_name():
    for role in Role:
        names = [kind.name for kind in kinds_of(role)]
        assert names or role is Role.LABELLER  # `grounded` is made of kinds of other roles
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.role}-{kind.name}")
def test_a_configuration_says_what_it_depends_on_and_what_it_needs(kind):
    assert callable(kind.config.identity)
    assert callable(kind.config.check)
    assert kind.config.model_fields["kind"].default == kind.name
    assert (kind.role is Role.PAINTER) == bool(kind.tokens)


def test_the_kind_chooses_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    template = WRITER.validate_python({"kind": "template", "templates": "rich"})
    chat = WRITER.validate_python({"kind": "chat", "model": "small"})
    assert isinstance(template, TemplateWriterConfig)
    assert isinstance(chat, ChatWriterConfig)
    assert isinstance(build(template), TemplateWriter)
    assert build(template).name == "template:rich"
    built = build(chat, Ledger(open_objects(tmp_path)))
    assert isinstance(built, ChatWriter)
    assert built.name == "chat:small"


def test_an_unknown_field_or_kind_is_refused_with_those_that_are_known(tmp_path):
    profile = load_profile("miniature").model_dump(mode="json")
    for writer, said in (
        ({"kind": "chat", "model": "m", "tempature": 1}, "did you mean temperature"),
        ({"kind": "poet"}, "'template', 'chat'"),
    ):
        with pytest.raises(InputError, match=said):
            validate(type(load_profile("miniature")), profile | {"writer": writer}, "profile")


def test_profiles_written_before_kinds_had_names_mean_the_first_one_and_keep_their_identity():
    document = load_profile("miniature").labeller.detector.model_dump(exclude={"kind"})
    config = DetectorConfig.model_validate(document)
    assert kind_of(config).name == "grounding-dino"
    assert "kind" not in config.identity()


def test_a_class_that_is_in_no_row_is_refused():
    with pytest.raises(InputError, match=r"add a row to models\.registry"):
        kind_of(3)


def test_the_page_shows_every_kind():
    assert kinds_table() in PAGE.read_text(encoding="utf-8")
