"""The ledger of paid calls: a request that was answered once is never sent again.

Each answer is one small JSON file, named by the digest of its request and created at once or not at
all, before anybody uses it. So any number of processes, on any machines that share the store, can
write the ledger, and a killed one loses at most the calls that were in flight. Errors are filed
apart and answer nothing.

    <folder>/answers/<key>.json            the answer to a request
    <folder>/answers/<key>.<8 hex>.json    another one: two processes had asked at the same time
    <folder>/errors/<key>.<8 hex>.json     an attempt that brought no answer
    <folder>/open, <folder>/lost           calls under way: see `storage.open_calls`

Only what has choices is an answer. Earlier versions filed every JSON that came with status 200;
what is none is moved to the errors when it is met, and is no longer counted.
"""

import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from storage.batch_jobs import BatchJobs
from storage.errors import DataError
from storage.identity import canonical_json
from storage.objects import ObjectStore
from storage.open_calls import OpenCall, OpenCalls
from storage.prices import Prices
from storage.records import Record, read_record


class Reading(Record, frozen=True):
    """What was read in an answer when it came."""

    reader: str
    """Version of the reader."""
    form: str
    """How the texts were written."""
    texts: int = Field(ge=0)
    """How many there were."""


class Answer(Record, frozen=True):
    """One answered request, whole: what reads it can be changed without paying again."""

    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of everything that makes the request what it is."""
    request: dict[str, Any]
    """What was sent: address, body, and what it was for; no credentials."""
    response: dict[str, Any]
    """The answer's JSON."""
    prompt_tokens: int | None
    """Tokens read, as the service counts them; None if it does not say."""
    completion_tokens: int | None
    """Tokens written; None if the service does not say."""
    most_prompt_tokens: int
    """An upper bound, which counts against a budget when the service does not say."""
    most_completion_tokens: int
    """The same for the tokens written."""
    prices: Prices | None
    """Prices at that time; None if they were not known."""
    seconds: float
    """From sending to the whole answer."""
    call: str = ""
    """Token of the call under way that it settled; empty in answers from before there were such."""
    reading: Reading | None = None
    """What was read in it; None in answers from before that was kept."""
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """When it arrived, UTC."""

    @property
    def is_answer(self) -> bool:
        """Whether the response has choices: earlier versions filed gateways' errors here too."""
        return bool(self.response.get("choices"))

    @property
    def cost_usd(self) -> float | None:
        """What it cost, or None if that is not known; unknown is not free."""
        if self.prices is None or self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prices.cost(self.prompt_tokens, self.completion_tokens)


class Totals(Record, frozen=True):
    """Sums over the whole ledger, whichever process wrote it."""

    calls: int
    """Answered requests."""
    cached: int
    """Requests of this process that the ledger answered."""
    errors: int
    """Attempts that brought no answer."""
    prompt_tokens: int
    """Tokens read, where the service said so."""
    completion_tokens: int
    """Tokens written, where the service said so."""
    unmetered: int
    """Calls for which the service reported no tokens."""
    unsettled: int = 0
    """Calls that were sent and of which nobody knows whether they were paid."""
    cost_usd: float | None
    """Money spent; None if it is unknown for any call."""


class Ledger:
    """The calls made for one dataset.

    Args:
        objects: Where the dataset lives.
        folder: Where in it the ledger is.

    Attributes:
        batches: The batches of calls, of all workers.
        calls: The calls under way, of all workers.
    """

    def __init__(self, objects: ObjectStore, folder: str = ".engine/ledger") -> None:
        self.batches = BatchJobs(objects)
        self._objects = objects
        self._folder = folder
        self._lock = threading.Lock()
        self._cached = 0
        self._counted: set[str] = set()
        self._settled: set[str] = set()
        self.calls = OpenCalls(objects, folder)
        self._sums = _Sums()

    def find(self, key: str, *others: str) -> Answer | None:
        """Look up the answer to a request.

        Args:
            key: Of the request.
            others: Keys that earlier versions gave it.

        Raises:
            DataError: If the record of it is damaged.
        """
        for each in (key, *others):
            if (answer := self._first(each)) is not None:
                with self._lock:
                    self._cached += 1
                return answer
        return None

    def _first(self, key: str) -> Answer | None:
        try:
            answer = self._read(self._path(key))
        except FileNotFoundError:
            return None
        if answer.is_answer:
            return answer
        self._set_aside(self._path(key), answer)
        return None

    def _set_aside(self, path: str, answer: Answer) -> None:
        """File among the errors what came in the place of an answer."""
        self.add_error(answer.key, f"no answer: {canonical_json(answer.response).decode()[:2000]}")
        self._objects.delete(path)

    def answers(self) -> Iterator[Answer]:
        """All answers, whichever process wrote them.

        Raises:
            DataError: If the record of one is damaged.
        """
        paths = self._objects.paths(f"{self._folder}/answers")
        return (answer for _, answer in self._read_many(paths))

    def _read_many(self, paths: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        """The answers at these paths; what has vanished, or is none, is left out."""
        for path, data in self._objects.read_many(paths):
            if data is not None and (answer := self._parsed(path, data)).is_answer:
                yield path, answer

    def keys(self) -> frozenset[str]:
        """The digests of the requests that were answered, without reading the answers."""
        paths = self._objects.paths(f"{self._folder}/answers")
        return frozenset(path.rpartition("/")[2].partition(".")[0] for path in paths)

    def add(self, answer: Answer) -> Answer:
        """Write an answer down; it survives a loss of power when this returns.

        Returns:
            The answer that counts from now on: the same, or another process's that came first
            (then both were paid, and both stay in the sums).
        """
        path = self._path(answer.key)
        first = self._objects.write_new(path, canonical_json(answer))
        if not first:
            path = f"{self._folder}/answers/{answer.key}.{secrets.token_hex(4)}.json"
            self._objects.write_new(path, canonical_json(answer))
        self._count(path, answer)
        return answer if first else self._read(self._path(answer.key))

    def add_error(self, key: str, message: str) -> None:
        """Write down an attempt that brought no answer; the request stays open.

        Args:
            key: Of the request.
            message: What happened.
        """
        created = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"key": key, "message": message, "created": created}
        path = f"{self._folder}/errors/{key}.{secrets.token_hex(4)}.json"
        self._objects.write_new(path, canonical_json(entry))

    def refresh(self) -> None:
        """Read the answers that other processes have added since the last call."""
        paths = self._objects.paths(f"{self._folder}/answers")
        for path, answer in self._read_many([path for path in paths if path not in self._counted]):
            self._count(path, answer)

    def totals(self) -> Totals:
        """Sum up every call of the dataset."""
        unsettled = sum(not call.is_live for call in self.pending())
        errors = len(self._objects.paths(f"{self._folder}/errors"))
        with self._lock:
            sums = self._sums
            return Totals(
                calls=len(self._counted),
                cached=self._cached,
                errors=errors,
                prompt_tokens=sums.prompt_tokens,
                completion_tokens=sums.completion_tokens,
                unmetered=sums.unmetered,
                unsettled=unsettled,
                cost_usd=None if sums.unpriced else sums.cost_usd,
            )

    def spent(self, prices: Prices | None) -> tuple[int, float]:
        """What counts against a budget, as far as this process knows: see `refresh`.

        Args:
            prices: Stand in where a call's cost is unknown.

        Returns:
            Tokens and USD; upper bounds where the service did not say.
        """
        with self._lock:
            unpriced = prices.cost(*self._sums.unpriced_tokens) if prices else 0.0
            return self._sums.most_tokens, self._sums.cost_usd + unpriced

    def pending(self) -> list[OpenCall]:
        """The calls of all workers that are not settled, outside of batches.

        They and the batches are listed before the answers are: one that is settled between the two
        is among the answers, so that no call is missed.
        """
        self.batches.refresh()
        pending = self.calls.pending(self._settled)
        self.refresh()
        with self._lock:
            return [call for call in pending if call.token not in self._settled]

    def at_worst(self, calls: Iterable[OpenCall], prices: Prices | None) -> tuple[int, float]:
        """What was spent, what open batches may take, and what these calls may take at most.

        Args:
            calls: Of those that are `pending`; to be asked for before this is.
            prices: Stand in where those of a call are not known.

        Returns:
            Tokens and USD, as far as this process knows.
        """
        tokens, usd = self.spent(prices)
        reserved, reserved_usd = self.batches.worst(prices)
        tokens, usd = tokens + reserved, usd + reserved_usd
        for call in calls:
            most = (call.most_prompt_tokens, call.most_completion_tokens)
            known = call.prices or prices
            tokens += sum(most)
            usd += known.cost(*most) if known else 0.0
        return tokens, usd

    def damaged(self) -> Iterator[tuple[str, str]]:
        """The answers that cannot be read: path and problem."""
        for path in self._objects.paths(f"{self._folder}/answers"):
            try:
                self._read(path)
            except DataError as error:
                yield path, str(error)
            except FileNotFoundError:
                continue

    def _count(self, path: str, answer: Answer) -> None:
        with self._lock:
            if path not in self._counted:
                self._counted.add(path)
                if answer.call:
                    self._settled.add(answer.call)
                self._sums.add(answer)

    def _path(self, key: str) -> str:
        return f"{self._folder}/answers/{key}.json"

    def _read(self, path: str) -> Answer:
        return self._parsed(path, self._objects.read(path))

    def _parsed(self, path: str, data: bytes) -> Answer:
        place = f"{self._objects.url}/{path}"
        way_out = "run 'magicseg verify --repair', and the request is sent again"
        return read_record(Answer, data, place, way_out=way_out)


@dataclass
class _Sums:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    unpriced_tokens: tuple[int, int] = (0, 0)
    most_tokens: int = 0

    def add(self, answer: Answer) -> None:
        prompt, completion = answer.prompt_tokens, answer.completion_tokens
        self.unmetered += prompt is None or completion is None
        self.prompt_tokens += prompt or 0
        self.completion_tokens += completion or 0
        prompt = answer.most_prompt_tokens if prompt is None else prompt
        completion = answer.most_completion_tokens if completion is None else completion
        self.most_tokens += prompt + completion
        if answer.cost_usd is None:
            self.unpriced += 1
            so_far = self.unpriced_tokens
            self.unpriced_tokens = (so_far[0] + prompt, so_far[1] + completion)
        else:
            self.cost_usd += answer.cost_usd
