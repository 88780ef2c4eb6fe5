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


def test_names_of_kinds_stand_before_the_class_and_an_empty_one_is_the_class_alone(tmp_path):
    file = tmp_path / "kinds.yaml"
    file.write_text('cat: [tabby, orange, ""]\n')
    config = TemplateWriterConfig(templates="subclasses", subclasses=str(file))
    writer = TemplateWriter(config)
    [texts], [others] = writer.write([wish(3)]), writer.write([wish(1, classes=[BUS])])
    assert set(texts.texts) == {"Photo of a tabby cat", "Photo of an orange cat", "Photo of a cat"}
    assert others.texts == ("Photo of a bus",)
    [both] = writer.write([wish(2, classes=[BUS, CAT])])
    assert set(both.texts) < {
        "Photo of a bus and a tabby cat",
        "Photo of a bus and an orange cat",
        "Photo of a bus and a cat",
    }
    assert config.check() == "1 texts a kind from templates; kinds of 1 classes"


def test_kinds_are_part_of_the_identity_only_where_there_are_some(tmp_path):
    file = tmp_path / "kinds.yaml"
    file.write_text("cat: [tabby]\n")
    plain = TemplateWriterConfig(templates="subclasses")
    assert plain.identity().keys() == {"templates"}
    own = TemplateWriterConfig(templates="subclasses", subclasses=str(file))
    before = own.identity()
    file.write_text("cat: [Persian]\n")
    assert own.identity() != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cta: [tabby]", "subclasses of 'cta', which is a class of no vocabulary"),
        ("cat: []", "no subclasses of 'cat'"),
        ("cat: tabby", "subclasses"),
        ("- cat", "expected a mapping"),
    ],
)
def test_a_faulty_file_of_kinds_is_refused(tmp_path, text, message):
    file = tmp_path / "kinds.yaml"
    file.write_text(text)
    config = TemplateWriterConfig(templates="subclasses", subclasses=str(file))
    for ask in (config.check, config.identity, lambda: TemplateWriter(config)):
        with pytest.raises(InputError, match=message):
            ask()
