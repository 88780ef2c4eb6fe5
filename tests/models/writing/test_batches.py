"""A language model that is asked by batches: each text is paid once, whatever goes wrong."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from models.protocols import BatchingWriter, TextRequest
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from storage.errors import BudgetError, InputError
from storage.ledger import Ledger
from storage.objects import open_objects
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("lvis1205")
CAT = VOCABULARY.by_name("cat")
PRICES = {"prompt": 1.0, "completion": 2.0}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "dataset"


@pytest.fixture
def config(batch_server):
    def configure(**options):
        defaults = {
            "model": "small",
            "base_url": batch_server.url,
            "api_key_env": None,
            "first_wait": 0.01,
            "max_retries": 1,
            "mode": "batch",
        }
        return ChatWriterConfig.model_validate({**defaults, **options})

    return configure


@pytest.fixture
def writer(config, root, batch_server):
    """A writer as a new process has it."""

    def build(**options):
        def clock():
            return datetime.fromtimestamp(batch_server.now, UTC)

        return ChatWriter(config(**options), Ledger(open_objects(root)), clock)

    return build


def wishes(count=6, first=0):
    return [TextRequest((CAT,), 2, seed) for seed in range(first, first + count)]


def quiet():
    pass


def ask(writer, requests):
    """What a run does: look, want, send, and want again what came of it at once."""
    writer.settle(quiet)
    answers = writer.write(requests)
    while any(each.awaited for each in answers) and writer.send(quiet, lambda: True):
        answers = writer.write(requests)
    return answers


def texts(answers):
    return [each.texts for each in answers]


def totals(root):
    return Ledger(open_objects(root)).totals()


def job_of(batch):
    return batch["metadata"]["magicseg_job"]


def test_calls_wait_for_a_batch_and_have_then_the_texts_of_calls_that_are_made_at_once(
    writer, config, batch_server, tmp_path, root
):
    answers = ask(writer(), wishes())
    assert all(each.awaited and not each.texts for each in answers)
    [name] = batch_server.batches
    assert len(batch_server.requests_of(name)) == 6
    assert all(each.awaited for each in ask(writer(), wishes()))
    batch_server.now += 24 * 3600 + 600  # later than promised
    assert all(each.awaited for each in ask(writer(), wishes()))
    batch_server.finish(name)
    answers = ask(writer(), wishes())
    at_once = ChatWriter(config(mode="sync"), Ledger(open_objects(tmp_path / "other")))
    assert texts(answers) == texts(at_once.write(wishes()))
    assert all(len(each.texts) == 2 and not each.failure for each in answers)
    assert list(batch_server.batches) == [name]
    assert totals(root).calls == 6


def test_a_writer_of_batches_is_one_for_the_stages(writer):
    assert isinstance(writer(), BatchingWriter)


def test_the_lines_name_the_calls_by_content_and_the_batch_names_dataset_and_job(
    writer, batch_server, root
):
    ask(writer(), wishes())
    [batch] = batch_server.batches.values()
    assert batch["endpoint"] == "/v1/chat/completions"
    assert batch["completion_window"] == "24h"
    assert set(batch["metadata"]) == {"magicseg_dataset", "magicseg_job"}
    for line in batch_server.files[batch["input_file_id"]].splitlines():
        line = json.loads(line)
        assert set(line) == {"custom_id", "method", "url", "body"}
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        assert len(line["custom_id"]) == 64


def test_answers_cost_what_a_batch_costs(writer, batch_server, root):
    ask(writer(prices=PRICES), wishes())
    batch_server.finish("batch-0000")
    ask(writer(prices=PRICES), wishes())
    assert totals(root).cost_usd == pytest.approx(6 * (100 * 0.5 + 50 * 1.0) / 1e6)


def test_every_line_is_settled_and_only_the_rest_is_asked_again(writer, batch_server, root):
    ask(writer(), wishes(8))
    asked = batch_server.requests_of("batch-0000")
    keys = list(asked)
    answered = [batch_server.answer(key, asked[key]) for key in keys[:4]]
    output = [*answered, answered[1], {**answered[0], "custom_id": "0" * 64}]
    random.Random(1).shuffle(output)  # noqa: S311 - no secret
    errors = [
        batch_server.unfinished(keys[4]),
        batch_server.fault(keys[5], 500, "boom"),
        batch_server.fault(keys[6], 400, "no", "content_filter"),
    ]  # nothing at all of the last one
    batch_server.finish("batch-0000", "expired", output, errors, raw=b'{"cut off\n\xff\n')
    answers = ask(writer(), wishes(8))
    assert [bool(each.texts) for each in answers] == [True] * 4 + [False] * 4
    assert [each.awaited for each in answers] == [False] * 4 + [True, True, False, True]
    assert answers[6].refused
    assert set(batch_server.requests_of("batch-0001")) == {keys[4], keys[5], keys[7]}
    assert totals(root).calls == 4
    batch_server.finish("batch-0001")
    answers = ask(writer(), wishes(8))
    assert [bool(each.texts) for each in answers] == [True] * 6 + [False, True]
    assert set(batch_server.paid.values()) == {1}
    assert totals(root).calls == 7


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_what_a_batch_had_answered_before_its_end_is_kept(writer, batch_server, root, status):
    ask(writer(), wishes(4))
    asked = batch_server.requests_of("batch-0000")
    done = [batch_server.answer(key, asked[key]) for key in list(asked)[:3]]
    rest = list(asked)[3:]
    unfinished = [batch_server.unfinished(key, f"batch_{status}") for key in rest]
    batch_server.finish("batch-0000", status, done, unfinished)
    ask(writer(), wishes(4))
    assert list(batch_server.requests_of("batch-0001")) == rest
    assert totals(root).calls == 3


def test_a_response_without_choices_is_no_answer(writer, batch_server, root):
    ask(writer(), wishes(2))
    lines = [
        {
            "id": "l",
            "custom_id": key,
            "response": {"status_code": 200, "request_id": "r", "body": body},
            "error": None,
        }
        for key, body in zip(
            batch_server.requests_of("batch-0000"), [{"choices": []}, "no JSON"], strict=True
        )
    ]
    batch_server.finish("batch-0000", output=lines)
    assert all(each.awaited for each in ask(writer(), wishes(2)))
    assert totals(root).calls == 0
    assert len(batch_server.requests_of("batch-0001")) == 2


def test_what_several_batches_failed_is_asked_for_directly(writer, batch_server, root):
    for number in range(3):
        ask(writer(), wishes(1))
        [key] = batch_server.requests_of(f"batch-{number:04d}")
        batch_server.finish(f"batch-{number:04d}", output=[], errors=[batch_server.fault(key, 500)])
    [answer] = ask(writer(), wishes(1))
    assert len(answer.texts) == 2
    assert len(batch_server.batches) == 3
    assert len(batch_server.chat.requests) == 1


def test_a_change_of_mode_pays_nothing_twice(writer, batch_server, root):
    ask(writer(), wishes(3))
    answers = ask(writer(mode="sync"), wishes(5))
    assert [each.awaited for each in answers] == [True] * 3 + [False] * 2
    assert len(batch_server.chat.requests) == 2
    batch_server.finish("batch-0000")
    answers = ask(writer(mode="sync"), wishes(5))
    assert all(each.texts for each in answers)
    assert len(batch_server.chat.requests) == 2
    assert all(each.texts for each in ask(writer(), wishes(5)))
    assert len(batch_server.batches) == 1
    assert totals(root).calls == 5


def test_auto_makes_batches_where_the_service_can_and_of_enough_calls(writer, batch_server, root):
    options = {"mode": "auto", "batch": {"min_calls": 4}}
    assert all(each.texts for each in ask(writer(**options), wishes(3)))
    assert not batch_server.batches
    assert all(each.awaited for each in ask(writer(**options), wishes(4, first=10)))
    assert len(batch_server.batches) == 1
    batch_server.finish("batch-0000")
    ask(writer(**options), wishes(4, first=10))
    batch_server.has_api = False
    assert all(each.texts for each in ask(writer(**options), wishes(5, first=20)))
    assert len(batch_server.batches) == 1


def test_auto_asks_once_what_the_service_can(writer, batch_server):
    batch_server.has_api = False
    asking = writer(mode="auto")
    for first in range(0, 40, 10):
        ask(asking, wishes(2, first))
    assert batch_server.calls == ["GET /batches"]


def test_a_service_without_batches_is_an_input_error_that_names_the_ways_out(writer, batch_server):
    batch_server.has_api = False
    with pytest.raises(InputError, match=r"no Batch API.*mode: sync.*run-batch"):
        ask(writer(), wishes())


def test_a_key_that_may_not_do_that_is_an_input_error(writer, batch_server):
    ask(writer(), wishes())
    batch_server.refusal = (403, "no rights")
    with pytest.raises(InputError, match="no rights"):
        ask(writer(), wishes(3, first=100))
    batch_server.refusal = None
    batch_server.finish("batch-0000")
    answers = ask(writer(), [*wishes(), *wishes(3, first=100)])
    assert [each.awaited for each in answers] == [False] * 6 + [True] * 3
    assert len(batch_server.batches) == 2


def test_batches_keep_the_services_limits(writer, batch_server):
    ask(writer(batch={"max_calls": 4}), wishes(10))
    sizes = [len(batch_server.requests_of(name)) for name in batch_server.batches]
    assert sizes == [4, 4, 2]


def test_a_service_without_room_gets_the_same_batch_again_later(writer, batch_server, root):
    batch_server.room = 2
    assert all(each.awaited for each in ask(writer(), wishes()))
    assert batch_server.batches["batch-0000"]["status"] == "failed"
    batch_server.room = None
    ask(writer(), wishes())
    assert len(batch_server.files) == 1
    batch_server.finish("batch-0001")
    assert all(each.texts for each in ask(writer(), wishes()))
    assert len(batch_server.batches) == 2


def test_a_batch_that_the_service_does_not_begin_ends_the_run_with_its_words(writer, batch_server):
    ask(writer(), wishes())
    problem = {"code": "model_not_found", "message": "there is no small"}
    batch_server.batches["batch-0000"] |= {
        "status": "failed",
        "errors": {"object": "list", "data": [problem]},
    }
    with pytest.raises(InputError, match="there is no small"):
        ask(writer(), wishes())
    assert all(each.awaited for each in ask(writer(), wishes()))
    assert len(batch_server.batches) == 2


def test_calls_that_the_service_refuses_end_the_run_when_all_others_are_settled(
    writer, batch_server, root
):
    ask(writer(), wishes(3))
    asked = batch_server.requests_of("batch-0000")
    first, *rest = asked
    output = [batch_server.answer(key, asked[key]) for key in rest]
    errors = [batch_server.fault(first, 401, "your account is closed", "account_deactivated")]
    batch_server.finish("batch-0000", output=output, errors=errors)
    with pytest.raises(InputError, match="your account is closed"):
        ask(writer(), wishes(3))
    assert totals(root).calls == 2


def test_a_batch_that_is_gone_is_told_and_can_be_forgotten(writer, batch_server, root):
    ask(writer(), wishes())
    job = job_of(batch_server.batches.pop("batch-0000"))
    with pytest.raises(InputError, match="magicseg batch forget"):
        ask(writer(), wishes())
    Ledger(open_objects(root)).batches.forget(job, datetime.now(UTC))
    ask(writer(), wishes())
    assert len(batch_server.batches) == 1


@pytest.mark.parametrize("lost", ["POST /files", "POST /batches", "GET /batches"])
def test_a_response_that_is_lost_costs_no_second_batch(writer, batch_server, lost):
    asking = writer()
    asking.write(wishes())
    asking._desk._service.is_there()
    batch_server.drops = [lost]
    assert asking.send(quiet, lambda: True) is False
    ask(writer(), wishes())
    [name] = batch_server.batches
    batch_server.finish(name)
    assert all(each.texts for each in ask(writer(), wishes()))
    assert set(batch_server.paid.values()) == {1}


@pytest.mark.parametrize("lost", ["GET /batches/batch-0000", "GET /files/file-0001/content"])
def test_a_look_without_a_response_is_repeated_later(writer, batch_server, lost, root):
    ask(writer(), wishes())
    batch_server.finish("batch-0000")
    batch_server.drops = [lost]
    assert all(each.awaited for each in ask(writer(), wishes()))
    assert all(each.texts for each in ask(writer(), wishes()))
    assert len(batch_server.batches) == 1
    assert totals(root).calls == 6


def test_two_workers_make_one_batch_of_the_same_calls(writer, batch_server):
    one, two = writer(), writer()
    one.write(wishes())
    two.write(wishes(8))
    one.send(quiet, lambda: True)
    two.send(quiet, lambda: True)
    sizes = [len(batch_server.requests_of(name)) for name in batch_server.batches]
    assert sizes == [6, 2]
    assert two.awaited().calls == 8


def test_two_workers_that_send_at_the_same_time_make_one_batch(writer, batch_server):
    workers = [writer() for _ in range(4)]
    for each in workers:
        each.write(wishes())
    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(lambda each: each.send(quiet, lambda: True), workers))
    assert len(batch_server.batches) == 1


@pytest.mark.parametrize("has_pages", [True, False])
def test_a_batch_is_found_again_behind_many_others(writer, batch_server, has_pages):
    asking = writer()
    asking.write(wishes())
    asking._desk._service.is_there()
    batch_server.drops = ["POST /batches"]
    asking.send(quiet, lambda: True)
    [batch] = batch_server.batches.values()
    for number in range(7):
        name = f"other-{number}"
        batch_server.batches[name] = {**batch, "id": name, "metadata": None}
    batch_server.most_listed, batch_server.has_pages = 3, has_pages
    ask(writer(), wishes())
    assert len(batch_server.batches) == (8 if has_pages else 9)  # without pages nobody finds it


HOSTILE = [
    b"",
    b"\n\n",
    b"null\n[]\n3\n",
    b'{"custom_id": 3}\n',
    b'{"custom_id": "KEY"}\n',
    b'{"custom_id": "KEY", "response": []}\n',
    b'{"custom_id": "KEY", "response": {"status_code": "200", "body": {"choices": [{}]}}}\n',
    b'{"custom_id": "KEY", "response": {"status_code": true, "body": "\\ud800"}}\n',
    b'{"custom_id": "KEY", "error": "no"}\n',
    b'{"custom_id": "KEY", "error": {"code": 3, "message": ["x"]}}\n',
    b'{"custom_id": "KEY", "response": {"status_code": 200, "body": ' + b"[" * 5000 + b"\n",
    b'{"custom_id": "KEY", "response": {"status_code": 200, "body": '
    + b'{"a":' * 300
    + b"1"
    + b"}" * 300
    + b"}}\n",
    b'{"custom_id": "KEY", "response": {"status_code": 500, "body": 1e999}}\n',
    b'{"custom_id": "KEY", "response": {"status_code": 200, "body": "<html>"}}\n',
    b"\x00\xff\xfe" * 100,
    b'{"custom_id": "KEY", "response": {"status_code": 99999999999999999999999, "body": {}}}\n',
]


@pytest.mark.parametrize("data", HOSTILE)
def test_a_strange_result_leaves_its_call_open_and_the_others_are_settled(
    writer, batch_server, root, data
):
    ask(writer(), wishes(2))
    asked = batch_server.requests_of("batch-0000")
    first, second = asked
    output = [batch_server.answer(second, asked[second])]
    raw = data.replace(b"KEY", first.encode())
    batch_server.finish("batch-0000", output=output, raw=raw)
    one, two = ask(writer(), wishes(2))
    assert (one.awaited, len(two.texts)) == (True, 2)
    assert list(batch_server.requests_of("batch-0001")) == [first]


@pytest.mark.parametrize("value", [b"1e999", b"NaN", b'"\\udc00"', b"[" * 200 + b"]" * 200])
def test_an_answer_with_strange_values_beside_its_texts_is_kept(writer, batch_server, root, value):
    ask(writer(), wishes(1))
    [(key, body)] = batch_server.requests_of("batch-0000").items()
    line = batch_server.answer(key, body)
    line["response"]["body"]["odd"] = "ODD"
    raw = json.dumps(line).encode().replace(b'"ODD"', value) + b"\n"
    batch_server.finish("batch-0000", output=[], raw=raw)
    [answer] = ask(writer(), wishes(1))
    assert len(answer.texts) == 2
    assert totals(root).calls == 1


def test_the_next_look_is_told(writer, batch_server):
    asking = writer(batch={"look_seconds": 600})
    ask(asking, wishes())
    found = asking.awaited()
    assert (found.calls, found.batches) == (6, 1)
    assert found.since.timestamp() == batch_server.now
    assert found.next_look.timestamp() == batch_server.now + 600


def test_open_batches_are_reserved_at_their_worst_for_every_worker(writer, batch_server, root):
    limits = {"budget_tokens": 40_000, "max_tokens": 1000}
    ask(writer(**limits), wishes(100))
    [name] = batch_server.batches
    some = len(batch_server.requests_of(name))
    assert 1 <= some < 40
    with pytest.raises(BudgetError, match="budget_tokens"):
        ask(writer(mode="sync", **limits), wishes(3, first=500))
    batch_server.finish(name)  # which took less than its worst case
    ask(writer(**limits), wishes(100))
    assert len(batch_server.batches) == 2
    assert totals(root).calls == some


def test_a_budget_with_no_room_for_one_call_stops_the_run(writer):
    with pytest.raises(BudgetError, match="raise the budget"):
        ask(writer(budget_tokens=1000), wishes())


def test_mode_and_batches_are_no_part_of_what_texts_depend_on(config):
    other = config(mode="auto", batch={"min_calls": 3})
    assert other.identity() == config(mode="sync").identity()
    assert not {"mode", "batch"} & set(other.identity())
