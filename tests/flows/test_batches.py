"""Runs whose texts come by batches end while they wait, and go on when the answers are there."""

import json

import pytest
import yaml

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


@pytest.fixture
def typed_well(type_line):
    """Type a command that must succeed, and return what it wrote."""

    def run(*words):
        code, said = type_line(*words)
        assert code == 0, said
        return said

    return run


def test_an_offline_program_makes_the_calls_of_mode_run_batch(
    make, writer, batch_server, tmp_path, typed_well
):
    root, calls, results = tmp_path / "d", tmp_path / "calls.jsonl", tmp_path / "results.jsonl"
    offline = {**writer, "mode": "run-batch", "base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(AwaitedError, match=r"magicseg batch export .*magicseg batch import"):
        make(root, writer=offline, samples=4)
    assert "4 calls" in typed_well("batch", "list", root)
    assert "4 calls" in typed_well("status", root)
    for _ in range(2):  # a file that is lost is written again
        assert "4 calls" in typed_well("batch", "export", root, calls)
    lines = [json.loads(line) for line in calls.read_bytes().splitlines()]
    assert len(lines) == 4
    made = [batch_server.answer(line["custom_id"], line["body"]) for line in lines[:3]]
    results.write_text("".join(json.dumps(line) + "\n" for line in made))
    assert "3 calls are answered; 1 others" in typed_well("batch", "import", root, results)
    with pytest.raises(AwaitedError, match="1 calls wait for a model of your own"):
        make(root, writer=offline, samples=4)
    typed_well("batch", "export", root, calls)
    [line] = [json.loads(line) for line in calls.read_bytes().splitlines()]
    made = batch_server.answer(line["custom_id"], line["body"])
    results.write_text(json.dumps(made))
    typed_well("batch", "import", root, results)
    _, summary = make(root, writer=offline, samples=4)
    assert summary.is_complete
    assert not batch_server.calls


def test_calls_that_nobody_will_answer_can_be_forgotten(
    make, writer, batch_server, tmp_path, typed_well
):
    root = tmp_path / "d"
    with pytest.raises(AwaitedError):
        make(root, writer={**writer, "mode": "run-batch"}, samples=4)
    [found] = json.loads(typed_well("batch", "list", root, "--json"))
    with pytest.raises(AwaitedError, match="4 calls wait"):
        make(root, writer={**writer, "mode": "sync"}, samples=4)
    typed_well("batch", "forget", root, found["job"])
    _, summary = make(root, writer={**writer, "mode": "sync"}, samples=4)
    assert summary.is_complete


def test_waiting_ends_the_command_with_a_code_of_its_own(
    run, writer, quick, tmp_path, batch_server
):
    settings = tmp_path / "run.yaml"
    settings.write_text(yaml.safe_dump({**quick, "root": str(tmp_path / "d"), "writer": writer}))
    code, _, said = run("generate", settings)
    assert code == 5, said
    assert said.startswith(
        "waiting: 3 shards wait for answers of the writer; 12 calls are in 1 open"
    )
    assert "run the same command again to look, at " in said
    assert len(said.splitlines()) == 1
