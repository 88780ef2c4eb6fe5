import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.errors import DataError
from storage.ledger import Answer, Ledger, Prices
from storage.objects import open_objects

KEY, OTHER = "a" * 64, "b" * 64


def make_answer(key=KEY, prompt=10, completion=5, prices=None, text="a cat"):
    return Answer(
        key=key,
        request={"body": {"model": "m"}},
        response={"choices": [{"text": text}]},
        prompt_tokens=prompt,
        completion_tokens=completion,
        most_prompt_tokens=100,
        most_completion_tokens=50,
        prices=prices,
        seconds=0.5,
    )


@pytest.fixture(params=["local", "memory"])
def objects(request, tmp_path):
    return open_objects(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")


def test_an_answer_is_found_by_any_ledger_on_the_same_store(objects):
    answer = Ledger(objects).add(make_answer())
    assert Ledger(objects).find(KEY) == answer
    assert Ledger(objects).find(OTHER) is None


def test_the_first_of_two_answers_counts_and_both_were_paid(objects):
    mine, theirs = Ledger(objects), Ledger(objects)
    first = theirs.add(make_answer(text="first"))
    assert mine.add(make_answer(text="second")) == first
    assert mine.find(KEY) == first
    for ledger in (mine, theirs, Ledger(objects)):
        assert ledger.totals().calls == 2
        assert ledger.totals().prompt_tokens == 20


def test_totals_add_up_over_processes(objects):
    ledger, other = Ledger(objects), Ledger(objects)
    ledger.add(make_answer(prices=Prices(prompt=2, completion=10)))
    other.add(make_answer(OTHER, 30, 7, prices=Prices(prompt=1, completion=1)))
    other.add_error(KEY, "500")
    other.add_error(KEY, "500 again")
    totals = ledger.totals()
    assert (totals.calls, totals.errors, totals.cached, totals.unmetered) == (2, 2, 0, 0)
    assert (totals.prompt_tokens, totals.completion_tokens) == (40, 12)
    assert totals.cost_usd == pytest.approx((10 * 2 + 5 * 10 + 30 + 7) / 1e6)


def test_errors_answer_nothing(objects):
    ledger = Ledger(objects)
    ledger.add_error(KEY, "500")
    assert ledger.find(KEY) is None
    assert ledger.totals().calls == 0


def test_unknown_is_not_free(objects):
    ledger, prices = Ledger(objects), Prices(prompt=1, completion=2)
    ledger.add(make_answer(prices=prices))
    assert ledger.totals().cost_usd == pytest.approx(20 / 1e6)
    ledger.add(make_answer(OTHER, None, None, prices=prices))
    totals = ledger.totals()
    assert (totals.cost_usd, totals.unmetered, totals.prompt_tokens) == (None, 1, 10)
    assert ledger.spent(prices) == (165, pytest.approx((20 + 200) / 1e6))
    assert make_answer().cost_usd is None


def test_what_others_spent_is_known_after_a_refresh(objects):
    ledger = Ledger(objects)
    Ledger(objects).add(make_answer())
    assert ledger.spent(None)[0] == 0
    ledger.refresh()
    ledger.refresh()
    assert ledger.spent(None)[0] == 15


def test_lookups_that_were_answered_are_counted(objects):
    ledger = Ledger(objects)
    ledger.add(make_answer())
    ledger.find(KEY)
    ledger.find(OTHER)
    assert ledger.totals().cached == 1


@pytest.mark.parametrize("data", [b"", b'{"key": "a"}', b"\xff"])
def test_a_damaged_record_is_told_with_its_path_and_the_way_out(tmp_path, data):
    objects = open_objects(tmp_path)
    Ledger(objects).add(make_answer())
    [path] = (tmp_path / ".engine" / "ledger" / "answers").iterdir()
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{path}.*magicseg verify --repair"):
        Ledger(objects).find(KEY)


def test_records_are_plain_json_files_named_by_their_key(tmp_path):
    Ledger(open_objects(tmp_path), "calls").add(make_answer())
    [path] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path == tmp_path / "calls" / "answers" / f"{KEY}.json"
    assert json.loads(path.read_text())["response"] == {"choices": [{"text": "a cat"}]}


PROGRAM = """
import sys
from storage.ledger import Answer, Ledger
from storage.objects import open_objects

ledger = Ledger(open_objects(sys.argv[1]))
for index in range(15):
    key = f"{index:064x}"
    answer = dict(key=key, request={}, response={"choices": [sys.argv[2]]}, prompt_tokens=1,
        completion_tokens=1, most_prompt_tokens=1, most_completion_tokens=1, prices=None, seconds=0)
    print(ledger.add(Answer(**answer)).response["choices"][0])
"""


def test_many_processes_agree_on_every_answer(tmp_path):
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), str(name)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in range(3)
    ]
    seen = [run.communicate()[0].split() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(seen[0]) == 15
    assert seen[0] == seen[1] == seen[2]
    assert Ledger(open_objects(tmp_path)).totals().calls == 45


def test_threads_that_share_a_ledger_count_every_answer_once(objects):
    ledger, keys = Ledger(objects), [f"{number:064x}" for number in range(8)]

    def ask(key):
        for _ in range(3):
            ledger.add(make_answer(key))
            ledger.refresh()
        return ledger.find(key).key

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, keys)) == keys
    totals = ledger.totals()
    assert (totals.calls, totals.cached, totals.prompt_tokens) == (24, 8, 240)


def test_threads_that_pay_for_one_request_agree_on_the_answer(objects):
    ledger = Ledger(objects)
    texts = [f"text {number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: ledger.add(make_answer(text=text)), texts))
    assert len({answer.response["choices"][0]["text"] for answer in answers}) == 1
    assert ledger.totals().calls == 8


PAY = """
import sys
from storage.ledger import Answer, Ledger
from storage.objects import open_objects
ledger = Ledger(open_objects(sys.argv[1]))
for number in range(50):
    answer = Answer(
        key=f"{number:064x}", request={}, response={"choices": [sys.argv[2]]}, prompt_tokens=1,
        completion_tokens=1, most_prompt_tokens=1, most_completion_tokens=1, prices=None, seconds=0,
    )
    print(ledger.add(answer).response["choices"][0])
"""


def test_two_processes_that_pay_for_the_same_requests_agree_on_the_answers(tmp_path, in_process):
    processes = [in_process(PAY, str(tmp_path), name) for name in ("first", "second")]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert Ledger(open_objects(tmp_path)).totals().calls == 100


def test_what_earlier_versions_filed_without_choices_is_no_answer_any_more(objects):
    ledger = Ledger(objects)
    broken = make_answer().model_copy(update={"response": {"error": {"message": "overloaded"}}})
    ledger.add(broken)
    later = Ledger(objects)
    assert later.totals().calls == 0
    assert later.find(KEY) is None
    assert later.totals().errors == 1
    assert later.add(make_answer()) == make_answer().model_copy(
        update={"created": later.find(KEY).created}
    )
    assert later.totals().calls == 1


def test_a_call_is_pending_until_it_is_settled_by_its_answer(objects):
    ledger = Ledger(objects)
    calls = [ledger.calls.file(KEY, (10, 20), None, 60) for _ in range(3)]
    assert ledger.calls.in_flight() == 3
    ledger.calls.settle(calls[0].token)
    ledger.calls.lose(calls[1].token)
    assert ledger.calls.in_flight() == 1
    assert {call.token for call in ledger.pending()} == {calls[1].token, calls[2].token}
    # a worker that was killed between the answer and the end of the call
    ledger.add(make_answer().model_copy(update={"call": calls[2].token}))
    later = Ledger(objects)
    later.refresh()
    assert [call.token for call in later.pending()] == [calls[1].token]
    assert later.calls.in_flight() == 0


def test_the_calls_of_a_process_that_ended_are_not_in_flight_but_may_have_been_paid(tmp_path):
    program = """
import sys
from storage.ledger import Ledger
from storage.objects import open_objects
Ledger(open_objects(sys.argv[1])).calls.file("a" * 64, (10, 20), None, 3600)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    ledger = Ledger(open_objects(tmp_path))
    assert ledger.calls.in_flight() == 0
    assert len(ledger.pending()) == 1
    assert ledger.totals().unsettled == 1


def test_a_call_that_took_too_long_is_not_in_flight_any_more(objects):
    ledger = Ledger(objects)
    ledger.calls.file(KEY, (10, 20), None, -1)
    assert ledger.calls.in_flight() == 0
    assert ledger.totals().unsettled == 1


def test_a_damaged_call_under_way_is_told_and_its_removal_helps(tmp_path):
    ledger = Ledger(open_objects(tmp_path))
    call = ledger.calls.file(KEY, (10, 20), None, 60)
    file = tmp_path / f".engine/ledger/open/{call.token}.json"
    file.write_bytes(b"{")
    with pytest.raises(DataError, match=rf"{call.token}.*remove that file"):
        Ledger(open_objects(tmp_path)).calls.in_flight()
    file.unlink()
    assert Ledger(open_objects(tmp_path)).calls.in_flight() == 0


def test_an_answer_that_vanishes_between_two_looks_is_left_out(tmp_path):
    ledger = Ledger(open_objects(tmp_path))
    ledger.add(make_answer())
    objects = open_objects(tmp_path)
    listed = objects.paths(".engine/ledger/answers")
    (tmp_path / listed[0]).unlink()
    objects.paths = lambda folder: listed if folder.endswith("answers") else []
    later = Ledger(objects)
    later.refresh()
    assert list(later.answers()) == []
    assert later.spent(None)[0] == 0
