"""Prefect's server for people who run none: private to one store, and gone with its parent.

`python -m flows.embedded_server PORT` is that server. It ends when its standard input closes, which
the kernel sees to even if the parent is killed.
"""

import atexit
import gc
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

from flows.empty_database import NAME, begin_with_empty, forget_empty, keep_empty
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
    # It watches over workers, and nobody else's can find this server.
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
}


class StartedServer:
    """A server that may still be starting, and whose API has an address all the same.

    Args:
        address: Of its API.
        own: The process and its home, unless somebody else runs the server.

    Attributes:
        address: As given.
    """

    def __init__(self, address: str, own: "_OwnServer | None" = None) -> None:
        self.address = address
        self._own = own

    def wait(self) -> str:
        """Wait until it answers, and return its address.

        Raises:
            EngineError: It does not start.
        """
        if self._own is not None:
            try:
                self._own.wait()
            except BaseException:
                os.environ.pop("PREFECT_API_URL", None)  # nobody may look for it there
                raise
            self._own = None
            _checked.add(self.address)
        return self.address


def start_server(home: Path) -> StartedServer:
    """Begin to run a Prefect server until this process ends, unless PREFECT_API_URL names one.

    Prefect reads most settings when it is imported, so call this before; further calls keep the
    server of the first one.

    Args:
        home: Folder of the database; made private, because run parameters are readable in it.

    Returns:
        The server, which is to be waited for before it is asked anything.

    Raises:
        InputError: PREFECT_API_URL is no address of a Prefect API.
        TransientError: Nobody answers at PREFECT_API_URL.
    """
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if url := os.environ.get("PREFECT_API_URL"):
        return StartedServer(url if url in _checked else check_server(url))
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    os.environ["PREFECT_HOME"] = str(home.absolute())
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    own = _OwnServer(home)
    url = os.environ["PREFECT_API_URL"] = f"{own.origin}/api"
    return StartedServer(url, own)


def ensure_server(home: Path) -> str:
    """Start a server as `start_server` does, and wait until it answers.

    Returns:
        Address of its API.

    Raises:
        EngineError: The server does not start.
        InputError: PREFECT_API_URL is no address of a Prefect API.
        TransientError: Nobody answers at PREFECT_API_URL.
    """
    return start_server(home).wait()


class _OwnServer:
    """The process of a private server; ends with this process.

    Args:
        home: Folder of its database.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port = _free_port()
        self.origin = f"http://127.0.0.1:{self._port}"
        self._is_new = not (home / NAME).exists()
        self._begun_with_copy = begin_with_empty(home)
        self._process = self._start()
        atexit.register(self.stop)

    def wait(self) -> None:
        """Wait until it answers.

        A server that cannot work with the copy of an empty database gets one more try without it.

        Raises:
            EngineError: It does not start.
        """
        try:
            self._wait_until_healthy()
        except EngineError:
            if not self._begun_with_copy:
                raise
            self.stop()
            forget_empty(self._home)
            self._begun_with_copy = False
            self._process = self._start()
            self._wait_until_healthy()
        if self._is_new and not self._begun_with_copy:
            keep_empty(self._home)

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def _log(self) -> Path:
        return self._home / "server.log"

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("w", encoding="utf-8") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.embedded_server", str(self._port)],
                env=os.environ | _SERVER_SETTINGS,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _wait_until_healthy(self) -> None:
        url = f"{self.origin}/api/health"
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urlopen(url, timeout=5) as answer:  # noqa: S310 - our own loopback address
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                time.sleep(0.1)
        message = (
            f"the Prefect server did not start ({url}); its output is in {self._log}. Start one "
            "yourself with `prefect server start`, and set PREFECT_API_URL"
        )
        raise EngineError(message)


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve on the loopback interface until the standard input closes."""
    gc.disable()  # what imports leave is no garbage, and to look through it takes a quarter of them
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            gc.freeze()
            gc.enable()

    # An interruption at the terminal reaches the parent too, which ends us when it is ready.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        lifespan="on",
    )
    Server(config).run()


if __name__ == "__main__":
    main()
