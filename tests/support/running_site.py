"""A site for tests: `magicseg up` in a process of its own, and its server's API."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

__all__ = ["CANARY", "RunningSite", "free_port", "processes_of"]

CANARY = "sk-canary-7d1f0c4b9e"
"""The key of a paid service that the workers of a site have."""

ENDS = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes_of(folder: Path) -> list[int]:
    """The processes whose variables name a folder: whatever a site has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if os.fsencode(folder) in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except (OSError, ValueError):
            continue
    return sorted(found)


class RunningSite:
    """`magicseg up` with a state folder of its own.

    It is started from a folder that is removed as soon as everything runs.
    """

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self.folder, self.data, self.state = folder, folder / "data", folder / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "up.log"
        self.arguments, self.variables = arguments, variables

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        return {**kept, "HF_HUB_OFFLINE": "1", **self.variables}

    def start(self, seconds: float = 240) -> None:
        place = self.folder / "started-from"
        place.mkdir()
        command = [sys.executable, "-m", "flows", "up", "--port", str(self.port)]
        command += ["--state", str(self.state)]
        if "--data" not in self.arguments:
            command += ["--data", str(self.data)]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                cwd=place,
                env={"PYTHONPATH": str(Path(__file__).parents[2]), **self.environment},
                stdout=output,
                stderr=output,
            )
        self.wait(lambda: "stops all" in self.log.read_text() or self._ended(), seconds)
        shutil.rmtree(place)

    def _ended(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(self.log.read_text())
        return False

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flows", *arguments],
            env={"PYTHONPATH": str(Path(__file__).parents[2]), **self.environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()  # SIGINT is ignored below a shell that works in the background
            self.process.wait(120)

    def api(self, path: str, body: Any = None, method: str | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
            method=method,
        )
        text = _patiently(request)
        return json.loads(text) if text else None

    def deployment(self, name: str) -> dict[str, Any]:
        return self.api(f"/deployments/name/{name}")

    def submit(self, name: str, **parameters: Any) -> dict[str, Any]:
        found = self.deployment(name)
        return self.api(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})

    def refused(self, name: str, **parameters: Any) -> str:
        """What the server says about a run that it refuses."""
        try:
            self.submit(name, **parameters)
        except urllib.error.HTTPError as error:
            if error.code not in {409, 422}:
                raise
            return error.read().decode()
        raise AssertionError("it was accepted")

    def run(self, run_id: str) -> dict[str, Any]:
        return self.api(f"/flow_runs/{run_id}")

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        return self.api("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC", **filters})

    def generations(self) -> list[dict[str, Any]]:
        """All runs of the flow that makes a slice."""
        return self.runs(flows={"name": {"any_": ["generate-dataset"]}})

    def end_of(self, run_id: str, seconds: float = 240) -> dict[str, Any]:
        """Wait until a run is over."""
        self.wait(lambda: self.run(run_id)["state_type"] in ENDS, seconds)
        return self.run(run_id)

    def states(self, run_id: str) -> list[str]:
        return [each["name"] for each in self.api(f"/flow_run_states/?flow_run_id={run_id}")]

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        return self.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})

    @staticmethod
    def wait(condition: Any, seconds: float) -> None:
        """Wait until something is so; a server that is away, or busy, is asked again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(OSError):
                if condition():
                    return
            time.sleep(0.5)
        message = "it did not come in time"
        raise AssertionError(message)


def _patiently(request: urllib.request.Request) -> bytes:
    """Ask again while the server's database is busy, as Prefect's own client does."""
    for _ in range(10):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            error.close()
            time.sleep(2)
    message = f"{request.full_url} is busy for too long"
    raise AssertionError(message)
