"""The command `explore`: it serves until it is interrupted, with the rights of its user."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from explorable import add_shard, draw, drop, explorable, key_of
from other_users import open_to_others
from storage.exclusions import read_exclusions
from storage.marks import read_marks


@pytest.fixture
def store(tmp_path):
    store = explorable(tmp_path / "d")
    add_shard(store, 0, [draw(place) for place in range(6)], drop(6, 7, 8))
    return store


def start(tmp_path, magicseg, *arguments):
    process = magicseg("explore", tmp_path / "d", "--no-browser", *arguments)
    line = process.stdout.readline()
    return process, re.search(r"http://127\.0\.0\.1:(\d+)/[\w-]+/", line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_interrupted(tmp_path, magicseg, store, number):
    process, address = start(tmp_path, magicseg)
    with urllib.request.urlopen(f"{address[0]}api/dataset") as answer:
        assert json.load(answer)["samples"] == 9
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/")
    # a browser keeps its connection open
    kept = socket.create_connection(("127.0.0.1", int(address[1])))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    kept.close()
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_port_that_is_taken_is_told(tmp_path, run, store):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = run("explore", tmp_path / "d", "--no-browser", "--port", port)
    assert (code, out) == (2, "")
    assert f"port {port} of 127.0.0.1 cannot be taken" in err
    assert "--port" in err


LOOK = """
import sys
import flows.explorer.server
from flows.explorer.explorer import Explorer
from storage.store import Store
explorer = Explorer(Store.open(sys.argv[1]))
explorer.refresh()
explorer.find('{"words": "cat"}', 0, 9)
explorer.thumbnail(sys.argv[2])
print(*sys.modules)
"""


def test_looking_needs_neither_networks_nor_prefect_nor_pandas(store):
    command = [sys.executable, "-c", LOOK, store.root, key_of(1)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    heavy = {"torch", "prefect", "transformers", "diffusers", "pandas"}
    assert not heavy & set(done.stdout.split())


READ_ONLY = """
import os, sys
from flows.explorer.curation import Change
from flows.explorer.explorer import Explorer
from storage.errors import InputError
from storage.store import Store
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
explorer = Explorer(Store.open(sys.argv[1]))
print(explorer.refresh()["samples"], explorer.find("{}", 0, 9)["found"])
for act in ("flag", "exclude"):
    try:
        explorer.curator.change(Change(key=sys.argv[2], act=act, text="bad"))
    except InputError as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_may_look_and_is_told_why_nothing_is_changed(store, tmp_path):
    for place in (tmp_path / "d").rglob("*"):
        place.chmod(0o755 if place.is_dir() else 0o644)
    open_to_others(tmp_path / "d")
    command = [sys.executable, "-c", READ_ONLY, store.root, key_of(1)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *refused = done.stdout.splitlines()
    assert first == "9 9", done.stderr
    assert len(refused) == 2
    assert all("denied" in line for line in refused)
    assert read_marks(store.objects) == read_exclusions(store.objects) == []
