"""`magicseg up` on a real server, with real workers, seen through the API."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from running_site import CANARY, processes_of
from storage.records import Stage
from storage.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = {
    "classes": ["cat", "boat"],
    "samples": 4,
    "advanced": {"samples_per_shard": 2, "texts_per_class_set": 1, "min_yield": 0.0},
}


OVER = SMALL | {
    "advanced": {
        **SMALL["advanced"],
        "twins": {"way": "inpaint"},
        "detections": {"require": "any", "counterfactual": "record"},
    }
}
"""The same with counterfactuals that are painted over their images: two stages more."""


def test_everything_is_there_and_one_screen_says_so(site):
    told = site.log.read_text()
    assert site.url in told
    assert "queues coordination" in told
    assert "generate-dataset/voc20" in told
    checked = site.command("up", "--check", "--json", "--state", str(site.state))
    findings = {each["what"]: each for each in json.loads(checked.stdout)}
    assert findings["set up"]["ok"], findings
    assert findings["workers"]["ok"], findings
    assert checked.returncode == 0, findings


def test_it_does_not_run_twice_on_one_state_folder(site):
    again = site.command("up", "--state", str(site.state), "--port", "4999")
    assert again.returncode == 3
    assert "'magicseg down' stops it" in " ".join(again.stderr.split())


def test_no_deployment_names_a_folder_and_all_names_differ(site):
    found = site.api("/deployments/filter", {})
    assert len({each["name"] for each in found}) == len(found) > 10
    for each in found:
        assert not each["path"]
        assert not each["pull_steps"]
        assert each["description"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"slice": "dogs"}, "dogs"),
        ({"classes": ["cat", "dogs"]}, "dogs"),
        ({"samples": -3}, "-3"),
        ({"samples": 0}, "0"),
        ({"max_extra": 1000}, "1000"),
        ({"shards": "first"}, "first"),
        ({"ready_after_shards": 0}, "0"),
        ({"advanced": {"two_class_share": 2}}, "2"),
        ({"advanced": {"nothing_such": 2}}, "nothing_such"),
        ({"advanced": {"twins": {"way": "remove"}}}, "remove"),
        ({"advanced": {"twins": {"way": "inpaint", "grow": 2}}}, "0.5"),
        ({"root": ""}, "''"),
    ],
)
def test_a_bad_value_is_refused_before_there_is_a_run(site, changes, named):
    before = len(site.generations())
    said = site.refused("generate-dataset/miniature", **changes)
    assert named in said
    assert len(said) < 1500
    assert len(site.generations()) == before


def test_a_schedule_fires_twice_and_the_second_run_finds_nothing_to_do(site):
    deployment = site.deployment("generate-dataset/miniature")
    parameters = SMALL | {"root": str(site.data / "scheduled")}
    schedule = {"schedule": {"interval": 20}, "active": True, "parameters": parameters}
    site.api(f"/deployments/{deployment['id']}/schedules", [schedule])
    made = site.api(f"/deployments/{deployment['id']}/schedules")

    def over():
        ended = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}
        return [
            run
            for run in site.runs(flow_runs=ended)
            if run["auto_scheduled"] and run["deployment_id"] == deployment["id"]
        ]

    try:
        site.wait(lambda: len(over()) >= 2, 300)
    finally:
        site.api(f"/deployments/{deployment['id']}/schedules/{made[-1]['id']}", method="DELETE")
    first, second = over()[:2]
    assert (first["state_name"], second["state_name"]) == ("Completed", "Cached")
    assert first["parameters"]["root"] == parameters["root"]


def test_a_broken_shard_is_told_on_the_page_and_a_retry_makes_it_alone(site):
    root = site.data / "broken"
    first = site.submit("generate-dataset/miniature", **OVER, root=str(root), shards="0")
    assert site.end_of(first["id"])["state_name"] == "Completed"
    assert site.run(first["id"])["parameters"]["advanced"] == OVER["advanced"]
    assert {Stage.TWINS, Stage.CHECKS} <= set(Store.open(root).specification.stages)
    [tar] = (root / "data").glob("*.tar")
    obstacle = tar.with_name(tar.name.replace("000000", "000001"))
    obstacle.mkdir()
    (obstacle / "in the way").touch()
    run = site.submit("generate-dataset/miniature", **OVER, root=str(root))
    ended = site.end_of(run["id"])
    assert ended["state_type"] == "FAILED"
    assert "it is a folder, and a file is expected there" in ended["state"]["message"]
    (obstacle / "in the way").unlink()
    obstacle.rmdir()
    before = tar.stat().st_mtime_ns
    site.api(
        f"/flow_runs/{run['id']}/set_state",
        {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}},
    )
    site.wait(lambda: site.run(run["id"])["run_count"] == 2, 120)
    assert site.end_of(run["id"])["state_name"] == "Completed"
    assert tar.stat().st_mtime_ns == before
    assert obstacle.is_file()


def test_a_cancelled_run_stops_in_seconds_and_keeps_what_it_has_painted(site):
    root = site.data / "cancelled"
    run = site.submit("generate-dataset/miniature", classes=["cat"], samples=64, root=str(root))
    records = root / "records" / "pairs"

    def painting():
        return any(
            each["state_name"] == "Running" and each["name"].startswith("pairs")
            for each in site.tasks(run["id"])
        )

    site.wait(painting, 120)
    site.wait(lambda: "magicseg-progress" in json.dumps(site.api("/artifacts/filter", {})), 60)
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    site.api(f"/flow_runs/{run['id']}/set_state", cancelling)
    assert site.end_of(run["id"], 60)["state_name"] == "Cancelled"
    assert records is not None


def test_the_key_of_a_paid_service_is_found_nowhere(site, chat_server):
    root = site.data / "written"
    writer = {"kind": "chat", "base_url": chat_server.url, "model": "m", "first_wait": 0.01}
    settings = {**SMALL, "root": str(root), "advanced": {**SMALL["advanced"], "writer": writer}}
    run = site.submit("generate-dataset/miniature", **settings)
    site.end_of(run["id"])  # the answers are too long for the small painter, and are answers
    sent = {name.lower(): value for name, value in chat_server.headers[0].items()}
    assert sent["authorization"] == f"Bearer {CANARY}"
    # a service that repeats the key in its error
    chat_server.queue += [chat_server.error(401, f"Incorrect API key provided: {CANARY}")] * 20
    refused = site.submit("generate-dataset/miniature", **{**settings, "samples": 40})
    ended = site.end_of(refused["id"])
    assert ended["state_type"] == "FAILED"
    assert "401" in ended["state"]["message"]
    holding = [
        path
        for path in site.folder.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ]
    assert holding == []
    assert b"magicseg" in (site.state / "prefect" / "prefect.db").read_bytes()


def test_slices_are_sent_to_the_workers_and_followed(site):
    arguments = ["submit", "star", "cup", "--samples", "2", "--state", str(site.state)]
    arguments += ["--deployment", "generate-slices/miniature-slices"]
    done = site.command(*arguments)
    assert done.returncode == 0, done.stderr
    assert "2 slices are complete" in done.stdout
    again = site.command(*arguments)
    assert "Cached" in again.stdout
    wrong = site.command(*arguments[:2], "dogs", *arguments[3:])
    assert wrong.returncode == 2
    assert "dogs" in wrong.stderr


def test_a_run_whose_worker_is_gone_is_crashed_within_two_minutes(site):
    root = site.data / "killed"
    run = site.submit("generate-dataset/miniature", classes=["tree"], samples=64, root=str(root))
    site.wait(lambda: site.run(run["id"])["state_name"] == "Running", 120)
    workers = [
        pid
        for pid in processes_of(site.state)
        if b"gpu-none" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", ",".join(map(str, workers))],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for pid in [*workers, *map(int, children)]:
        os.kill(pid, signal.SIGKILL)
    site.wait(lambda: site.run(run["id"])["state_name"] == "Crashed", 125)
    assert "its worker is gone" in site.run(run["id"])["state"]["message"]
    again = site.submit("generate-dataset/miniature", classes=["tree"], samples=2, root=str(root))
    assert site.end_of(again["id"])["state_type"] == "COMPLETED"  # a worker was started again


def test_the_server_comes_back_and_a_run_that_fell_into_the_gap_is_started_again(site):
    [server] = [
        pid
        for pid in processes_of(site.state)
        if b"server\0start" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    parameters = {"classes": ["cup"], "samples": 2, "root": str(site.data / "gap")}
    run = site.submit("generate-dataset/miniature", **parameters)
    site.wait(lambda: site.run(run["id"])["state_name"] == "Submitting", 120)
    # its process is about to ask the server for its work
    os.kill(server, signal.SIGKILL)

    def answers():
        try:
            return site.run(run["id"])["state_type"] == "COMPLETED"
        except OSError:
            return False

    site.wait(answers, 300)


def test_down_stops_all_and_leaves_no_process(site):
    done = site.command("down", "--state", str(site.state))
    assert done.returncode == 0, done.stderr
    assert site.process.wait(60) == 0
    late = time.monotonic() + 30  # what a server or a worker has started ends a moment after it
    while left := processes_of(site.state):
        assert time.monotonic() < late, left
        time.sleep(0.2)
    again = site.command("down", "--state", str(site.state))
    assert "nothing runs" in again.stdout
