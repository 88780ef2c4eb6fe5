import os
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from processes import end_processes

pytestmark = [pytest.mark.server, pytest.mark.slow]

_PARENT = """
import os, sys, time
from pathlib import Path
from flows.embedded_server import ensure_server
ensure_server(Path(sys.argv[1]))
first = os.environ["PREFECT_API_URL"]
ensure_server(Path(sys.argv[1]) / "another")
assert os.environ["PREFECT_API_URL"] == first
print(first, flush=True)
time.sleep(600)
"""


def test_the_server_ends_when_its_parent_is_killed(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_API")}
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path / "home")],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    url = parent.stdout.readline().strip()
    with urlopen(f"{url}/health", timeout=30) as answer:
        assert answer.status == 200
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    end_processes([parent])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urlopen(f"{url}/health", timeout=5).close()
        except (URLError, OSError):
            return
        time.sleep(0.2)
    pytest.fail("the server outlived its parent by a minute")
