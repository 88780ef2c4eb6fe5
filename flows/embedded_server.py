"""Prefect's server for people who run none: private to one store, and gone with its parent.

`python -m flows.embedded_server PORT` is that server. It ends when its standard input closes, which
the kernel sees to even if the parent is killed.
"""

import atexit
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from storage.errors import EngineError, InputError, TransientError

_START_SECONDS = 180.0
_STOP_SECONDS = 20.0
_ANSWER_SECONDS = 10.0

_checked: set[str] = set()
"""Addresses of servers that have answered to this process."""

_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Errors reach the terminal once, in words, and a run's log file in full.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
}
_SERVER_SETTINGS = {
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
}


def ensure_server(home: Path) -> str:
    """Run a Prefect server until this process ends, unless PREFECT_API_URL names one.

    Prefect reads most settings when it is imported, so call this before; further calls keep the
    server of the first one.

    Args:
        home: Folder of the database; made private, because run parameters are readable in it.

    Returns:
        Address of the server's API.

    Raises:
        EngineError: The server does not start.
        InputError: PREFECT_API_URL is no address of a Prefect API.
        TransientError: Nobody answers at PREFECT_API_URL.
    """
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if url := os.environ.get("PREFECT_API_URL"):
        return url if url in _checked else check_server(url)
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    port = _free_port()
    os.environ["PREFECT_HOME"] = str(home.absolute())
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    log = home / "server.log"
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.embedded_server", str(port)],
            env=os.environ | _SERVER_SETTINGS,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    atexit.register(_stop, server)
    _wait_until_healthy(server, f"http://127.0.0.1:{port}/api/health", log)
    url = os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    _checked.add(url)
    return url


def check_server(url: str, called: str = "PREFECT_API_URL") -> str:
    """Check that a Prefect server answers at an address, and return that.

    Args:
        url: Address of its API, which ends in `/api` unless it is Prefect Cloud's.
        called: Where it was given.

    Raises:
        InputError: It is no address, or something else than Prefect's API of our version answers.
        TransientError: Nobody answers.
    """
    named = f"{called} is {url!r}"
    way_out = "correct it, or leave it out to have a server of one's own"
    try:
        _call(url)
    except ValueError as error:
        message = f"{named}, which is no address ({error}), expected http://<host>:4200/api: "
        raise InputError(message + way_out) from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        message = f"{named}, but no server answers there ({reason}): start it, or {way_out}"
        raise TransientError(message) from error
    try:
        _ask_version(url)
    except Exception as error:
        reason = error.__cause__ or error
        message = (
            f"{named}, but no Prefect API that we can use answers there "
            f"({type(reason).__name__}: {reason}), expected http://<host>:4200/api: {way_out}"
        )
        raise InputError(message) from error
    _checked.add(url)
    return url


def _call(url: str) -> None:
    """Find out whether anybody is there; what is answered does not matter yet."""
    address = urlsplit(url)
    if address.scheme not in {"http", "https"} or not address.hostname or address.port == 0:
        message = "it does not begin with http:// or https:// and a host"
        raise ValueError(message)
    try:
        urlopen(f"{url}/health", timeout=_ANSWER_SECONDS).close()  # noqa: S310 - http or https
    except HTTPError as answer:
        answer.close()
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # Prefect has settings for certificates
            raise


def _ask_version(url: str) -> None:
    """Ask as a flow will do when it starts."""
    from prefect.client.base import ServerType
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    timeout = {"timeout": _ANSWER_SECONDS}
    with (
        temporary_settings({PREFECT_API_URL: url}),
        get_client(httpx_settings=timeout, sync_client=True) as client,
    ):
        if client.server_type == ServerType.CLOUD:
            client.hello()
        else:
            client.raise_for_api_version_mismatch()


def _wait_until_healthy(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback address
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    message = (
        f"the Prefect server did not start ({url}); its output is in {log}. Start one yourself "
        "with `prefect server start`, and set PREFECT_API_URL"
    )
    raise EngineError(message)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    if server.stdin is not None:
        server.stdin.close()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve on the loopback interface until the standard input closes."""
    import uvicorn

    # An interruption at the terminal reaches the parent too, which ends us when it is ready.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    main()
