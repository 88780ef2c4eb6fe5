"""What is missing for `magicseg up`, or for what it runs, said before anything is started."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

from flows.doctor import Check
from flows.generation_run import require_space
from flows.operating.site import POOL, Site, running_site
from storage.errors import EngineError, InputError

_PATIENCE_SECONDS = 30
"""A server that many workers ask at once takes some seconds; one that is gone refuses at once."""


def examine_site(site: Site) -> list[Check]:
    """Check everything that a site needs, and what of it is there; changes nothing."""
    return [_finding(what, check) for what, check in _checks(site)]


def _checks(site: Site) -> Iterator[tuple[str, Callable[[], str]]]:
    record = running_site(site.state)
    yield "state", lambda: _state(site.state)
    yield "data", lambda: _data(site)
    yield "devices", lambda: ", ".join(site.devices)
    if site.server or record is not None:
        url = site.server or str(record["url"]) if record else site.server
        yield "server", lambda: _server(url)
        yield "set up", lambda: _resources(url)
        yield "workers", lambda: _online(url)
    else:
        yield "port", lambda: _port(site)
        yield "server", lambda: _not_running(site)


def _state(folder: Path) -> str:
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(existing, os.W_OK):
        message = f"{existing} cannot be written to; name another folder with --state"
        raise InputError(message)
    return str(folder)


def _data(site: Site) -> str:
    if "://" in site.data:
        return f"{site.data} (an object store)"
    return f"{site.runs}, {require_space(str(site.runs)) / 1e9:.0f} GB free"


def _port(site: Site) -> str:
    site.require_port()
    return f"{site.port} is free"


def _not_running(site: Site) -> str:
    message = f"none runs from {site.state}; 'magicseg up' starts it"
    raise InputError(message)


def _server(url: str) -> str:
    try:
        with urlopen(f"{url}/health", timeout=_PATIENCE_SECONDS):  # noqa: S310 - http or https
            return f"answers at {url}"
    except OSError as error:
        message = f"nobody answers at {url} ({error}); 'magicseg up' starts one"
        raise EngineError(message) from error


def _resources(url: str) -> str:
    from flows.operating.connection import connected
    from flows.operating.resources import missing_resources

    with connected(url) as client:
        missing = missing_resources(client)
    if missing:
        message = f"missing: {', '.join(missing)}; 'magicseg up' makes them"
        raise EngineError(message)
    return "pool, limits, automation and deployments are there"


def _online(url: str) -> str:
    from flows.operating.connection import connected

    with connected(url) as client:
        answer = client._client.post(f"/work_pools/{POOL}/workers/filter", json={})  # noqa: SLF001 - the client has this for asyncio alone
        answer.raise_for_status()
        online = [each["name"] for each in answer.json() if each["status"] == "ONLINE"]
    if not online:
        message = "none is online; 'magicseg up' starts them"
        raise EngineError(message)
    return ", ".join(sorted(online))


def _finding(what: str, check: Callable[[], str]) -> Check:
    try:
        return Check(what=what, ok=True, detail=check())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return Check(what=what, ok=False, detail=str(error))
