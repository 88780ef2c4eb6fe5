import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from email.utils import formatdate

import pytest

from models.protocols import TextRequest
from models.writing.calls import cut_calls
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from models.writing.instructions import load_instructions
from models.writing.probe import ask_once
from storage.errors import BudgetError, InputError, TransientError
from storage.ledger import Ledger, Prices
from storage.objects import open_objects
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("lvis1205")
CAT = VOCABULARY.by_name("cat")
DOG = VOCABULARY.by_name("dog")
BOW = VOCABULARY.by_name("bow (weapon)")
ENTRY = "sk-not-to-be-seen"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("WRITER_KEY", ENTRY)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(open_objects(tmp_path))


@pytest.fixture
def build(chat_server, ledger):
    def build_(**options):
        defaults = {
            "model": "small",
            "base_url": chat_server.url,
            "api_key_env": "WRITER_KEY",
            "first_wait": 0.01,
            "max_retries": 2,
        }
        return ChatWriter(ChatWriterConfig(**{**defaults, **options}), ledger)

    return build_


def wish(count=2, seed=1, classes=(CAT,), **options):
    return TextRequest(tuple(classes), count, seed, **options)


def test_a_good_answer_gives_the_texts_in_order_and_is_counted(build, chat_server, ledger):
    answer, other = build().write([wish(3), wish(2, classes=[DOG])])
    assert len(answer.texts) == 3
    assert answer.failure == ""
    assert all("a cat" in text for text in answer.texts)
    assert all("a dog" in text for text in other.texts)
    totals = ledger.totals()
    assert (totals.calls, totals.prompt_tokens, totals.completion_tokens) == (2, 200, 100)
    assert totals.errors == totals.cached == 0


def test_the_request_is_strict_and_explains_the_sense_of_a_class(build, chat_server):
    build(temperature=0.5).write([wish(classes=[BOW, CAT], avoid=("a bow and a cat sleep",))])
    [body] = chat_server.requests
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["additionalProperties"] is False
    assert schema["schema"]["required"] == ["texts"]
    assert body["temperature"] == 0.5
    assert body["max_completion_tokens"] == 2048
    message = body["messages"][-1]["content"]
    assert 'bow, in the sense of: weapon (write "bow" or "bows")' in message
    assert "bow (weapon)" not in message
    assert "a bow and a cat sleep" in message


def test_fields_that_a_service_does_not_know_can_be_left_out(build, chat_server):
    fields = {"temperature": None, "send_seed": False, "max_tokens_field": "max_tokens"}
    build(**fields, answer_format="text").write([wish()])
    [body] = chat_server.requests
    assert set(body) == {"model", "messages", "max_tokens"}


def test_models_from_before_strict_schemas_are_asked_for_json(build, chat_server):
    [answer] = build(answer_format="json").write([wish(3)])
    [body] = chat_server.requests
    assert body["response_format"] == {"type": "json_object"}
    # services refuse JSON mode unless the messages ask for JSON
    assert "JSON" in body["messages"][0]["content"]
    assert len(answer.texts) == 3


def test_an_answered_request_is_never_sent_again(build, chat_server, ledger):
    first = build().write([wish(4), wish(4, seed=2)])
    assert build().write([wish(4), wish(4, seed=2)]) == first
    assert len(chat_server.requests) == 2
    assert ledger.totals().cached == 2


def test_another_round_seed_count_or_model_is_another_request(build, chat_server):
    build().write([wish(), wish(round=1), wish(seed=2), wish(3)])
    build(model="large").write([wish()])
    assert len(chat_server.requests) == 5


def test_many_texts_are_asked_for_in_several_calls(build, chat_server):
    [answer] = build(texts_per_call=4).write([wish(10)])
    assert len(set(answer.texts)) == 10
    asked = [
        re.search(r"Write (\d+)", body["messages"][-1]["content"])[1]
        for body in chat_server.requests
    ]
    assert sorted(asked) == ["2", "4", "4"]


def test_answers_do_not_depend_on_concurrency_which_is_bounded(build, chat_server, tmp_path):
    chat_server.delay = 0.02
    requests = [wish(2, seed=seed) for seed in range(12)]
    many = build(concurrency=4).write(requests)
    assert 2 <= chat_server.most_in_flight <= 4
    other = ChatWriter(
        ChatWriterConfig(model="small", base_url=chat_server.url, api_key_env=None, concurrency=1),
        Ledger(open_objects(tmp_path / "other")),
    )
    assert other.write(requests) == many


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ({"retry_after_ms": "200"}, 0.2),
        ({"retry_after": "0.3"}, 0.3),
        ({"retry_after": "later"}, 0.0),
    ],
)
def test_a_rate_limit_is_waited_out_as_the_service_asks(build, chat_server, ledger, header, wait):
    chat_server.queue = [chat_server.error(429, "slow down", **header)]
    [answer] = build().write([wish()])
    assert len(answer.texts) == 2
    assert chat_server.times[1] - chat_server.times[0] >= wait
    assert ledger.totals().errors == 1


def test_a_date_in_retry_after_is_understood(build, chat_server):
    date = formatdate(time.time() + 2, usegmt=True)
    chat_server.queue = [chat_server.error(503, retry_after=date)]
    build().write([wish()])
    assert 0.5 <= chat_server.times[1] - chat_server.times[0] <= 2.5


def test_a_longer_pause_than_allowed_ends_the_call_at_once(build, chat_server):
    chat_server.queue = [chat_server.error(429, retry_after="3600")]
    with pytest.raises(TransientError, match="429") as caught:
        build().write([wish()])
    assert caught.value.retry_after == 3600
    assert len(chat_server.requests) == 1


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503])
def test_a_passing_fault_is_retried(build, chat_server, status):
    chat_server.queue = [chat_server.error(status)] * 2
    [answer] = build().write([wish()])
    assert len(answer.texts) == 2
    assert len(chat_server.requests) == 3


def test_a_cut_off_response_body_and_one_that_is_no_json_are_retried(build, chat_server, ledger):
    status, headers, data = chat_server.completion(["a cat"])
    cut = {**headers, "content-length": str(len(data) + 100), "connection": "close"}
    chat_server.queue = [(status, cut, data), (status, headers, data[:40])]
    [answer] = build(timeout=2).write([wish()])
    assert len(answer.texts) == 2
    assert ledger.totals().errors == 2


def test_a_service_that_is_too_slow_is_asked_again(build, chat_server):
    chat_server.delay = 0.5
    with pytest.raises(TransientError, match="no answer"):
        build(timeout=0.1, max_retries=1).write([wish()])
    assert len(chat_server.requests) == 2


def test_nobody_at_the_address_is_a_transient_error(build):
    with pytest.raises(TransientError, match=r"127.0.0.1:9.* gave no answer"):
        build(base_url="http://127.0.0.1:9/v1").write([wish()])


def test_a_call_that_is_never_answered_fails_alone(build, chat_server):
    chat_server.queue = [chat_server.error(500, "boom")] * 3
    failed, fine = build(concurrency=1).write([wish(), wish(seed=2)])
    assert failed.texts == ()
    assert failed.failure.startswith("failed: ")
    assert "boom" in failed.failure
    assert not failed.refused
    assert len(fine.texts) == 2


def test_a_service_that_went_down_is_not_asked_by_every_call(build, chat_server, ledger):
    chat_server.queue = [chat_server.completion(["a cat"] * 2)] + [chat_server.error(500)] * 99
    wishes = [wish(seed=seed) for seed in range(20)]
    with pytest.raises(TransientError, match="500"):
        build(concurrency=1).write(wishes)
    assert len(chat_server.requests) == 1 + 3 * 3
    assert ledger.totals().calls == 1


def test_after_an_outage_nothing_is_paid_twice_and_nothing_is_missing(build, chat_server):
    chat_server.queue = [chat_server.completion(["a cat"] * 2)] + [chat_server.error(503)] * 9
    wishes = [wish(seed=seed) for seed in range(20)]
    with pytest.raises(TransientError):
        build(concurrency=1).write(wishes)
    sent = len(chat_server.requests)
    assert all(len(answer.texts) == 2 for answer in build().write(wishes))
    assert len(chat_server.requests) - sent == 19


def test_what_nobody_wants_any_more_is_not_asked_for_and_what_was_asked_is_kept(
    build, chat_server, ledger
):
    chat_server.delay = 0.05
    writer = build(concurrency=2)
    wishes = [wish(seed=seed) for seed in range(20)]
    answers = writer.write_while(wishes, lambda: len(chat_server.requests) < 4)
    asked = len(chat_server.requests)
    assert 4 <= asked < 20
    assert sum(bool(answer.texts) for answer in answers) == ledger.totals().calls == asked
    assert all(answers[index].texts or answers[index].failure for index in range(20))
    assert all(answer.texts for answer in writer.write(wishes))
    assert len(chat_server.requests) == 20


def test_a_service_that_is_waited_for_is_given_up_when_nobody_wants_it(build, chat_server):
    chat_server.queue = [chat_server.error(429, "later", retry_after="50")] * 99
    began = time.monotonic()
    with pytest.raises(TransientError, match="given up"):
        build(max_wait=60).write_while([wish()], lambda: not chat_server.requests)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refused_request_is_an_input_error_in_the_services_words(build, chat_server, status):
    chat_server.queue = [chat_server.error(status, f"unknown model, key {ENTRY}")]
    with pytest.raises(InputError, match="unknown model") as caught:
        build().write([wish()])
    assert ENTRY not in str(caught.value)
    assert len(chat_server.requests) == 1


def test_an_account_without_credit_is_not_asked_again(build, chat_server):
    chat_server.queue = [chat_server.error(429, "pay first", code="insufficient_quota")]
    with pytest.raises(InputError, match="pay first"):
        build().write([wish()])
    assert len(chat_server.requests) == 1


def test_a_refusal_is_told_apart_from_a_failure(build, chat_server, ledger):
    chat_server.queue = [
        chat_server.completion(content="", refusal="I would rather not"),
        chat_server.completion(content="", finish="content_filter"),
        chat_server.error(400, "filtered", code="content_filter"),
    ]
    answers = build(concurrency=1).write([wish(seed=seed) for seed in range(3)])
    assert all(answer.refused and answer.texts == () for answer in answers)
    assert answers[0].failure == "refused: I would rather not"
    assert ledger.totals().calls == 2


def test_a_cut_off_answer_gives_its_whole_texts(build, chat_server):
    content = '{"texts": ["a cat \\u00e9", "a \\"cat\\"", "a c'
    chat_server.queue = [chat_server.completion(content=content, finish="length")]
    [answer] = build().write([wish(5)])
    assert answer.texts == ("a cat \u00e9", 'a "cat"')
    assert "cut off" in answer.failure
    assert not answer.refused


@pytest.mark.parametrize(
    ("content", "texts", "words"),
    [
        ("Sure! Here you are: cats.", (), "holds no texts"),
        ('```json\n{"texts": ["a cat", "cats"]}\n```', ("a cat", "cats"), ""),
        ('{"texts": ["a cat"]}', ("a cat",), "holds 1 of 2"),
        ('{"texts": ["a", "b", "c"]}', ("a", "b"), ""),
        ('{"captions": ["a"]}', ("a",), "holds 1 of 2"),
    ],
)
def test_an_answer_of_another_shape_says_what_is_missing(build, chat_server, content, texts, words):
    chat_server.queue = [chat_server.completion(content=content)]
    [answer] = build().write([wish(2)])
    assert answer.texts == texts
    assert words in answer.failure
    assert bool(answer.failure) == bool(words)


def test_half_characters_and_numbers_that_are_none_do_no_harm(build, chat_server):
    content = '{"texts": ["a cat \\ud83d", "cats \\ud83d\\ude00"]}'
    status, headers, data = chat_server.completion(content=content)
    data = data.replace(b'"id": "x"', b'"id": "\\ud83d", "speed": NaN')
    chat_server.queue = [(status, {**headers, "content-length": str(len(data))}, data)]
    [answer] = build().write([wish(2)])
    assert answer.texts == ("a cat \ufffd", "cats \U0001f600")
    assert build().write([wish(2)]) == [answer]
    assert len(chat_server.requests) == 1


def test_json_without_choices_is_no_answer_and_is_not_kept_as_one(build, chat_server, ledger):
    reply = (200, {"content-type": "application/json"}, b'{"hello": 1}')
    chat_server.queue = [reply]
    [answer] = build().write([wish()])
    assert len(answer.texts) == 2
    totals = ledger.totals()
    assert (totals.calls, totals.errors, totals.unmetered) == (1, 1, 0)


def test_a_missing_key_names_the_variable(build, monkeypatch):
    monkeypatch.delenv("WRITER_KEY")
    with pytest.raises(InputError, match="WRITER_KEY"):
        build()


def test_the_key_is_sent_and_never_stored_or_logged(build, chat_server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    chat_server.queue = [chat_server.error(500, f"your key {ENTRY} is fine")]
    build().write([wish()])
    assert chat_server.headers[0]["authorization"] == f"Bearer {ENTRY}"
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any(ENTRY in text for text in [*files, caplog.text])


def test_an_address_with_a_password_in_it_is_refused():
    with pytest.raises(ValueError, match="base_url"):
        ChatWriterConfig(model="m", base_url="http://me:secret@host/v1")


def test_money_is_counted_where_prices_are_known_and_unknown_otherwise(build, ledger):
    assert ledger.totals().cost_usd == 0
    build(prices=Prices(prompt=1.0, completion=4.0)).write([wish()])
    assert ledger.totals().cost_usd == pytest.approx((100 * 1 + 50 * 4) / 1e6)
    build().write([wish(seed=9)])
    assert ledger.totals().cost_usd is None


def test_a_money_budget_needs_prices():
    with pytest.raises(ValueError, match="needs prices"):
        ChatWriterConfig(model="m", budget_usd=1)


def worst_case(chat_server, max_tokens):
    body = json.dumps(chat_server.requests[0], separators=(",", ":"), ensure_ascii=False)
    return len(body.encode()) + 64 + max_tokens


def test_a_budget_stops_before_the_call_that_could_pass_it(build, chat_server, ledger):
    build(max_tokens=500).write([wish(seed=0)])
    worst = worst_case(chat_server, 500)
    budget = 3 * 150 + worst + 20  # room for the worst case after three answers, not after four
    writer = build(max_tokens=500, budget_tokens=budget, concurrency=4)
    with pytest.raises(BudgetError, match="budget_tokens"):
        writer.write([wish(seed=seed) for seed in range(10)])
    assert ledger.totals().calls == len(chat_server.requests) == 4
    with pytest.raises(BudgetError):
        writer.write([wish(seed=seed) for seed in range(10)])
    assert len(chat_server.requests) == 4


def test_calls_in_flight_count_by_their_worst_case(build, chat_server):
    build(max_tokens=500).write([wish(seed=0)])
    chat_server.delay, chat_server.most_in_flight = 0.05, 0
    worst = worst_case(chat_server, 500)
    room = build(max_tokens=500, budget_tokens=150 + 2 * worst + 8 * 150, concurrency=8)
    room.write([wish(seed=seed) for seed in range(1, 7)])
    assert chat_server.most_in_flight in {2, 3}


def test_a_money_budget_counts_what_other_processes_spent(build, chat_server, tmp_path):
    prices = {"prompt": 0.0, "completion": 1e6}
    build(prices=prices, max_tokens=50, budget_usd=100).write([wish(seed=0)])
    again = ChatWriter(
        ChatWriterConfig(
            model="small",
            base_url=chat_server.url,
            api_key_env="WRITER_KEY",
            prices=prices,
            max_tokens=50,
            budget_usd=120,
        ),
        Ledger(open_objects(tmp_path)),
    )
    with pytest.raises(BudgetError, match=r"100\.0000 USD are spent .* budget_usd = 120"):
        again.write([wish(seed=1), wish(seed=2)])
    assert len(chat_server.requests) == 2


def test_a_call_without_usage_counts_by_its_worst_case(build, chat_server, ledger):
    chat_server.queue = [chat_server.completion(["a cat"] * 2, usage=None)]
    build(max_tokens=500).write([wish()])
    totals = ledger.totals()
    assert (totals.unmetered, totals.prompt_tokens, totals.cost_usd) == (1, 0, None)
    tokens, _ = ledger.spent(None)
    assert tokens == worst_case(chat_server, 500)


PROGRAM = """
import sys
from models.writing.calls import cut_calls
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from models.writing.instructions import load_instructions
from models.writing.probe import ask_once
from models.protocols import TextRequest
from storage.ledger import Ledger
from storage.objects import open_objects
from storage.vocabulary import load_vocabulary

config = ChatWriterConfig(model="small", base_url=sys.argv[1], api_key_env=None, concurrency=1)
classes = (load_vocabulary("lvis1205").by_name("cat"),)
writer = ChatWriter(config, Ledger(open_objects(sys.argv[2])))
print(len(writer.write([TextRequest(classes, 2, seed) for seed in range(3)])))
"""


@pytest.mark.parametrize(("step", "repeated"), [("named:*answers*", 0), ("temp:*answers*", 1)])
def test_a_killed_writer_repeats_no_call_whose_answer_is_on_disk(
    chat_server, tmp_path, step, repeated
):
    command = [sys.executable, "-c", PROGRAM, chat_server.url, str(tmp_path)]
    killed = subprocess.run(command, env={**os.environ, "MAGICSEG_CRASH_AT": step}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(chat_server.requests) == 1
    rerun = subprocess.run(command, capture_output=True, text=True, check=True)
    assert rerun.stdout == "3\n"
    assert len(chat_server.requests) == 3 + repeated
    assert len({json.dumps(body) for body in chat_server.requests}) == 3


@pytest.mark.parametrize("end", ["/", "/chat/completions"])
def test_another_spelling_of_the_address_pays_nothing_again(build, chat_server, end):
    first = build().write([wish()])
    assert build(base_url=chat_server.url + end).write([wish()]) == first
    assert len(chat_server.requests) == 1


def test_what_an_earlier_version_paid_at_a_strange_spelling_is_found(build, chat_server, ledger):
    build().write([wish()])
    [answer] = ledger.answers()
    config = ChatWriterConfig(
        model="small", base_url=f"{chat_server.url}/", api_key_env="WRITER_KEY"
    )
    [call] = cut_calls(config, [wish()], load_instructions(config.instructions))
    [earlier] = call.earlier_keys
    other = Ledger(open_objects("memory://spelling"))
    other.add(answer.model_copy(update={"key": earlier}))
    assert len(ChatWriter(config, other).write([wish()])[0].texts) == 2
    assert len(chat_server.requests) == 1


def test_fields_and_headers_of_ones_own_go_along_and_tell_requests_apart(
    build, chat_server, monkeypatch, tmp_path
):
    monkeypatch.setenv("PROJECT", "very-secret-project")
    more = {"extra_body": {"top_p": 0.9}, "extra_headers": {"X-Project-Key": "$PROJECT"}}
    build(**more).write([wish()])
    assert chat_server.requests[0]["top_p"] == 0.9
    assert chat_server.headers[0]["x-project-key"] == "very-secret-project"
    files = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert not any("very-secret" in text for text in files)
    build().write([wish()])
    assert len(chat_server.requests) == 2
    chat_server.queue = [chat_server.error(400, "bad very-secret-project")]
    with pytest.raises(InputError, match=r"bad \*\*\*"):
        build(**more).write([wish(seed=5)])


def test_settings_that_are_not_used_leave_the_identity_as_it_was():
    config = ChatWriterConfig(model="m")
    assert not {"extra_body", "extra_headers", "mode", "batch"} & set(config.identity())
    other = ChatWriterConfig(model="m", extra_body={"top_p": 0.9})
    assert other.identity() != config.identity()
    assert hash(other) != hash(config)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"extra_body": {"max_tokens": 9}}, "max_tokens"),
        ({"extra_headers": {"Authorization": "Bearer x"}}, r"\$MY_KEY"),
    ],
)
def test_what_the_writer_must_set_itself_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ChatWriterConfig(model="m", **options)


def test_a_header_whose_variable_is_missing_names_it(build):
    with pytest.raises(InputError, match="NOT_THERE"):
        build(extra_headers={"X-Team": "$NOT_THERE"})


def test_the_parameters_of_an_address_go_with_every_request_and_azure_gets_its_header(
    build, chat_server
):
    build(base_url=f"{chat_server.url}?api-version=2024-10-21").write([wish()])
    assert chat_server.headers[0]["api-key"] == ENTRY


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_by_itself_costs_that_class_alone(build, chat_server, status):
    chat_server.queue = [None, chat_server.error(status, "not this class, please")]
    answers = build(concurrency=1).write([wish(seed=seed) for seed in range(4)])
    assert [bool(answer.texts) for answer in answers] == [True, False, True, True]
    assert "not this class" in answers[1].failure


def test_a_service_that_refuses_every_request_ends_the_run_soon(build, chat_server):
    chat_server.queue = [chat_server.error(400, "never")] * 50
    with pytest.raises(InputError, match="never"):
        build(concurrency=1).write([wish(seed=seed) for seed in range(20)])
    assert len(chat_server.requests) == 3


def test_a_proxy_that_does_not_answer_is_named(build, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:hidden@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(
        TransientError, match=r"through the proxy 127\.0\.0\.1:9 that HTTP_PROXY"
    ) as e:
        build(base_url="http://service.example/v1", max_retries=0).write([wish()])
    assert "hidden" not in str(e.value)


def test_what_was_read_in_an_answer_is_kept_with_it(build, chat_server, ledger):
    chat_server.queue = [chat_server.completion(content="1. a cat sleeps\n2. a cat wakes")]
    build().write([wish()])
    [answer] = ledger.answers()
    assert (answer.reading.form, answer.reading.texts) == ("lines", 2)
    assert answer.response["choices"][0]["message"]["content"].startswith("1. a cat")


def test_a_question_of_the_doctor_is_answered_with_its_cost(chat_server, ledger):
    config = ChatWriterConfig(
        model="m",
        base_url=chat_server.url,
        api_key_env=None,
        prices=Prices(prompt=1.0, completion=2.0),
    )
    words = ask_once(config, ledger, CAT)
    assert "100 tokens read and 50 written, for 0.000200 USD" in words
    assert ask_once(config, ledger, CAT) == words
    assert len(chat_server.requests) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [("<think>hm", "answered without a text"), (None, "answered without a text")],
)
def test_the_doctor_sees_an_answer_without_texts(chat_server, ledger, content, words):
    reply = json.loads(chat_server.completion(["x"])[2])
    reply["choices"][0]["message"]["content"] = content
    chat_server.queue = [(200, {}, json.dumps(reply).encode())]
    config = ChatWriterConfig(model="m", base_url=chat_server.url, api_key_env=None)
    with pytest.raises(InputError, match=words):
        ask_once(config, ledger, CAT)


@pytest.mark.parametrize(
    ("field", "advice", "followed"),
    [
        ("response_format", r"answer_format \(json or text\)", {"answer_format": "text"}),
        ("seed", r"send_seed \(false\)", {"send_seed": False}),
        ("temperature", r"temperature \(1, or null", {"temperature": None}),
        (
            "max_completion_tokens",
            r"max_tokens_field \(max_tokens\)",
            {"max_tokens_field": "max_tokens"},
        ),
    ],
)
def test_the_setting_that_an_error_names_helps(build, chat_server, field, advice, followed):
    obey = chat_server.reply

    def strict(body, headers):
        if field in body:
            return chat_server.error(400, f"Unrecognized request argument supplied: {field}")
        return obey(body, headers)

    chat_server.reply = strict
    with pytest.raises(InputError, match=advice):
        build().write([wish()])
    assert len(build(**followed).write([wish()])[0].texts) == 2


def test_the_address_that_an_error_names_helps(build, chat_server):
    obey, root = chat_server.reply, chat_server.url.removesuffix("/v1")
    chat_server.reply = lambda body, headers: (404, {}, b"404 page not found")
    with pytest.raises(InputError) as caught:
        build(base_url=root).write([wish()])
    [advised] = re.findall(r"here (http://\S+)", str(caught.value))
    chat_server.reply = obey
    assert len(build(base_url=advised).write([wish()])[0].texts) == 2


def test_fewer_texts_a_call_help_where_a_request_is_too_long(build, chat_server):
    obey = chat_server.reply

    def short(body, headers):
        if "Write 10 captions" in body["messages"][-1]["content"]:
            return chat_server.error(400, "this model's maximum context length is 128 tokens")
        return obey(body, headers)

    chat_server.reply = short
    with pytest.raises(InputError, match=r"texts_per_call and max_tokens \(lower them\)"):
        build().write([wish(10)])
    assert len(build(texts_per_call=5).write([wish(10)])[0].texts) == 10


def test_a_raised_budget_lets_the_same_command_go_on(build, chat_server):
    wishes = [wish(seed=seed) for seed in range(4)]
    build(max_tokens=500).write(wishes[:1])
    budget = worst_case(chat_server, 500) + 150 + 20  # for two calls, not for four
    with pytest.raises(BudgetError, match="raise the budget and run the same command again"):
        build(max_tokens=500, budget_tokens=budget, concurrency=1).write(wishes)
    sent = len(chat_server.requests)
    assert 0 < sent < 4
    answers = build(max_tokens=500, budget_tokens=100_000, concurrency=1).write(wishes)
    assert all(len(answer.texts) == 2 for answer in answers)
    assert len(chat_server.requests) == 4


def test_a_host_in_no_proxy_is_asked_directly(build, chat_server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(TransientError, match="NO_PROXY lists the hosts that are asked directly"):
        build(max_retries=0).write([wish()])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert len(build(max_retries=0).write([wish()])[0].texts) == 2
