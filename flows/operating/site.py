"""A site: what runs on one machine, where its data and its state are, and how it is reached."""

import json
import os
import socket
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from storage.errors import InputError, LeaseHeldError
from storage.files import write_whole
from storage.locks import hold_folder
from storage.paths import local_path

POOL = "magicseg"
"""Name of the work pool."""

_STATE_FILE = "up.json"


def state_folder() -> Path:
    """Where a machine's server and workers keep their database and logs, unless told otherwise."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "magicseg"


@dataclass(frozen=True)
class Site:
    """What `magicseg up` runs.

    Attributes:
        state: Folder of the server's database, the logs, and the record of what runs.
        data: Folder or object-store URL; datasets lie in it.
        host: Interface that the server listens on.
        port: Its port.
        server: Address of an API that somebody else serves; empty to serve it here.
        workers: Workers on this machine; nothing for one a GPU, or one if there is none.
    """

    state: Path
    data: str
    host: str = "127.0.0.1"
    port: int = 4200
    server: str = ""
    workers: int | None = None

    @property
    def url(self) -> str:
        """Address of the API, as processes of this machine reach it."""
        if self.server:
            return self.server.rstrip("/")
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - compared
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/api"

    @property
    def page(self) -> str:
        """Address of the user interface."""
        return self.url.removesuffix("/api")

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.state / "logs"

    @property
    def runs(self) -> Path:
        """Local folder of training runs and benchmarks."""
        return self.state / "runs" if "://" in self.data else local_path(self.data).absolute()

    def root(self, name: str) -> str:
        """Root of a dataset."""
        if "://" in self.data:
            return f"{self.data.rstrip('/')}/{name}"
        return str(local_path(self.data).absolute() / name)

    @cached_property
    def devices(self) -> list[str]:
        """What each worker computes on: the indices of GPUs as CUDA numbers them, or `cpu`.

        Raises:
            InputError: More workers are wanted than there are GPUs.
        """
        import torch

        found = [str(index) for index in range(torch.cuda.device_count())]
        if self.workers is None:
            return found or ["cpu"]
        if found and self.workers > len(found):
            message = (
                f"{self.workers} workers are wanted but {len(found)} GPUs are there, expected at "
                "most one worker a GPU: lower --workers"
            )
            raise InputError(message)
        return found[: self.workers] or ["cpu"] * self.workers

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the server, the workers and the commands of this site.

        Nothing calls out: no statistics, no advertisements.
        """
        quiet = {
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "DO_NOT_TRACK": "1",
        }
        given = {
            "PREFECT_HOME": str(self.state / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_API_HOST": self.host,
            # the pages ask for the server where the variable says, whatever --port says
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            # a run whose worker and process are gone is known within two minutes
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "MAGICSEG_MINIATURE_ROOT": self.root("miniature"),
            "MAGICSEG_PAPER_ROOT": self.root("paper"),
            "MAGICSEG_RUNS": str(self.runs),
        }
        return {**quiet, **os.environ, **given}

    def require_port(self) -> None:
        """Check that the server can listen where it is to.

        Raises:
            InputError: Something else does, or the interface is not there.
        """
        with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                message = (
                    f"port {self.port} of {self.host} cannot be served ({error.strerror}): name "
                    "another --port, or a --server that runs already"
                )
                raise InputError(message) from error

    def write_record(self, **about: Any) -> None:
        """Write down what runs, for `magicseg down` and other commands."""
        record = {"pid": os.getpid(), "host": socket.gethostname(), "url": self.url, **about}
        text = json.dumps({**record, "version": version("magicseg-engine")})
        write_whole(self.state / _STATE_FILE, text.encode())


def running_site(state: Path) -> dict[str, Any] | None:
    """What the site of a state folder has written down, if it runs.

    Raises:
        InputError: The record cannot be read, or a file is where the folder should be.
    """
    for each in (state, *state.parents):
        if os.path.lexists(each) and not each.is_dir():
            message = f"{state} cannot be a state folder: {each} is no folder; name another one"
            raise InputError(message)
    path = state / _STATE_FILE
    if not path.is_file():
        return None
    try:
        with hold_folder(state):
            return None  # nobody holds it: what is written is of a site that has ended
    except LeaseHeldError:
        pass
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, OSError) as error:
        message = f"{path} cannot be read ({error}); end the 'magicseg up' of {state} by hand"
        raise InputError(message) from error
