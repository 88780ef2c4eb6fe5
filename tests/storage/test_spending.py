import dataclasses

import pytest

from answers import answered
from storage.card import is_current, render_card, write_card
from storage.commits import Verdict
from storage.ledger import Ledger
from storage.payloads import Payload
from storage.prices import Prices
from storage.records import Stage
from storage.spending import add_up, spending_notes, spending_rows
from storage.store import Store

PRICES = Prices(prompt=1.0, completion=2.0)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "d", {"seed": 7})


@pytest.fixture
def finish(store, sample, payload):
    """Commit a finished shard of ten written samples whose pieces took so many seconds."""

    def finish_(index=0, **by_device):
        made, counts = payload([sample(10 * index + i) for i in range(10)], 0)
        about = {
            "stage_seconds": {stage: sum(by.values()) for stage, by in by_device.items()},
            "device_seconds": by_device,
            "start": 10 * index,
            "stop": 10 * index + 10,
        }
        made = dataclasses.replace(made, about=about)
        store.commit(Stage.SHARDS, f"0badcafe-{index:06d}", "a" * 64, made, counts)

    return finish_


def answer(number, prices=PRICES):
    return answered(number, prices=prices)


def test_calls_money_and_gpu_seconds_stand_side_by_side_and_fall_to_written_samples(store, finish):
    finish(0, pairs={"H100": 20.0}, detections={"H100": 4.0, "cpu": 6.0}, prompts={"": 90.0})
    ledger = Ledger(store.objects)
    for number in range(4):
        ledger.add(answer(number))
    spent = add_up(store)
    assert (spent.written, spent.calls.calls) == (10, 4)
    assert spent.usd_a_sample == pytest.approx(4 * (1000 + 2 * 500) / 1e6 / 10)
    assert spent.gpu_seconds == 24.0
    assert spent.gpu_seconds_a_sample == 2.4
    rows = {what: (whole, own) for what, whole, own in spending_rows(spent)}
    assert rows["calls to a language model"] == ("4", "0.4")
    assert rows["tokens read"] == ("4,000", "400")
    assert rows["money for them"] == ("0.0080 USD", "0.0008 USD")
    assert rows["pairs on H100"] == ("20.0 s", "2 s")
    assert rows["detections on cpu"] == ("6.0 s", "0.6 s")
    assert not any("prompts" in what for what in rows), "waiting for a service is no device's time"
    assert list(spending_notes(spent)) == []


def test_unknown_money_is_not_zero_and_the_way_out_is_named(store, finish):
    finish(0)
    ledger = Ledger(store.objects)
    ledger.add(answer(1))
    ledger.add(answer(2, prices=None))
    spent = add_up(store)
    assert spent.usd_a_sample is None
    assert ("money for them", "not known", "not known") in list(spending_rows(spent))
    assert any("prices: {prompt" in note for note in spending_notes(spent))


def test_each_answer_counts_at_its_own_prices(store):
    ledger = Ledger(store.objects)
    ledger.add(answer(1))
    ledger.add(answer(2, prices=Prices(prompt=0.5, completion=1.0)))
    assert add_up(store).calls.cost_usd == pytest.approx(0.003)


def test_seconds_of_unfinished_shards_and_of_older_records_count_too(store, finish, commit_rows):
    verdicts = {f"0badcafe{i:08d}": Verdict(key="b" * 16, output="") for i in range(10, 14)}
    made = Payload(b"", seconds=8.0, about={"verdicts": verdicts, "device": "H100"})
    from storage.commits import Counts
    from storage.records import Reason, Rejected

    lost = [
        Rejected(key=key, stage=Stage.MASKS, reason=Reason.MASK_TOO_SMALL, detail="x")
        for key in verdicts
    ]
    store.commit(Stage.MASKS, "0badcafe-p0000000", "c" * 64, made, Counts.of(4, 0, lost))
    spent = add_up(store)
    assert [(each.stage, each.device, each.seconds) for each in spent.devices] == [
        (Stage.MASKS, "H100", 8.0)
    ]
    assert spent.gpu_seconds_a_sample is None
    assert ("masks on H100", "8.0 s", "nothing written yet") in list(spending_rows(spent))


def test_records_that_name_no_device_are_told_as_such(store, sample, payload):
    made, counts = payload([sample(0)], 0)
    made = dataclasses.replace(made, about={"stage_seconds": {Stage.PAIRS: 3.0}})
    store.commit(Stage.SHARDS, "0badcafe-000000", "a" * 64, made, counts)
    [pairs] = add_up(store).devices
    assert (pairs.device, pairs.seconds) == ("", 3.0)
    assert any("older records" in what for what, _, _ in spending_rows(add_up(store)))


def test_the_card_says_what_a_written_sample_cost_and_is_current_until_something_is_committed(
    store, finish
):
    finish(0, pairs={"H100": 20.0})
    Ledger(store.objects).add(answer(1))
    write_card(store)
    card = render_card(store)
    assert "## What it cost" in card
    assert "| pairs on H100 | 20.0 s | 2 s |" in card
    assert "| money for them | 0.0020 USD | 0.0002 USD |" in card
    Ledger(store.objects).add(answer(2))
    assert is_current(store), "a call that led to no commit leaves the card as it is"
    finish(1)
    assert not is_current(store)


def test_a_damaged_answer_is_named_in_the_card(store, finish):
    finish(0)
    ledger = Ledger(store.objects)
    ledger.add(answer(1))
    path = f".engine/ledger/answers/{1:064x}.json"
    store.objects.replace(path, b"{")
    assert f"{1:064x}" in render_card(store)
    assert "Not known: " in render_card(store)
