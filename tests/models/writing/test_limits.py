"""Limits over all workers of a store: calls in flight, and budgets."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from models.protocols import TextRequest
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from models.writing.pace import CallPace
from storage.errors import BudgetError, TransientError
from storage.ledger import Ledger, Prices
from storage.objects import open_objects
from storage.vocabulary import load_vocabulary

CAT = load_vocabulary("lvis1205").by_name("cat")
PRICES = Prices(prompt=0.0, completion=1e6)  # a dollar for each token written
MOST = 60  # tokens, so dollars, that a call may take; the server takes 50

WORKER = """
import sys
from models.protocols import TextRequest
from models.writing.chat import ChatWriter
from models.writing.chat_config import ChatWriterConfig
from storage.errors import BudgetError, TransientError
from storage.ledger import Ledger, Prices
from storage.objects import open_objects
from storage.vocabulary import load_vocabulary

url, root, budget, first, count = sys.argv[1:]
config = ChatWriterConfig(
    model="m", base_url=url, api_key_env=None, prices=Prices(prompt=0.0, completion=1e6),
    max_tokens=60, budget_usd=float(budget), concurrency=4, first_wait=0.01, timeout=5,
)
classes = (load_vocabulary("lvis1205").by_name("cat"),)
writer = ChatWriter(config, Ledger(open_objects(root)))
seeds = range(int(first), int(first) + int(count))
try:
    writer.write([TextRequest(classes, 1, seed) for seed in seeds])
except (BudgetError, TransientError) as error:
    print(type(error).__name__)
"""


def start(chat_server, root, budget, first, count):
    command = [sys.executable, "-c", WORKER, chat_server.url, str(root)]
    command += [str(budget), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})


def test_three_workers_stay_within_one_budget_whatever_the_service_says(chat_server, tmp_path):
    chat_server.delay = 0.05
    chat_server.queue = [chat_server.error(status) for status in (503, 429, 500, 503, 429)]
    budget = 12 * 50 + 10
    workers = [start(chat_server, tmp_path, budget, 100 * each, 20) for each in range(3)]
    said = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert said == [["BudgetError"]] * 3
    paid = 50 * (len(chat_server.requests) - 5)
    ledger = Ledger(open_objects(tmp_path))
    totals = ledger.totals()
    assert totals.cost_usd == paid <= budget
    assert paid >= budget - 2 * MOST  # and the money is used
    assert totals.unsettled == 0
    assert ledger.pending() == []


def test_what_a_killed_worker_had_sent_counts_against_the_budget(chat_server, tmp_path):
    chat_server.delay = 3
    budget = 4 * MOST + 5
    victim = start(chat_server, tmp_path, budget, 0, 20)
    deadline = time.monotonic() + 60
    while len(chat_server.requests) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    ledger = Ledger(open_objects(tmp_path))
    assert ledger.totals().unsettled == 4
    assert ledger.calls.in_flight() == 0
    chat_server.delay = 0
    other = start(chat_server, tmp_path, budget, 500, 20)
    assert other.communicate(timeout=60)[0].split() == ["BudgetError"]
    assert 50 * len(chat_server.requests) <= budget


def test_an_answer_that_did_not_arrive_may_have_been_paid(chat_server, tmp_path):
    chat_server.delay = 1.0
    ledger = Ledger(open_objects(tmp_path))
    writer = make_writer(
        chat_server, ledger, timeout=0.2, max_retries=9, prices=PRICES, budget_usd=3 * MOST + 5
    )
    with pytest.raises(BudgetError, match="3 calls without an answer may have been paid"):
        writer.write([TextRequest((CAT,), 1, 0)])
    assert len(chat_server.requests) == 3
    assert ledger.totals().unsettled == 3


def make_writer(chat_server, ledger, **options):
    config = ChatWriterConfig(
        model="m",
        base_url=chat_server.url,
        api_key_env=None,
        **{"first_wait": 0.01, "max_tokens": MOST, **options},
    )
    return ChatWriter(config, ledger)


def test_all_workers_of_a_store_together_make_no_more_calls_than_allowed(chat_server, tmp_path):
    chat_server.delay = 0.1
    writers = [
        make_writer(chat_server, Ledger(open_objects(tmp_path)), concurrency=3) for _ in range(3)
    ]
    threads = [
        threading.Thread(
            target=writer.write, args=([TextRequest((CAT,), 1, 100 * n + i) for i in range(8)],)
        )
        for n, writer in enumerate(writers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(chat_server.requests) == 24
    assert 2 <= chat_server.most_in_flight <= 3


def test_a_service_that_takes_few_calls_at_a_time_answers_all_of_them(chat_server, tmp_path):
    def crowded(body, headers, reply=chat_server.reply):
        with chat_server.lock:
            full = chat_server.in_flight >= 2
        if full:
            return chat_server.error(429, "slow down")
        return reply(body, headers)

    chat_server.reply, chat_server.delay = crowded, 0.05
    writer = make_writer(
        chat_server, Ledger(open_objects(tmp_path)), concurrency=16, max_retries=12, max_wait=1
    )
    answers = writer.write([TextRequest((CAT,), 1, seed) for seed in range(60)])
    assert all(answer.texts for answer in answers)
    assert len(chat_server.requests) == 60


def test_the_pace_is_halved_in_steps_and_rises_by_a_call_a_round():
    pace, stop = CallPace(16, 60), threading.Event()
    pace.refused(None)
    assert pace.limit == 11
    pace.refused(None)  # of the same moment
    assert pace.limit == 11
    for _ in range(13):
        pace.answered({})
    assert pace.limit == 12
    pace.answered({"x-ratelimit-remaining-requests": "3"})
    assert pace.limit == 3
    with pace.turn(stop), pace.turn(stop), pace.turn(stop):
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        with pytest.raises(TransientError, match="given up"), pace.turn(stop):
            pass
        timer.join()


def test_a_pause_that_a_service_asks_for_holds_for_every_call():
    pace, stop = CallPace(4, 60), threading.Event()
    pace.refused(0.3)
    began = time.monotonic()
    with pace.turn(stop):
        assert time.monotonic() - began >= 0.3


@pytest.mark.slow
def test_no_sequence_of_faults_workers_and_kills_passes_a_budget(chat_server, tmp_path):
    """Workers are killed and begun again until the budget is used; the server counts."""
    chance, paid = np.random.default_rng(7), []
    obey = chat_server.reply

    def moody(body, headers):
        mood = chance.random()
        if mood < 0.3:
            kinds = (chat_server.error(503), chat_server.error(429), (200, {}, b'{"error": "x"}'))
            return kinds[chance.integers(len(kinds))]
        status, fields, data = obey(body, headers)
        paid.append(50)
        if mood < 0.4:  # it is written and paid, and does not arrive whole
            return status, {**fields, "content-length": "9999", "connection": "close"}, data
        return status, fields, data

    chat_server.reply, chat_server.delay = moody, 0.05
    budget, first = 60 * 50, 0
    deadline = time.monotonic() + 240
    said = []
    while said[-3:] != ["BudgetError"] * 3 and time.monotonic() < deadline:
        workers = [start(chat_server, tmp_path, budget, first + 100 * n, 40) for n in range(3)]
        first += 1000
        time.sleep(chance.uniform(3, 6))
        workers[chance.integers(len(workers))].kill()
        said += [word for each in workers for word in each.communicate(timeout=120)[0].split()]
        assert sum(paid) <= budget
    assert "BudgetError" in said
    ledger = Ledger(open_objects(tmp_path))
    assert ledger.totals().cost_usd <= sum(paid) <= budget
    assert ledger.calls.in_flight() == 0
