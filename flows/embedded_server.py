"""Prefect's server for people who run none: private to one store, and gone with its parent.

`python -m flows.embedded_server PORT` is that server. It ends when its standard input closes, which
the kernel sees to even if the parent is killed.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from storage.errors import EngineError

_START_SECONDS = 180.0
_STOP_SECONDS = 20.0
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
    """
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
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
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    return os.environ["PREFECT_API_URL"]


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
