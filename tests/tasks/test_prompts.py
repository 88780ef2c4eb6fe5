from collections import Counter
from dataclasses import dataclass
from itertools import groupby

import pytest

from models.protocols import TextAnswer
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from models.writing.mentions import find_mentions
from models.writing.writers import TemplateWriter, TemplateWriterConfig
from storage.errors import BudgetError, InputError, TransientError
from storage.ledger import Ledger
from storage.objects import open_objects
from storage.records import PlannedSample, PlannedShard, Prompt, Reason, Rejected, Stage
from storage.vocabulary import load_vocabulary
from tasks.prompts import ClassSet, write_prompts
from tasks.rules import PromptRules

VOCABULARY = load_vocabulary("lvis1205")
CAT, DOG, BUS, SCHOOL_BUS, BOW, RIBBON = (
    VOCABULARY.by_name(name).class_id
    for name in (
        "cat",
        "dog",
        "bus (vehicle)",
        "school bus",
        "bow (weapon)",
        "bow (decorative ribbons)",
    )
)
LONG = "the quick light of a late autumn day falls on a {} that waits beside {} number {}"


class Scripted:
    """A writer that plays rounds of answers, one for each request."""

    name = "scripted"

    def __init__(self, *rounds):
        self.rounds, self.requests = list(rounds), []

    def write(self, requests):
        self.requests.append(list(requests))
        answers = self.rounds.pop(0)
        if isinstance(answers, Exception):
            raise answers
        assert len(answers) == len(requests)
        return [
            answer if isinstance(answer, TextAnswer) else TextAnswer(tuple(answer))
            for answer in answers
        ]


def plan(*class_sets):
    samples = tuple(
        PlannedSample(key=f"{index:016x}", index=index, class_ids=ids, seed=1000 + index)
        for index, ids in enumerate(class_sets)
    )
    return PlannedShard(slice_id="0badcafe", index=0, samples=samples)


@dataclass(frozen=True)
class Words:
    """Counts words for tokens."""

    max_tokens: int

    def count_tokens(self, text):
        return len(text.split())


def run(shard, writer, *, max_tokens=77, **rules):
    groups = groupby(shard.samples, key=lambda sample: sample.class_ids)
    sets = [ClassSet(tuple(samples)) for _, samples in groups]
    records = write_prompts(sets, VOCABULARY, writer, Words(max_tokens), PromptRules(**rules))
    assert [record.key for record in records] == [sample.key for sample in shard.samples]
    return records


def reasons(records):
    return [record.reason if isinstance(record, Rejected) else None for record in records]


def test_consecutive_samples_of_the_same_classes_are_one_request():
    writer = Scripted([["a cat", "the cat"], ["a dog"], ["two cats"]])
    records = run(plan((CAT,), (CAT,), (DOG,), (CAT,)), writer)
    assert [record.text for record in records] == ["a cat", "the cat", "a dog", "two cats"]
    [requests] = writer.requests
    assert [(r.classes[0].name, r.count, r.seed) for r in requests] == [
        ("cat", 2, 1000),
        ("dog", 1, 1002),
        ("cat", 1, 1003),
    ]


def test_a_prompt_has_spans_counterfactual_and_writer():
    [record] = run(plan((BUS, SCHOOL_BUS)), Scripted([["A school  bus, two buses "]]))
    assert record == Prompt(
        key=record.key,
        text="A school bus, two buses",
        counterfactual_text="A nothing, two nothing",
        mentions=record.mentions,
        writer="scripted",
    )
    assert [(m.class_id, m.start, m.end) for m in record.mentions] == [
        (SCHOOL_BUS, 2, 12),
        (BUS, 18, 23),
    ]


def test_the_counterfactual_rule_can_be_to_remove():
    [record] = run(plan((CAT,)), Scripted([["A cat in the sun"]]), counterfactual="remove")
    assert record.counterfactual_text == "In the sun"


def test_the_names_of_the_classes_can_stand_at_the_end_once_more():
    shard = plan((BUS, CAT))
    text = "a bus waits and the Cats sleep"
    (record,) = run(shard, Scripted([[text]]), append_classes=True)
    assert record.text == f"{text}; bus cat"
    named = [(m.class_id, record.text[m.start : m.end]) for m in record.mentions]
    assert named == [(BUS, "bus"), (CAT, "Cats"), (BUS, "bus"), (CAT, "cat")]
    assert record.counterfactual_text.endswith("; nothing nothing")


def test_names_at_the_end_are_no_mentions_in_the_text_and_count_for_its_length():
    shard = plan((CAT,))
    rules = {"append_classes": True, "max_rounds": 1}
    (absent,) = run(shard, Scripted([["a dog"]]), **rules)
    assert absent.reason is Reason.CLASS_NOT_MENTIONED
    (long,) = run(shard, Scripted([["a cat sleeps"]]), max_tokens=3, **rules)
    assert long.reason is Reason.TEXT_TOO_LONG


def test_two_senses_of_one_word_need_two_mentions():
    writer = Scripted([["a bow", "a bow beside a red bow"]])
    first, second = run(plan((BOW, RIBBON), (BOW, RIBBON)), writer, max_rounds=1)
    assert [mention.class_id for mention in first.mentions] == [BOW, RIBBON]
    assert second.reason is Reason.CLASS_NOT_MENTIONED
    assert "bow (decorative ribbons)" in second.detail


def test_what_is_missing_is_asked_for_again_with_what_exists_to_avoid():
    writer = Scripted([["a cat", "a dog", "the cat"], ["a fat cat"]], [["cats"]])
    records = run(plan((CAT,), (CAT,), (CAT,), (CAT, DOG)), writer, max_rounds=1)
    assert reasons(records) == [None, None, Reason.CLASS_NOT_MENTIONED, Reason.CLASS_NOT_MENTIONED]

    writer = Scripted([["a cat", "a dog", "the cat"], ["a dog"]], [["cats"]])
    records = run(plan((CAT,), (CAT,), (CAT,), (DOG,)), writer)
    assert [record.text for record in records] == ["a cat", "the cat", "cats", "a dog"]
    [again] = writer.requests[1]
    assert (again.count, again.round, again.seed) == (1, 1, 1000)
    assert again.avoid == ("a cat", "the cat")


def test_the_last_round_is_the_limit():
    writer = Scripted([["a dog"]], [["a cow"]], [["a hen"]])
    [record] = run(plan((CAT,)), writer, max_rounds=2)
    assert record.reason is Reason.CLASS_NOT_MENTIONED
    assert "a cow" in record.detail
    assert len(writer.requests) == 2


def test_a_text_that_the_painter_cannot_read_whole_is_rejected():
    writer = Scripted([["a cat on a mat", "a cat"]])
    records = run(plan((CAT,), (CAT,)), writer, max_tokens=4, max_rounds=1)
    assert reasons(records) == [None, Reason.TEXT_TOO_LONG]
    assert "5 tokens, at most 4" in records[1].detail


def test_near_duplicates_in_a_class_set_are_rejected_and_in_another_one_are_not():
    """What a text is must not depend on which other sets were written before it."""
    one, other = LONG.format("cat", "gate", "one"), LONG.format("cat", "gate", "two")
    writer = Scripted([[one, other], ["a dog"], [other.upper() + "!"]])
    records = run(plan((CAT,), (CAT,), (DOG,), (CAT,)), writer, max_rounds=1)
    assert reasons(records) == [None, Reason.NEAR_DUPLICATE, None, None]
    assert one in records[1].detail


def test_the_same_words_are_no_duplicate_for_other_classes():
    text = "a cat and a dog"
    records = run(plan((CAT,), (DOG,), (CAT, DOG)), Scripted([[text], [text], [text]]))
    assert reasons(records) == [None, None, None]


def test_short_texts_are_duplicates_only_when_equal_word_for_word():
    texts = ["a red cat in a meadow", "a blue cat in a meadow", "A red cat, in a meadow."]
    records = run(plan(*[(CAT,)] * 3), Scripted([texts]), max_rounds=1)
    assert reasons(records) == [None, None, Reason.NEAR_DUPLICATE]


def test_likeness_has_a_threshold_and_can_be_switched_off():
    texts = [LONG.format("cat", "gate", "one"), LONG.format("cat", "gate", "two")]
    shard = plan((CAT,), (CAT,))
    strict = {"duplicate_similarity": 1.0, "max_rounds": 1}
    assert reasons(run(shard, Scripted([texts]), **strict)) == [None, None]
    same = {"duplicate_similarity": None, "max_rounds": 1}
    assert reasons(run(shard, Scripted([texts[:1] * 2]), **same)) == [None, None]


def test_refusals_and_failures_are_told_apart_and_whole_texts_are_kept():
    writer = Scripted(
        [
            TextAnswer((), "refused: no cats here", refused=True),
            TextAnswer(("a dog",), "failed: the answer was cut off"),
            TextAnswer(()),
        ]
    )
    shard = plan((CAT,), (CAT,), (DOG,), (DOG,), (DOG,), (BUS,))
    records = run(shard, writer, max_rounds=1)
    refused, failed = Reason.WRITER_REFUSED, Reason.WRITER_FAILED
    assert reasons(records) == [refused, refused, None, failed, failed, failed]
    assert "no cats here" in records[0].detail
    assert "cut off" in records[3].detail
    assert all(record.stage is Stage.PROMPTS for record in records if record is not records[2])


def test_each_missing_sample_has_a_reason_of_its_own():
    writer = Scripted([TextAnswer(("a dog", "a cat", "a cat"), "failed: cut off")])
    records = run(plan(*[(CAT,)] * 5), writer, max_rounds=1)
    assert Counter(reasons(records)) == {
        None: 1,
        Reason.CLASS_NOT_MENTIONED: 1,
        Reason.NEAR_DUPLICATE: 1,
        Reason.WRITER_FAILED: 2,
    }


def test_more_texts_than_asked_for_are_ignored():
    [record] = run(plan((CAT,)), Scripted([["a cat", "cats"]]))
    assert record.text == "a cat"


def test_a_writer_that_answers_nothing_at_all_fails_the_shard_for_now():
    with pytest.raises(TransientError, match="down"):
        run(plan((CAT,)), Scripted(TransientError("down")))


def test_a_writer_that_goes_down_later_writes_off_nothing():
    writer = Scripted([["a cat", "a dog"]], TransientError("down"))
    with pytest.raises(TransientError, match="down"):
        run(plan((CAT,), (CAT,)), writer)


@pytest.mark.parametrize("error", [BudgetError("limit"), InputError("no such model")])
def test_what_a_rerun_cannot_mend_is_raised(error):
    with pytest.raises(type(error)):
        run(plan((CAT,)), Scripted([["a dog"]], error))


@pytest.mark.parametrize("templates", ["simple", "rich"])
def test_the_template_writer_serves_the_whole_vocabulary(templates):
    writer = TemplateWriter(TemplateWriterConfig(templates=templates))
    singles = [(record.class_id,) for record in VOCABULARY]
    pairs = [(a, (a * 7 + 1) % len(VOCABULARY)) for a in range(0, len(VOCABULARY), 3)]
    shard = plan(*(ids for ids in [*singles, *pairs] if len(set(ids)) == len(ids)))
    records = run(shard, writer)
    assert all(isinstance(record, Prompt) for record in records)
    for sample, record in zip(shard.samples, records, strict=True):
        classes = [VOCABULARY[class_id] for class_id in sample.class_ids]
        assert find_mentions(record.counterfactual_text, classes) == ()
        assert "nothing" in record.counterfactual_text.lower()


def test_a_chat_model_gives_the_same_records_at_any_concurrency(chat_server, tmp_path):
    shard = plan(*[(CAT,)] * 4, *[(CAT, DOG)] * 3, *[(BUS,)] * 3)
    results = []
    for concurrency in (1, 5):
        chat_server.queue = [chat_server.error(500)] if concurrency == 5 else []
        config = ChatWriterConfig(
            model="small",
            base_url=chat_server.url,
            api_key_env=None,
            concurrency=concurrency,
            texts_per_call=2,
            first_wait=0.01,
        )
        ledger = Ledger(open_objects(tmp_path / str(concurrency)))
        results.append(run(shard, ChatWriter(config, ledger)))
    assert results[0] == results[1]
    assert all(isinstance(record, Prompt) for record in results[0])


def test_bad_answers_of_a_chat_model_are_asked_again_once_and_never_repeated(chat_server, tmp_path):
    config = ChatWriterConfig(
        model="small", base_url=chat_server.url, api_key_env=None, concurrency=1, first_wait=0.01
    )
    shard = plan((CAT,), (CAT,), (DOG,), (BUS,))
    double = LONG.format("cat", "gate", "one")
    chat_server.queue = [
        chat_server.completion([double, double + " again"]),
        chat_server.completion(["no such animal here"]),
        chat_server.completion(content="", refusal="I would rather not"),
        chat_server.completion(content='{"texts": ["a cat as', finish="length"),
        chat_server.completion(content="", refusal="no"),
        chat_server.completion(content="", refusal="never"),
    ]
    first = run(shard, ChatWriter(config, Ledger(open_objects(tmp_path))), max_rounds=2)
    assert reasons(first) == [
        None,
        Reason.WRITER_FAILED,
        Reason.WRITER_REFUSED,
        Reason.WRITER_REFUSED,
    ]
    assert len(chat_server.requests) == 6
    again = run(shard, ChatWriter(config, Ledger(open_objects(tmp_path))), max_rounds=2)
    assert again == first
    assert len(chat_server.requests) == 6
