"""Exports and pushes as they are typed: a dataset, a hub on this machine, and kills."""

import dataclasses
import json
import signal
import threading

import pytest

from hub_server import TOKEN, serve_hub
from storage.commits import Counts
from storage.manifest import describe_samples, encode_manifest
from storage.payloads import Payload
from storage.records import PlannedSample, PlannedShard, Stage
from storage.shards import iterate, pack
from storage.store import Store

SHARDS = 4


@pytest.fixture
def hub():
    with serve_hub() as server:
        yield server


@pytest.fixture
def login(hub):
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }


@pytest.fixture
def grown(tmp_path, drawn_tar):
    """A dataset of so many shards of one drawn sample each."""
    (tmp_path / "one.tar").write_bytes(drawn_tar)
    [first, *_] = iterate(tmp_path / "one.tar")

    def grow(shards):
        store = Store.create(tmp_path / "d", {"plan": {"vocabulary": "miniature"}})
        for index in range(shards):
            sample = dataclasses.replace(first, key=f"0badcafe{index:08d}", index=index)
            ids = sample.class_ids
            planned = PlannedSample(key=sample.key, index=index, class_ids=ids, seed=index)
            shard = PlannedShard(slice_id="0badcafe", index=index, samples=(planned,))
            names = dict(zip(ids, sample.class_names, strict=True))
            rows = describe_samples(shard, names, samples=[sample], dropped=[])
            payload = Payload(data=pack([sample]), manifest=encode_manifest(rows))
            store.commit(Stage.SHARDS, shard.name, f"{index:016x}", payload, Counts.of(1, 1, []))
        return tmp_path / "d"

    return grow


def uploads(hub):
    return [path for method, path in hub.requests if method == "PUT"]


@pytest.mark.slow
def test_a_push_that_is_killed_changes_nothing_and_the_next_one_goes_on(
    hub, login, grown, magicseg, run
):
    root, reached = grown(SHARDS), threading.Event()
    let_go = threading.Event()

    def hold_the_third(method, path):
        if len(uploads(hub)) == 3 and not reached.is_set():
            reached.set()
            let_go.wait(60)

    hub.before = hold_the_third
    process = magicseg("push", root, "me/mine", **login)
    assert reached.wait(200), process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    let_go.set()
    assert hub.repositories["me/mine"].files == {}
    sent_before = set(uploads(hub)[:2])
    hub.requests.clear()
    code, out, err = run("push", root, "me/mine", **login)
    assert code == 0, err
    assert "pushed: http://127.0.0.1" in out
    assert sent_before.isdisjoint(uploads(hub))
    assert len(hub.repositories["me/mine"].files) == SHARDS + 1
    assert TOKEN not in out + err


@pytest.mark.slow
def test_a_dry_push_lists_and_sends_nothing(hub, login, grown, run):
    code, out, err = run("push", grown(2), "me/mine", "--dry", "--json", **login)
    assert code == 0, err
    plan = json.loads(out)
    paths = [each["path"] for each in plan["send"]]
    assert paths[0] == "README.md"
    assert [path[:27] for path in paths[1:]] == [
        f"data/train-0badcafe-{index:06d}-" for index in range(2)
    ]
    assert all(each["size"] > 0 for each in plan["send"])
    assert (plan["exists"], hub.repositories, hub.objects) == (False, {}, {})
    assert {method for method, _ in hub.requests} == {"GET"}
