"""Batches of paid calls that are answered hours later: what was asked for, and how far that is.

A batch is written down whole before anything of it is sent, so a killed process leaves nothing that
the next one does not find. What is open here is asked for by nobody else.

    <folder>/<job>/requests.jsonl   what is sent, one call a line
    <folder>/<job>/calls.json       what the ledger keeps beside each call
    <folder>/<job>/intent.json      what the batch is; written last, and from then on it is open
    <folder>/<job>/state.json       what the service calls it, and when to look again; replaced
    <folder>/<job>/settled.json     what became of it; from then on it is closed

The requests of a closed batch are removed: its answers are in the ledger, with what was sent.
"""

import hashlib
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from storage.errors import DataError, InputError
from storage.identity import canonical_json
from storage.layout import ENGINE_FOLDER, SPEC_PATH
from storage.leases import wait_for_lease
from storage.objects import ObjectStore
from storage.prices import Prices
from storage.records import Record, RecordT, read_record

BATCH_LEASE = f"{ENGINE_FOLDER}/leases/batches.lock"
"""Whoever makes or settles batches holds it."""

_FOLDER = f"{ENGINE_FOLDER}/ledger/batches"
_JOB = re.compile(r"[0-9a-f]{16}")


Door = Literal["service", "file"]
"""Whether a service is asked, or a file is handed to somebody who has a model."""


class Fate(StrEnum):
    """Why a call of a closed batch has no answer."""

    DECLINED = "declined"
    """A content filter turned it away; it is not asked again."""
    FAILED = "failed"
    """The service says that it went wrong, or says nothing of it at all."""
    OPEN = "open"
    """The batch ended before its turn came."""


class NoAnswer(Record, frozen=True):
    """A call that a batch has not answered."""

    fate: Fate
    """What is to become of it."""
    message: str
    """The service's words."""


class BatchIntent(Record, frozen=True):
    """What a batch is."""

    job: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Our name for it; the service has it too, and finds it again by that."""
    door: Door
    """Who is asked."""
    base_url: str
    """Whom it was made for."""
    model: str
    """The model."""
    calls: int = Field(ge=1)
    """How many calls it has."""
    most_prompt_tokens: int = Field(ge=0)
    """Upper bound of the tokens that all of them read."""
    most_completion_tokens: int = Field(ge=0)
    """Upper bound of the tokens that all of them write."""
    prices: Prices | None
    """What an answer of it costs; None if that is not known."""
    created: AwareDatetime
    """When it was written down."""


class BatchState(Record, frozen=True):
    """How far a batch is at the service."""

    file_id: str = ""
    """The service's name for the uploaded requests; empty before they are there."""
    batch_id: str = ""
    """The service's name for the batch; empty before it is made."""
    status: str = "not sent"
    """The service's word for how far it is."""
    turned_down: tuple[str, ...] = ()
    """Batches of the same requests for which the service had no room."""
    next_look: AwareDatetime | None = None
    """When to look again; None for a file, which somebody brings."""


class BatchCalls(Record, frozen=True):
    """The calls of a batch."""

    about: dict[str, dict[str, Any]]
    """What the ledger keeps beside each call's body, by its key."""


class BatchEnd(Record, frozen=True):
    """What became of a batch."""

    status: str
    """The service's last word on it, or ``forgotten``."""
    answered: int = 0
    """Calls whose answers are in the ledger."""
    repeated: int = 0
    """Further lines about calls that had one before; they are not counted as paid."""
    unknown: int = 0
    """Lines about calls that the batch does not have."""
    unanswered: dict[str, NoAnswer] = Field(default_factory=dict[str, NoAnswer])
    """The other calls by key."""
    ended: AwareDatetime
    """When it was closed."""


@dataclass(frozen=True)
class OpenBatch:
    """A batch that is not closed.

    Attributes:
        intent: What it is.
        state: How far it is.
    """

    intent: BatchIntent
    state: BatchState


class BatchJobs:
    """The batches of one dataset, as far as they were read; see `refresh`.

    Args:
        objects: Where the dataset lives.

    Attributes:
        declined: The words with which a filter turned calls away, by key.
        failures: How often batches have failed a call, by key.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._lock = threading.RLock()
        self._intents: dict[str, BatchIntent] = {}
        self._closed: set[str] = set()
        self._calls: dict[str, BatchCalls] = {}
        self._owners: dict[str, str] = {}
        self.declined: dict[str, str] = {}
        self.failures: Counter[str] = Counter()

    @property
    def dataset(self) -> str:
        """What the service is told of the dataset: a digest of what it is made of."""
        try:
            about = self._objects.read(SPEC_PATH)
        except FileNotFoundError:
            about = self._objects.url.encode()
        return hashlib.sha256(about).hexdigest()[:16]

    @contextmanager
    def leased(self, check: Callable[[], None]) -> Generator[None]:
        """Be the only one who makes and settles batches, and know of all of them.

        Args:
            check: Called now and then while others are at it; what it raises ends the waiting.
        """
        lease = wait_for_lease(self._objects, BATCH_LEASE, check)
        try:
            self.refresh()
            self._clear_litter()
            yield
        finally:
            lease.release()

    def refresh(self) -> None:
        """Read what processes have written since the last time.

        Raises:
            DataError: A record is damaged.
        """
        found: dict[str, set[str]] = {}
        for job, name, _ in self._files():
            found.setdefault(job, set()).add(name)
        with self._lock:
            for job, names in found.items():
                if "settled.json" in names:
                    self._take_end(job)
                elif "intent.json" in names and job not in self._intents:
                    self._take_intent(job)
            for job in self._intents.keys() - found.keys():  # somebody has removed its folder
                self._drop(job)

    def _files(self) -> Iterator[tuple[str, str, str]]:
        """Job, name and path of everything that is there."""
        for path in self._objects.paths(_FOLDER):
            job, _, name = path.removeprefix(f"{_FOLDER}/").partition("/")
            if _JOB.fullmatch(job):
                yield job, name, path

    def _take_intent(self, job: str) -> None:
        try:
            intent = self._read(BatchIntent, job, "intent")
            calls = self._read(BatchCalls, job, "calls")
        except FileNotFoundError as error:
            if self._objects.size(f"{_FOLDER}/{job}/settled.json") is None:
                message = f"{self._place(job, 'calls.json')} is missing; {_way_out(job)}"
                raise DataError(message) from error
            self._take_end(job)  # it was closed just now
            return
        self._add(intent, calls)

    def _add(self, intent: BatchIntent, calls: BatchCalls) -> None:
        self._intents[intent.job], self._calls[intent.job] = intent, calls
        self._owners.update(dict.fromkeys(calls.about, intent.job))

    def _take_end(self, job: str) -> None:
        if job in self._closed:
            return
        end = self._read(BatchEnd, job, "settled")
        for key, each in end.unanswered.items():
            if each.fate is Fate.DECLINED:
                self.declined[key] = each.message
            elif each.fate is Fate.FAILED:
                self.failures[key] += 1
        self._closed.add(job)
        self._drop(job)

    def _drop(self, job: str) -> None:
        self._intents.pop(job, None)
        calls = self._calls.pop(job, None)
        for key in calls.about if calls is not None else ():
            if self._owners.get(key) == job:
                del self._owners[key]

    def open(self) -> list[OpenBatch]:
        """The batches that are not closed, the oldest first."""
        with self._lock:
            intents = list(self._intents.values())
        intents.sort(key=lambda each: (each.created, each.job))
        return [OpenBatch(intent, self.state(intent.job)) for intent in intents]

    def is_open(self, key: str) -> bool:
        """Whether an open batch has a call."""
        with self._lock:
            return key in self._owners

    def about(self, job: str) -> Mapping[str, Mapping[str, Any]]:
        """What the ledger keeps beside each call of an open batch, by key."""
        return self._calls[job].about

    def requests(self, job: str) -> bytes:
        """What is sent of an open batch."""
        try:
            return self._objects.read(f"{_FOLDER}/{job}/requests.jsonl")
        except FileNotFoundError as error:
            message = f"{self._place(job, 'requests.jsonl')} is missing; {_way_out(job)}"
            raise DataError(message) from error

    def create(self, intent: BatchIntent, requests: bytes, calls: BatchCalls) -> OpenBatch:
        """Write a batch down, before anything of it is sent; needs the lease."""
        job = intent.job
        self._objects.write_new(f"{_FOLDER}/{job}/requests.jsonl", requests)
        self._objects.write_new(f"{_FOLDER}/{job}/calls.json", canonical_json(calls))
        self._objects.write_new(f"{_FOLDER}/{job}/intent.json", canonical_json(intent))
        with self._lock:
            self._add(intent, calls)
        return OpenBatch(intent, BatchState())

    def note(self, job: str, state: BatchState) -> None:
        """Write down how far a batch is; needs the lease."""
        self._objects.replace(f"{_FOLDER}/{job}/state.json", canonical_json(state))

    def close(self, job: str, end: BatchEnd) -> None:
        """Write down what became of a batch; its answers are in the ledger by now.

        Needs the lease.
        """
        self._objects.write_new(f"{_FOLDER}/{job}/settled.json", canonical_json(end))
        with self._lock:
            self._take_end(job)
        for name in ("requests.jsonl", "calls.json"):
            self._objects.delete(f"{_FOLDER}/{job}/{name}")

    def forget(self, job: str, now: datetime) -> None:
        """Close a batch as if it had never been answered; its calls are asked again.

        One that is damaged can be forgotten too. Its requests are removed when batches are made
        again.

        Raises:
            InputError: There is no such open batch.
        """
        names = {name for each, name, _ in self._files() if each == job}
        if not names or self._is_closed(job, names):
            message = (
                f"{self._objects.url} has no open batch {job!r}; 'magicseg batch list ROOT' shows "
                "those that it has"
            )
            raise InputError(message)
        end = BatchEnd(status="forgotten", ended=now)
        self._objects.replace(f"{_FOLDER}/{job}/settled.json", canonical_json(end))

    def _is_closed(self, job: str, names: set[str]) -> bool:
        """Whether a batch has an end that can be read."""
        try:
            return "settled.json" in names and bool(self._read(BatchEnd, job, "settled"))
        except DataError:
            return False

    def worst(self, prices: Prices | None) -> tuple[int, float]:
        """What the open batches may take at most, which is reserved for them.

        Args:
            prices: Stand in where those of a batch are not known.

        Returns:
            Tokens and USD.
        """
        with self._lock:
            paid = [each for each in self._intents.values() if each.door == "service"]
        tokens = sum(each.most_prompt_tokens + each.most_completion_tokens for each in paid)
        usd = 0.0
        for each in paid:
            if (known := each.prices or prices) is not None:
                usd += known.cost(each.most_prompt_tokens, each.most_completion_tokens)
        return tokens, usd

    def _clear_litter(self) -> None:
        """Remove what a killed process wrote of a batch that never came to be, or is closed."""
        for job, name, path in self._files():
            if name in {"requests.jsonl", "calls.json"} and job not in self._intents:
                self._objects.delete(path)

    def state(self, job: str) -> BatchState:
        """How far a batch is."""
        try:
            return self._read(BatchState, job, "state")
        except FileNotFoundError:
            return BatchState()

    def _read(self, kind: type[RecordT], job: str, name: str) -> RecordT:
        data = self._objects.read(f"{_FOLDER}/{job}/{name}.json")
        return read_record(kind, data, self._place(job, f"{name}.json"), way_out=_way_out(job))

    def _place(self, job: str, name: str) -> str:
        return f"{self._objects.url}/{_FOLDER}/{job}/{name}"


def new_job() -> str:
    """A name for a batch that no other one has."""
    return secrets.token_hex(8)


def _way_out(job: str) -> str:
    return f"run 'magicseg batch forget ROOT {job}', and its calls are asked again"
