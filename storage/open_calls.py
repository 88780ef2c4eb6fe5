"""Paid calls under way: what every worker of a store has sent and not yet heard of.

A call is filed before it is sent, and its file goes when it is settled. So the calls of all workers
can be counted together, against a limit on calls in flight and against a budget, and what a killed
worker had sent is known: it may have been paid, so it counts by its worst case.

    <folder>/open/<token>.json    sent; its worker waits for the answer, or is gone
    <folder>/lost/<token>.json    sent; no answer came, and nobody knows whether it was paid
"""

import os
import secrets
import socket
import time
from collections.abc import Container
from pathlib import Path

from pydantic import Field

from storage.identity import canonical_json
from storage.objects import ObjectStore
from storage.prices import Prices
from storage.records import Record, read_record


class OpenCall(Record, frozen=True):
    """A call that was sent, or is about to be."""

    token: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Tells it from all others; its answer names it."""
    key: str
    """Digest of the request."""
    most_prompt_tokens: int = Field(ge=0)
    """Upper bound of the tokens that it reads."""
    most_completion_tokens: int = Field(ge=0)
    """Upper bound of the tokens that it writes."""
    prices: Prices | None
    """Prices at that time, if they were known."""
    until: float
    """When its worker gives up waiting, seconds since the epoch."""
    host: str
    """Host of its worker."""
    pid: int
    """Process of its worker."""
    started: str
    """When that process started, as the system says it; tells it from a later one."""

    @property
    def is_live(self) -> bool:
        """Whether somebody may still wait for the answer."""
        if self.until < time.time():
            return False
        return self.host != socket.gethostname() or _start_of(self.pid) == self.started


class OpenCalls:
    """The calls under way of one dataset.

    Args:
        objects: Where the dataset lives.
        folder: Where in it the ledger is.
    """

    def __init__(self, objects: ObjectStore, folder: str) -> None:
        self._objects = objects
        self._folder = folder
        self._known: dict[str, dict[str, OpenCall]] = {}

    def file(
        self, key: str, most: tuple[int, int], prices: Prices | None, seconds: float
    ) -> OpenCall:
        """File a call that is about to be sent.

        Args:
            key: Digest of the request.
            most: Upper bounds of the tokens read and written.
            prices: What the service charges, if that is known.
            seconds: How long its answer is waited for.
        """
        call = OpenCall(
            token=secrets.token_hex(8),
            key=key,
            most_prompt_tokens=most[0],
            most_completion_tokens=most[1],
            prices=prices,
            until=time.time() + seconds,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=_start_of(os.getpid()),
        )
        self._objects.write_new(self._path("open", call.token), canonical_json(call))
        return call

    def settle(self, token: str) -> None:
        """Take a call away: its answer is filed, or it was not paid."""
        self._objects.delete(self._path("open", token))

    def lose(self, token: str) -> None:
        """Keep a call as one of which nobody knows whether it was paid."""
        self._objects.move(self._path("open", token), self._path("lost", token))

    def pending(self, settled: Container[str] = ()) -> list[OpenCall]:
        """All calls that are not settled: those waited for, and those of which nothing came.

        Args:
            settled: Tokens of the answers that are filed: the file of such a call was left behind
                by a worker that was killed, and goes.
        """
        pending: list[OpenCall] = []
        for folder in ("open", "lost"):
            for token, call in self._listed(folder).items():
                if token in settled:
                    self._objects.delete(self._path(folder, token))
                    continue
                pending.append(call)
                if folder == "open" and not call.is_live:
                    self.lose(token)
        return list({call.token: call for call in pending}.values())

    def in_flight(self) -> int:
        """How many calls somebody waits for."""
        return sum(call.is_live for call in self._listed("open").values())

    def _path(self, folder: str, token: str) -> str:
        return f"{self._folder}/{folder}/{token}.json"

    def _listed(self, folder: str) -> dict[str, OpenCall]:
        """The calls of a folder by token; what is filed does not change, so it is read once.

        Raises:
            DataError: A file is damaged.
        """
        known = self._known.get(folder, {})
        paths = {Path(path).stem: path for path in self._objects.paths(f"{self._folder}/{folder}")}
        calls = {token: known[token] for token in paths if token in known}
        new = [path for token, path in paths.items() if token not in known]
        for path, data in self._objects.read_many(new):
            if data is not None:  # otherwise it was settled just now
                place = f"{self._objects.url}/{path}"
                call = read_record(OpenCall, data, place, way_out="remove that file")
                calls[call.token] = call
        self._known[folder] = calls
        return calls


def _start_of(pid: int) -> str:
    """When a process of this host started; empty if there is none, or nobody says."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _alive(pid)  # not every system has this folder
    return stat.rpartition(")")[2].split()[19]


def _alive(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
