"""Slices that fan out to two workers, of which one is killed with its child."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from running_site import RunningSite, processes_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SLICES = ["cat", "boat", "star,cup", "10:12"]
SAMPLES = 4


def tars(root):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(root, "data").glob("*.tar")
    }


def kill_worker(site):
    """Kill one of the workers that have a run, and all that it has started."""
    for pid in processes_of(site.state):
        if b"gpu-none" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            continue
        found = subprocess.run(
            ["pgrep", "-P", str(pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        children = found.stdout.split()
        if children:
            for each in [pid, *map(int, children)]:
                os.kill(each, signal.SIGKILL)
            return
    raise AssertionError("no worker works")


@pytest.fixture
def two_workers(tmp_path):
    running = RunningSite(tmp_path, "--workers", "2")
    running.start()
    yield running
    running.stop()


def test_a_killed_worker_costs_its_run_and_no_slice(two_workers, tmp_path):
    site = two_workers
    deployment = site.deployment("generate-dataset/miniature")
    quiet = deployment["parameters"] | {"ready_after_shards": None}  # no training beside it
    site.api(f"/deployments/{deployment['id']}", {"parameters": quiet}, method="PATCH")
    parent = site.submit(
        "generate-slices/miniature-slices", slices=[], class_lists=SLICES, samples=SAMPLES
    )
    flow = {"flows": {"name": {"any_": ["generate-dataset"]}}}

    def at_work():
        running = [run for run in site.runs(**flow) if run["state_name"] == "Running"]
        painting = [
            each
            for run in running
            for each in site.tasks(run["id"])
            if each["name"].startswith("pairs") and each["state_name"] == "Running"
        ]
        return len(running) == 2 and painting

    site.wait(at_work, 120)
    kill_worker(site)
    crashed = {"flow_runs": {"state": {"type": {"any_": ["CRASHED"]}}}}
    site.wait(lambda: site.runs(**flow, **crashed), 120)
    ended = site.end_of(parent["id"], 400)
    assert ended["state_name"] == "Completed", ended["state"]["message"]
    assert len(site.runs(**flow)) == len(SLICES) + 1
    assert {run["state_name"] for run in site.runs(**flow)} <= {"Completed", "Crashed"}

    alone = tmp_path / "alone"
    for text in SLICES:
        settings = ["samples_per_shard=32", "two_class_share=0.25", "texts_per_class_set=1"]
        arguments = [word for each in settings for word in ("--set", each)]
        arguments += ["--root", str(alone), "--samples", str(SAMPLES)]
        done = subprocess.run(
            [sys.executable, "-m", "flows", "generate", *arguments, "--slice", text],
            env={**site.environment, "PREFECT_API_URL": f"{site.url}/api"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert tars(site.data / "miniature") == tars(alone)
    assert len(tars(alone)) == len(SLICES)
