"""`magicseg up`: a server, workers and all that they need, on one machine, until it is stopped."""

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from rich.console import Console

from flows.operating.children import Child
from flows.operating.site import POOL, Site, running_site
from storage.errors import EngineError, InputError, LeaseHeldError
from storage.locks import hold_folder

_START_SECONDS = 180.0
_LOOK_SECONDS = 1.0
_CARE_SECONDS = 15.0
_STOP_SECONDS = 120.0

COORDINATED_RUNS = 20
"""Runs that the worker of the queue `coordination` follows at once."""

_log = logging.getLogger(__name__)


def run_site(site: Site, console: Console) -> None:
    """Start everything, say what runs where, and keep it running until this process is stopped.

    Args:
        site: What to run.
        console: Where to say it.

    Raises:
        EngineError: The server does not start, or refuses the deployments.
        InputError: The port is taken, or a place cannot be used.
        LeaseHeldError: Another `magicseg up` uses the state folder.
    """
    running_site(site.state)  # refuses what cannot be a state folder
    site.state.mkdir(parents=True, exist_ok=True)
    site.state.chmod(0o700)  # parameters of runs are readable in the database
    with _held(site), _stopped_at_the_end() as children:
        site.logs.mkdir(parents=True, exist_ok=True)
        (site.state / "work").mkdir(exist_ok=True)
        if "://" not in site.data:
            site.runs.mkdir(parents=True, exist_ok=True)
        if not site.server:
            site.require_port()
            children.append(_server(site))
            children[0].start()
        console.print(f"waiting for the server at {site.page} ...", soft_wrap=True)
        _wait_until_healthy(site, children)
        _set_up(site, console)
        for worker in _workers(site):
            children.append(worker)
            worker.start()
        site.write_record(children={child.name: child.pid for child in children})
        _describe(site, children, console)
        _look_after(site, children, console)


def stop_site(state: Path, console: Console) -> None:
    """Stop the `magicseg up` of a state folder, and wait until it has ended.

    Raises:
        EngineError: It does not end.
        InputError: It runs on another machine.
    """
    record = running_site(state)
    if record is None:
        console.print(f"nothing runs in {state}", soft_wrap=True)
        return
    if record["host"] != socket.gethostname():
        message = f"it runs on {record['host']}, not on this machine: stop it there"
        raise InputError(message)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(record["pid"]), signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while running_site(state) is not None:
        if time.monotonic() > deadline:
            message = f"process {record['pid']} did not end within {_STOP_SECONDS:.0f} s"
            raise EngineError(message)
        time.sleep(0.2)
    console.print(f"stopped what ran at {record['url']}", soft_wrap=True)


@contextmanager
def _held(site: Site) -> Iterator[None]:
    try:
        with hold_folder(site.state):
            yield
    except LeaseHeldError as error:
        record = running_site(site.state)
        if record is None:
            raise
        message = (
            f"it runs already, as process {record['pid']}, at {record['url']}; 'magicseg down' "
            "stops it, --state and --port run another one beside it"
        )
        raise LeaseHeldError(message) from error


@contextmanager
def _stopped_at_the_end() -> Iterator[list[Child]]:
    """Stop workers first, so that they can still tell the server what became of their runs."""
    children: list[Child] = []
    try:
        yield children
    finally:
        # a second Ctrl-C must not leave processes behind
        before = {each: signal.signal(each, signal.SIG_IGN) for each in _SIGNALS}
        for child in children[1:]:
            child.ask_to_stop()
        for child in reversed(children):
            child.stop()
        for each, handler in before.items():
            signal.signal(each, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _server(site: Site) -> Child:
    return Child(
        "server",
        [sys.executable, "-m", "prefect", "server", "start"],
        site.environment,
        site.logs / "server.log",
        site.state / "work",
    )


def _workers(site: Site) -> Iterator[Child]:
    """One worker that follows runs, and one for each device."""
    from flows.operating.resources import COORDINATION, GPU_QUEUE

    if not site.server:
        yield _worker(site, "coordinator", [COORDINATION], COORDINATED_RUNS, {})
    for number, device in enumerate(site.devices):
        name = f"gpu{device}" if device != "cpu" else f"cpu{number}"
        extra = {"CUDA_VISIBLE_DEVICES": device} if device != "cpu" else {}
        yield _worker(site, name, [GPU_QUEUE, device_queue(device)], 1, extra)


def device_queue(device: str) -> str:
    """The queue of a class of devices, such as `gpu-nvidia-h100-80gb-hbm3`, or `gpu-none`."""
    if device == "cpu":
        return "gpu-none"
    import torch

    name = torch.cuda.get_device_properties(int(device)).name
    return "gpu-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _worker(
    site: Site, name: str, queues: list[str], limit: int, extra: Mapping[str, str]
) -> Child:
    full_name = f"{socket.gethostname()}-{name}"
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"]
    command += ["--pool", POOL, "--type", "process", "--name", full_name, "--limit", str(limit)]
    for queue in queues:
        command += ["--work-queue", queue]
    settings = {"PREFECT_WORKER_QUERY_SECONDS": "3", **site.environment, **extra}
    return Child(full_name, command, settings, site.logs / f"{name}.log", site.state / "work")


def _wait_until_healthy(site: Site, children: list[Child]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urlopen(f"{site.url}/health", timeout=5) as answer:  # noqa: S310 - http or https
            if answer.status == 200:
                return
        if children and children[0].pid is None:
            message = f"the server ended at once; its output is in {children[0].log}"
            raise EngineError(message)
        time.sleep(0.2)
    message = f"no server answered at {site.url} within {_START_SECONDS:.0f} s"
    raise EngineError(message)


def _set_up(site: Site, console: Console) -> None:
    from flows.operating.connection import connected
    from flows.operating.resources import ensure_resources, register_deployments

    with connected(site.url) as client:
        ensure_resources(client, {device_queue(device) for device in site.devices})
        if not site.server:
            console.print("registering the deployments ...")
            register_deployments(client, site)


def _look_after(site: Site, children: list[Child], console: Console) -> None:
    """Keep the children running, and pick up runs that never began."""
    from flows.operating.connection import connected
    from flows.operating.keeper import pick_up

    due = time.monotonic() + _CARE_SECONDS
    with connected(site.url) as client:
        while True:
            time.sleep(_LOOK_SECONDS)
            for child in children:
                if told := child.look_after():
                    console.print(told, soft_wrap=True)
            if site.server or time.monotonic() < due:
                continue
            due = time.monotonic() + _CARE_SECONDS
            try:
                for name in pick_up(client):
                    console.print(f"run {name} is started again: it had crashed before it began")
            except Exception as error:  # noqa: BLE001 - the server may be away for a while
                _log.info("could not look for runs to pick up: %s", error)


def _describe(site: Site, children: list[Child], console: Console) -> None:
    """One screen of what runs where."""
    from flows.operating.resources import deployment_names

    console.print(f"\nserver       {site.page} (database and logs in {site.state})", soft_wrap=True)
    for child in children:
        if child.name != "server":
            command = list(child.command)
            queues = [command[i + 1] for i, word in enumerate(command) if word == "--work-queue"]
            console.print(f"worker       {child.name}: queues {', '.join(queues)}", soft_wrap=True)
    console.print(f"data         {site.data}, runs in {site.runs}", soft_wrap=True)
    for name in deployment_names():
        console.print(f"deployment   {name}", soft_wrap=True)
    console.print(
        "\nOpen the address above, choose a deployment, and run it; or 'magicseg submit'. "
        "Schedules of slices are off until you switch them on.\n"
        "Ctrl-C, or 'magicseg down', stops all.",
        soft_wrap=True,
    )
    if shutil.which("nvidia-smi") is None and site.devices == ["cpu"]:
        console.print("No GPU was found: the models run on the CPU.")
