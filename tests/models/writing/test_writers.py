import pytest
from pydantic import BaseModel, ValidationError

from models.protocols import TextRequest
from models.writing.chat import ChatWriter, ChatWriterConfig
from models.writing.writers import TemplateWriter, TemplateWriterConfig, WriterConfig, build_writer
from storage.errors import InputError
from storage.ledger import Ledger
from storage.objects import open_objects
from storage.vocabulary import load_vocabulary

CAT, BUS = (load_vocabulary("miniature").by_name(name) for name in ("cat", "bus"))


class Holder(BaseModel):
    writer: WriterConfig


@pytest.fixture
def ledger(tmp_path):
    return Ledger(open_objects(tmp_path))


def wish(count=3, seed=1, classes=(CAT,), **options):
    return TextRequest(tuple(classes), count, seed, **options)


def test_the_kind_chooses_the_writer(ledger, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    template = Holder(writer={"kind": "template", "templates": "rich"}).writer
    chat = Holder(writer={"kind": "chat", "model": "small"}).writer
    assert isinstance(template, TemplateWriterConfig)
    assert isinstance(chat, ChatWriterConfig)
    assert isinstance(build_writer(template, ledger), TemplateWriter)
    assert isinstance(build_writer(chat, ledger), ChatWriter)
    assert build_writer(template, ledger).name == "template:rich"
    assert build_writer(chat, ledger).name == "chat:small"


def test_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="tempature"):
        Holder(writer={"kind": "chat", "model": "small", "tempature": 1})


def test_an_unknown_template_set_is_refused_when_the_writer_is_built(ledger):
    with pytest.raises(InputError, match="nowhere"):
        build_writer(TemplateWriterConfig(templates="nowhere"), ledger)


def test_template_texts_follow_seed_and_round_and_not_their_neighbours(ledger):
    writer = build_writer(TemplateWriterConfig(), ledger)
    [alone] = writer.write([wish()])
    _, beside = writer.write([wish(5, seed=3, classes=[BUS]), wish()])
    assert beside == alone
    assert len(set(alone.texts)) == 3
    [other_seed], [other_round] = writer.write([wish(seed=2)]), writer.write([wish(round=1)])
    assert len({alone.texts, other_seed.texts, other_round.texts}) == 3


def test_template_texts_leave_out_what_exists_already(ledger):
    writer = build_writer(TemplateWriterConfig(), ledger)
    [first] = writer.write([wish(40)])
    [second] = writer.write([wish(40, avoid=first.texts)])
    assert not set(first.texts) & set(second.texts)
