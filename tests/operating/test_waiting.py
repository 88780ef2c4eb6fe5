"""A run that waits for a batch holds no worker, and is begun again when it is time to look."""

import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = {"samples_per_shard": 2, "texts_per_class_set": 1, "min_yield": 0.0}


@pytest.fixture
def submitted(site, batch_server, monkeypatch):
    """Submit a run whose texts come by a batch, and wait until it waits."""

    def obey(body):
        return ["a drawing of a cat"]

    monkeypatch.setattr(batch_server.chat, "obey", obey)
    writer = {
        "kind": "chat",
        "model": "m",
        "base_url": batch_server.url,
        "api_key_env": None,
        "mode": "batch",
        "batch": {"look_seconds": 20},
    }

    def submit(name):
        run = site.submit(
            "generate-dataset/miniature",
            classes=["cat"],
            samples=2,
            root=str(site.data / name),
            advanced={**SMALL, "writer": writer, "prompts": {"duplicate_similarity": None}},
        )
        site.wait(lambda: "Awaiting" in site.states(run["id"]), 120)
        return run["id"]

    return submit


def test_a_run_that_waits_is_scheduled_again_and_its_worker_is_free(site, batch_server, submitted):
    run = submitted("waiting")
    waiting = site.run(run)
    assert waiting["state_type"] in {"SCHEDULED", "PENDING", "RUNNING"}
    other = site.submit(
        "generate-dataset/miniature",
        classes=["cat"],
        samples=2,
        advanced=SMALL,
        root=str(site.data / "beside"),
    )
    assert site.end_of(other["id"])["state_name"] in {"Completed", "Failed"}
    assert site.run(run)["state_type"] in {"SCHEDULED", "PENDING", "RUNNING"}
    batch_server.finish("batch-0000")
    assert site.end_of(run)["state_type"] in {"COMPLETED", "FAILED"}, site.run(run)["state"]
    states = site.states(run)
    assert states.count("Awaiting") >= 1
    assert "Crashed" not in states
    assert len(batch_server.batches) == 1
    assert set(batch_server.paid.values()) == {1}


def test_a_run_that_is_cancelled_while_it_waits_is_not_begun_again(site, batch_server, submitted):
    run = submitted("cancelled-while-waiting")
    site.wait(lambda: site.run(run)["state_name"] == "Awaiting", 60)
    site.api(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLED", "name": "Cancelled"}})
    looks = len(batch_server.calls)
    time.sleep(30)
    assert site.run(run)["state_name"] == "Cancelled"
    assert len(batch_server.calls) == looks
