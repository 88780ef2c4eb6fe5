"""Runs whose texts come by batches end while they wait, and go on when the answers are there."""

import pytest

from storage.errors import AwaitedError
from storage.records import Stage
from storage.store import Store

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def writer(batch_server, monkeypatch):
    """A writer whose texts are short enough to be painted."""

    def obey(body):
        seed = body["seed"]
        return [f"a drawing number {seed % 997} of a {name}" for name in names_of(body)]

    monkeypatch.setattr(batch_server.chat, "obey", obey)
    return {
        "kind": "chat",
        "model": "m",
        "base_url": batch_server.url,
        "api_key_env": None,
        "texts_per_call": 1,
        "mode": "batch",
    }


def names_of(body):
    """The classes that a request names, joined to one thing that has all of them."""
    lines = body["messages"][-1]["content"].splitlines()
    found = [line.removeprefix("- ").split(" (")[0] for line in lines if line.startswith("- ")]
    return [" and a ".join(found)]


def prompts_of(root):
    return sum(len(each.verdicts) for each in Store.open(root).commits(Stage.PROMPTS))


def test_a_run_ends_while_it_waits_and_the_next_one_makes_what_a_run_without_batches_makes(
    make, writer, batch_server, tmp_path, tars
):
    root, settings = tmp_path / "d", {"samples": 8, "samples_per_shard": 4}
    for _ in range(2):
        with pytest.raises(AwaitedError, match=r"2 shards wait .*8 calls are in 1 open batch"):
            make(root, writer=writer, **settings)
    [name] = batch_server.batches  # one for all shards
    assert len(batch_server.requests_of(name)) == 8
    asked = list(batch_server.requests_of(name).items())
    some = [batch_server.answer(key, body) for key, body in asked[:4]]
    rest = [batch_server.unfinished(key) for key, _ in asked[4:]]
    batch_server.finish(name, "expired", some, rest)
    with pytest.raises(AwaitedError, match=r"4 calls are in 1 open batch"):
        make(root, writer=writer, **settings)
    assert prompts_of(root) == 4
    batch_server.finish("batch-0001")
    make(root, writer=writer, **settings)
    assert set(batch_server.paid.values()) == {1}
    assert len(batch_server.chat.requests) == 0
    make(tmp_path / "sync", writer={**writer, "mode": "sync"}, **settings)
    assert tars(root) == tars(tmp_path / "sync")
    state, _ = make(root, writer={**writer, "mode": "sync"}, **settings)
    assert state.name == "Cached"
    assert len(batch_server.chat.requests) == 8


def test_shards_with_their_texts_are_made_while_others_wait(make, writer, batch_server, tmp_path):
    root = tmp_path / "d"
    make(root, writer={**writer, "mode": "sync"}, samples=4, samples_per_shard=4)
    with pytest.raises(AwaitedError, match="1 shards wait"):
        make(root, writer=writer, samples=8, samples_per_shard=4)
    batch_server.finish("batch-0000")
    _, summary = make(root, writer=writer, samples=8, samples_per_shard=4)
    assert summary.is_complete
    assert summary.finished_before == 1


def test_few_calls_are_made_at_once_in_mode_auto_and_the_run_goes_on(
    make, writer, batch_server, tmp_path
):
    auto = {**writer, "mode": "auto", "batch": {"min_calls": 5}}
    _, summary = make(tmp_path / "d", writer=auto, samples=4)
    assert summary.is_complete
    assert not batch_server.batches
    assert len(batch_server.chat.requests) == 4
