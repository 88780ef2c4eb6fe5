import gzip
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from importlib.metadata import version
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


_START = """
import os, sys
from pathlib import Path
from flows.embedded_server import start_server
server = start_server(Path(sys.argv[1]))
address = os.environ["PREFECT_API_URL"]
assert server.wait() == server.wait() == address
from prefect import flow
@flow
def triple(number: int) -> int:
    return 3 * number
assert triple(14) == 42
"""


def environment(**others):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_API")}
    return inherited | others


def run_flow(home, cache):
    """Start a server, and run a flow on it."""
    done = subprocess.run(
        [sys.executable, "-c", _START, str(home)],
        env=environment(XDG_CACHE_HOME=str(cache)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        (runs,) = database.execute("SELECT count(*) FROM flow_run").fetchone()
        revision = database.execute("SELECT * FROM alembic_version").fetchall()
        blocks = database.execute("SELECT slug FROM block_type ORDER BY slug").fetchall()
    return runs, revision, blocks


def test_a_server_on_a_copied_database_is_as_one_that_made_its_own(tmp_path):
    cache = tmp_path / "cache"
    made = run_flow(tmp_path / "first", cache)
    (kept,) = (cache / "magicseg").iterdir()
    assert kept.name == f"prefect-{version('prefect')}.db.gz"
    data = kept.read_bytes()
    copied = run_flow(tmp_path / "second", cache)
    assert made == copied
    assert copied[0] == 1
    assert kept.read_bytes() == data


def test_a_copy_from_another_prefect_costs_a_second_start_and_nothing_else(tmp_path):
    cache, alien = tmp_path / "cache" / "magicseg", tmp_path / "alien.db"
    with closing(sqlite3.connect(alien)) as database:
        database.executescript(
            "CREATE TABLE alembic_version AS SELECT 'of tomorrow' AS version_num;"
        )
    cache.mkdir(parents=True)
    kept = cache / f"prefect-{version('prefect')}.db.gz"
    kept.write_bytes(gzip.compress(alien.read_bytes()))
    runs, revision, _ = run_flow(tmp_path / "home", tmp_path / "cache")
    assert runs == 1
    assert revision != [("of tomorrow",)]
    assert gzip.decompress(kept.read_bytes()) != alien.read_bytes()


_UNWRITABLE = """
import os, sys
from pathlib import Path
from flows.embedded_server import start_server
from storage.errors import EngineError
Path(sys.argv[1], "prefect.db").mkdir(parents=True)
server = start_server(Path(sys.argv[1]))
try:
    server.wait()
except EngineError as error:
    print(error)
assert "PREFECT_API_URL" not in os.environ
"""


def test_a_server_that_cannot_start_says_where_its_output_is(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _UNWRITABLE, str(tmp_path / "home")],
        env=environment(XDG_CACHE_HOME=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "home" / "server.log") in done.stdout
