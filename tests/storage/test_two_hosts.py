"""Two hosts with networks, names and clocks of their own at work on one dataset in a bucket."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from processes import end_processes
from storage.card import write_card
from storage.records import Stage
from storage.store import Store
from storage.verification import verify_bytes
from troubled_line import serve_troubled_line

SPEC = {"seed": 7, "classes": ["cat"]}
KEY = "a" * 64
HERE = Path(__file__).parent

WORK = """
import socket, sys, time
import conftest
from storage.errors import LeaseHeldError
from storage.leases import wait_for_lease
from storage.records import Stage
from storage.store import Store
root, shift, *names = sys.argv[1:]
real = time.time
time.time = lambda: real() + float(shift)
store = Store.open(root)
made = conftest.make_payload([conftest.make_sample(index) for index in range(2)])
print("ready", flush=True)
sys.stdin.readline()
for name in names:
    while True:
        try:
            store.commit(Stage.SHARDS, name, conftest.KEY, *made)
            break
        except LeaseHeldError as error:
            print(error, flush=True)
            time.sleep(0.1)
wait_for_lease(store.objects, ".engine/leases/common.lock", lambda: None).release()
print("done", socket.gethostname(), flush=True)
"""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)  # noqa: S607


@pytest.fixture
def hosts() -> Iterator[dict[str, tuple[str, Callable[..., subprocess.Popen[str]]]]]:
    """Two hosts: the address at which each sees this machine, and how a program is started."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root, iproute2 and unshare")
    made: list[str] = []
    processes: list[subprocess.Popen[str]] = []
    found = {}
    try:
        for number, name in enumerate(("host-a", "host-b"), start=1):
            space = f"ms{os.getpid()}-{number}"
            here, there = f"ms{os.getpid()}h{number}", f"ms{os.getpid()}t{number}"
            address = f"10.231.{number}.1"
            try:
                _ip("netns", "add", space)
                made.append(space)
                _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", space)
                _ip("address", "add", f"{address}/24", "dev", here)
                _ip("link", "set", here, "up")
                _ip("-n", space, "address", "add", f"10.231.{number}.2/24", "dev", there)
                _ip("-n", space, "link", "set", there, "up")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces on this machine: {error.stderr}")

            def start(
                *arguments: str, space: str = space, name: str = name, **environment: str
            ) -> subprocess.Popen[str]:
                enter = ["ip", "netns", "exec", space, "unshare", "--uts", "sh", "-c"]
                paths = (HERE, HERE.parent / "support", HERE.parent.parent)
                process = subprocess.Popen(
                    [*enter, f'hostname {name}; exec "$@"', "sh", sys.executable, "-c", *arguments],
                    env={
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join(map(str, paths)),
                        **environment,
                    },
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                processes.append(process)
                return process

            found[name] = (address, start)
        yield found
    finally:
        end_processes(processes)
        for space in made:  # its links go with it
            _ip("netns", "delete", space)


def test_two_hosts_share_a_dataset_over_a_bad_line(bucket, hosts):
    store = Store.create(bucket.root, SPEC)
    common = [f"0badcafe-{number:06d}" for number in range(3)]
    names = {"host-a": [*common, "0badcafe-000100"], "host-b": [*common, "0badcafe-000200"]}
    with ExitStack() as lines:
        workers = {}
        for (name, (address, start)), shift in zip(hosts.items(), (3600, -3600), strict=True):
            # on the link to that host alone
            line = lines.enter_context(
                serve_troubled_line(bucket.server_port, address, refused=0.2, lost=0.05, cut=0.03)
            )
            endpoint = f"http://{address}:{line.server_port}"
            workers[name] = start(
                *(WORK, bucket.root, str(shift), *names[name]), AWS_ENDPOINT_URL=endpoint
            )
        assert [worker.stdout.readline() for worker in workers.values()] == ["ready\n"] * 2, [
            worker.stderr.read() for worker in workers.values()
        ]
        for worker in workers.values():
            worker.stdin.write("\n")
            worker.stdin.flush()
        outputs = {name: worker.communicate(timeout=60) for name, worker in workers.items()}
    for name, (said, errors) in outputs.items():
        *held, done = said.splitlines()
        assert done == f"done {name}", errors
        other = ({*hosts} - {name}).pop()
        # two that come at the same moment do not know each other's name
        assert all(f"on {other} for" in line or "another worker" in line for line in held), held
    commits = store.commits(Stage.SHARDS)
    assert [commit.shard for commit in commits] == [*common, "0badcafe-000100", "0badcafe-000200"]
    assert [commit.host for commit in commits[3:]] == ["host-a", "host-b"]
    write_card(store)  # as a run does at its end
    assert verify_bytes(store, 1205) == []
    assert store.objects.paths(".engine/quarantine") == []
    assert store.objects.paths(".engine/intents") == []
    assert line.fates["refused"] + line.fates["lost"] > 3, line.fates
