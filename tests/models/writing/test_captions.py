"""Texts from a file of captions: what is read, what is kept, and what a request gets."""

import json

import pytest

from models.protocols import TextRequest
from models.registry import build
from models.writing.caption_files import CaptionPool, captions_digest, read_captions
from models.writing.caption_writer import CaptionWriter, CaptionWriterConfig
from models.writing.mentions import find_mentions
from storage.errors import InputError
from storage.records import Reason
from storage.vocabulary import load_vocabulary
from tasks.prompts import ClassSet, write_prompts
from tasks.rules import PromptRules

VOCABULARY = load_vocabulary("lvis1205")
CAT, BUS, SCHOOL_BUS = (VOCABULARY.by_name(name) for name in ("cat", "bus", "school bus"))
CAPTIONS = [
    "A cat on a mat",
    "  Two   cats asleep ",
    "A cat on a mat",
    "On the wide red sofa lies a cat",
    "A dog and a bus",
    "A school bus waits",
    "A cat beside a bus",
    "A bus with a cat inside",
    "A vector cat",
    "Close-up of a cat",
    "A cat - seen from above",
    "The catfish swims",
    "Kitty, my dear cat, sleeps",
    "A cat " + "very " * 60 + "far away",
    "",
]


def wish(count=2, seed=1, classes=(CAT,), **options):
    return TextRequest(tuple(classes), count, seed, **options)


@pytest.fixture
def config(tmp_path):
    """Writes captions to a file; returns the writer's configuration."""

    def make(captions=CAPTIONS, **fields):
        file = tmp_path / "captions.txt"
        file.write_text("\n".join(captions), encoding="utf-8")
        return CaptionWriterConfig(file=str(file), **fields)

    return make


def texts_of(config, *requests):
    return [answer.texts for answer in CaptionWriter(config).write(requests)]


def test_captions_are_those_that_name_the_class_early_are_short_and_plain(config):
    [texts] = texts_of(config(), wish(20))
    assert set(texts) == {
        "A cat on a mat",
        "Two cats asleep",
        "A cat beside a bus",
        "A bus with a cat inside",
        "Kitty, my dear cat, sleeps",
    }
    [late] = texts_of(config(within_words=None), wish(20))
    assert set(late) - set(texts) == {"On the wide red sofa lies a cat"}
    [own] = texts_of(config(banned_words=("MAT",), max_words=100), wish(20))
    assert "A vector cat" in own
    assert CAPTIONS[13] in own
    assert "A cat on a mat" not in own


def test_two_classes_are_both_named_and_a_name_in_a_name_is_none(config):
    [both, bus, school] = texts_of(
        config(), wish(9, classes=(CAT, BUS)), wish(9, classes=(BUS,)), wish(9, classes=[BUS, CAT])
    )
    assert set(both) == set(school) == {"A cat beside a bus", "A bus with a cat inside"}
    assert "A school bus waits" in bus  # asked for alone it is a bus
    [answer] = CaptionWriter(config()).write([wish(1, classes=(SCHOOL_BUS, BUS))])
    assert answer.texts == ()


def test_answers_follow_seed_and_round_avoid_what_exists_and_never_repeat(config):
    captions = [f"A cat number {number}" for number in range(40)]
    writer = CaptionWriter(config(captions))
    [alone] = writer.write([wish(5)])
    _, beside = writer.write([wish(7, seed=9), wish(5)])
    assert alone == beside
    assert alone.failure == ""
    assert len(set(alone.texts)) == 5
    [seed], [later] = writer.write([wish(5, seed=2)]), writer.write([wish(5, round=1)])
    assert len({alone.texts, seed.texts, later.texts}) == 3
    [rest] = writer.write([wish(35, avoid=alone.texts)])
    assert not set(alone.texts) & set(rest.texts)
    assert len(set(rest.texts)) == 35
    prefixed = CaptionWriter(config(captions, prefix="Photo of "))
    [first] = prefixed.write([wish(20)])
    [second] = prefixed.write([wish(20, avoid=first.texts)])
    assert not set(first.texts) & set(second.texts)
    assert all(text.startswith("Photo of A cat number") for text in first.texts)


def test_too_few_captions_are_said_in_words_and_asked_for_no_more_than_max_rounds(config):
    class Counting(CaptionWriter):
        asked = 0

        def write(self, requests):
            self.asked += 1
            return super().write(requests)

    class Tokens:
        max_tokens = 77

        def count_tokens(self, text):
            return len(text.split())

    from storage.plan import DatasetSpec, plan_shard
    from storage.slices import resolve_slice

    spec = DatasetSpec(vocabulary="lvis1205", seed=0, samples_per_shard=8, texts_per_class_set=8)
    shard = plan_shard(spec, resolve_slice(VOCABULARY, "cat"), 0, 8)
    writer = Counting(config())
    rules = PromptRules(max_rounds=3)
    records = write_prompts([ClassSet(shard.samples)], VOCABULARY, writer, Tokens(), rules)
    texts = [record.text for record in records if hasattr(record, "text")]
    assert len(texts) == len(set(texts)) == 5
    lost = [record for record in records if not hasattr(record, "text")]
    assert {record.reason for record in lost} == {Reason.WRITER_FAILED}
    assert "has 5 captions that name cat within 5 words, 0 of them unused" in lost[0].detail
    assert writer.asked <= 3


def test_every_text_that_is_given_passes_the_finder_of_mentions(config):
    forms = [form for record in VOCABULARY for form in record.forms]
    captions = [f"the {form} there" for form in forms]
    writer = CaptionWriter(config(captions))
    for record in list(VOCABULARY)[::40]:
        [answer] = writer.write([wish(3, classes=(record,))])
        assert answer.texts
        for text in answer.texts:
            assert find_mentions(text, [record])


def test_the_identity_is_of_contents_and_filter_and_not_of_the_place(config, tmp_path):
    first = config()
    moved = tmp_path / "elsewhere.txt"
    moved.write_bytes(first.path.read_bytes())
    assert CaptionWriterConfig(file=str(moved)).identity() == first.identity()
    assert config(within_words=6).identity() != first.identity()
    assert config(banned_words=()).identity() != first.identity()
    before = captions_digest(first.path)
    changed = config([*CAPTIONS, "A new cat"])
    assert captions_digest(changed.path) != before


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv", "c.tsv", "c.TXT"])
def test_forms_of_files(tmp_path, name):
    file = tmp_path / name
    rows = ["A cat, asleep", "Zwei Kätzchen", 'the "cat"']
    text = {
        "c.jsonl": "\n".join(
            [json.dumps({"id": 1, "words": rows[0]}), "", json.dumps(rows[1]), '"the \\"cat\\""']
        ),
        "c.csv": 'id,words\n1,"A cat, asleep"\n2,Zwei Kätzchen\n3,"the ""cat"""\n',
        "c.tsv": 'id\twords\n1\tA cat, asleep\n2\tZwei Kätzchen\n3\t"the ""cat"""\n',
        "c.TXT": "\n".join(rows),
    }[name]
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_text(text, encoding=encoding)
        assert read_captions(file, "words") == rows


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("none.txt", None, "none.txt does not exist"),
        ("c.parquet", b"PAR1", "ends in '.parquet', expected a file of captions: .txt"),
        ("c.txt", b"", "is empty"),
        ("c.txt", b"\n \n", "is empty"),
        ("c.txt", b"\xff\x00\xfe", "cannot be read"),
        ("c.jsonl", b'{"caption": "a"}\n{"caption"', "line 2 of .* is not JSON"),
        ("c.jsonl", b'{"text": "a"}', "line 1 of .* has no text under 'caption'"),
        ("c.jsonl", b"[" * 100_000, "line 1 of .* is not JSON"),
        ("c.jsonl", b'{"caption": 3}', "has no text under 'caption'"),
        ("c.csv", b"id,text\n1,a\n", "has the columns 'id', 'text', expected 'caption'"),
        ("c.csv", b"id,caption\n1\n", "line 2 of .* has 1 cells, expected 2"),
        ("c.csv", b'caption\n"open', "line 2 of .* is no table's"),
        ("c.csv", b"", "expected 'caption'"),
    ],
)
def test_what_is_no_file_of_captions_is_refused_with_the_line(tmp_path, name, contents, message):
    file = tmp_path / name
    if contents is not None:
        file.write_bytes(contents)
    with pytest.raises(InputError, match=message):
        build(CaptionWriterConfig(file=str(file)))


def test_a_missing_file_is_told_by_check_and_identity(tmp_path):
    config = CaptionWriterConfig(file=str(tmp_path / "none.txt"))
    for ask in (config.check, config.identity):
        with pytest.raises(InputError, match=r"none\.txt does not exist, expected a file"):
            ask()


def test_check_counts_what_passes(config):
    assert config().check().startswith("9 of 14 captions of ")


def test_a_pool_is_the_same_whoever_asks_first(config):
    own = config()
    pools = [CaptionPool(read_captions(own.path, "caption"), own.filter) for _ in range(2)]
    pools[0].about([CAT, BUS])
    assert pools[0].about([CAT]) == pools[1].about([CAT])
