import pytest

from models.protocols import TextRequest
from models.writing.writers import TemplateWriter, TemplateWriterConfig
from storage.errors import InputError
from storage.vocabulary import load_vocabulary

CAT, BUS = (load_vocabulary("miniature").by_name(name) for name in ("cat", "bus"))


def wish(count=3, seed=1, classes=(CAT,), **options):
    return TextRequest(tuple(classes), count, seed, **options)


def test_an_unknown_template_set_is_refused_when_the_writer_is_built():
    with pytest.raises(InputError, match="nowhere"):
        TemplateWriter(TemplateWriterConfig(templates="nowhere"))


def test_template_texts_follow_seed_and_round_and_not_their_neighbours():
    writer = TemplateWriter(TemplateWriterConfig())
    [alone] = writer.write([wish()])
    _, beside = writer.write([wish(5, seed=3, classes=[BUS]), wish()])
    assert beside == alone
    assert len(set(alone.texts)) == 3
    [other_seed], [other_round] = writer.write([wish(seed=2)]), writer.write([wish(round=1)])
    assert len({alone.texts, other_seed.texts, other_round.texts}) == 3


def test_template_texts_leave_out_what_exists_already():
    writer = TemplateWriter(TemplateWriterConfig())
    [first] = writer.write([wish(40)])
    [second] = writer.write([wish(40, avoid=first.texts)])
    assert not set(first.texts) & set(second.texts)
