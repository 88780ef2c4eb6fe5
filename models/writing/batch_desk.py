"""The desk: calls that can wait are gathered, put into batches, and looked after to their end.

A batch is another way into the ledger, under the same keys as a call that is made at once. So it is
no matter to the texts which way an answer came, and nothing is paid twice when the mode changes.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from models.protocols import AwaitedAnswers
from models.writing.batch_lines import request_line
from models.writing.batch_service import ENDED, FAILED, BatchService, ServiceBatch
from models.writing.batch_settling import Settlement
from models.writing.calls import CallOutcome, ChatCall, DeclinedError
from models.writing.chat_config import ChatWriterConfig
from models.writing.paid_answers import most_tokens
from storage.batch_jobs import (
    BatchCalls,
    BatchEnd,
    BatchIntent,
    BatchState,
    Door,
    Fate,
    NoAnswer,
    OpenBatch,
    new_job,
)
from storage.errors import AwaitedError, BudgetError, InputError, TransientError
from storage.ledger import Answer, Ledger

_log = logging.getLogger(__name__)

_MOST_FAILURES = 3
"""Batches that may fail a call before it is asked for directly."""

AskNow = Callable[[Sequence[ChatCall], Callable[[], bool]], Sequence[CallOutcome]]
"""Makes calls at once; what came of each, in order."""


def system_clock() -> datetime:
    """The present time."""
    return datetime.now(UTC)


class BatchDesk:
    """Gathers calls, makes batches of them, and settles those; threads may share it.

    Args:
        config: When to make batches, and what they may cost.
        ledger: What was answered before; the batches lie beside it.
        service: Where batches are made.
        ask_now: Makes calls at once, for those that are not worth a batch.
        clock: Says what time it is.
    """

    def __init__(
        self,
        config: ChatWriterConfig,
        ledger: Ledger,
        service: BatchService,
        ask_now: AskNow,
        clock: Callable[[], datetime] = system_clock,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._jobs = ledger.batches
        self._service = service
        self._ask_now = ask_now
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted: dict[str, ChatCall] = {}
        self._told: dict[str, CallOutcome] = {}

    def known(self, calls: Sequence[ChatCall]) -> dict[str, CallOutcome]:
        """What is known of calls that are not to be made now, by key.

        Calls that can wait are gathered for the next batch.

        Args:
            calls: What is wanted.

        Returns:
            Answers of the ledger; an `AwaitedError` for what is, or will be, in a batch; what the
            service declined. The rest is to be made at once.
        """
        self._jobs.refresh()
        gathers = self._gathers()
        outcomes: dict[str, CallOutcome] = {}
        for call in calls:
            if (outcome := self._known(call, gathers=gathers)) is not None:
                outcomes[call.key] = outcome
        return outcomes

    def _known(self, call: ChatCall, *, gathers: bool) -> CallOutcome | None:
        is_open = self._jobs.is_open(call.key)
        if not gathers and not is_open and call.key not in self._jobs.declined:
            return None
        if (answer := self._find(call)) is not None:
            return answer
        if call.key in self._jobs.declined:
            return DeclinedError(self._jobs.declined[call.key])
        with self._lock:
            if call.key in self._told:
                return self._told[call.key]
            if not is_open:
                self._wanted[call.key] = call
        return AwaitedError("its answer comes with a batch")

    def _gathers(self) -> bool:
        mode = self._config.mode
        return mode in {"batch", "run-batch"} or (mode == "auto" and self._service.is_there())

    def settle(self, check: Callable[[], None]) -> None:
        """Look at every open batch, and take in what has ended.

        Args:
            check: Called now and then; what it raises ends the work.

        Raises:
            InputError: The service refused calls, or does not know a batch any more; what could
                be taken in is taken in.
        """
        with self._lock:
            self._told.clear()
        self._jobs.refresh()
        if not self._jobs.open():
            return
        refusals: list[InputError] = []
        with self._jobs.leased(check):
            for batch in self._own():
                check()
                try:
                    self._look(batch, check)
                except TransientError as error:
                    _log.warning("batch %s is looked at later: %s", batch.intent.job, error)
                    self._note(batch, self._jobs.state(batch.intent.job))
                except InputError as error:
                    refusals.append(error)
        if refusals:
            raise refusals[0]

    def _own(self) -> Iterator[OpenBatch]:
        """The open batches that our service has."""
        for batch in self._jobs.open():
            if batch.intent.door != "service":
                continue
            if batch.intent.base_url != self._config.base_url:
                _log.warning(
                    "batch %s was made at %s, which is not asked now", *_whose(batch.intent)
                )
                continue
            yield batch

    def _look(self, batch: OpenBatch, check: Callable[[], None]) -> None:
        state = batch.state
        if state.batch_id:
            found = self._service.look(state.batch_id)
        else:
            found, state = self._send(batch)
        state = state.model_copy(update={"batch_id": found.batch_id, "status": found.status})
        if found.status in ENDED:
            self._take_in(batch.intent, found, check)
        elif found.status != FAILED:
            self._note(batch, state)
        elif found.has_no_room:
            _log.warning("batch %s: %s; it is made again later", batch.intent.job, found.problem)
            turned_down = (*state.turned_down, found.batch_id)
            self._note(batch, state.model_copy(update={"batch_id": "", "turned_down": turned_down}))
        else:
            self._give_up(batch.intent, found.problem)

    def _take_in(self, intent: BatchIntent, found: ServiceBatch, check: Callable[[], None]) -> None:
        settlement = Settlement(self._ledger, intent, self._clock(), check)
        settled = settlement.settle(self._service.results(found), found.status)
        self._jobs.close(intent.job, settled.end)
        if settled.refusal is not None:
            raise settled.refusal

    def _give_up(self, intent: BatchIntent, problem: str) -> NoReturn:
        """Close a batch that the service has not begun; nothing of it was paid."""
        message = (
            f"{intent.base_url} did not begin a batch of {intent.calls} calls: "
            f"{problem or 'it does not say why'}; check the writer's settings, or lower "
            "batch.max_calls"
        )
        unanswered = dict.fromkeys(
            self._jobs.about(intent.job), NoAnswer(fate=Fate.OPEN, message="it was not begun")
        )
        end = BatchEnd(status=FAILED, unanswered=unanswered, ended=self._clock())
        self._jobs.close(intent.job, end)
        raise InputError(message)

    def send(self, check: Callable[[], None], is_wanted: Callable[[], bool]) -> bool:
        """Make batches of the calls that were gathered.

        A few are made at once instead, where the mode is ``auto``, and so are those that several
        batches have failed.

        Args:
            check: Called now and then; what it raises ends the work.
            is_wanted: Asked while calls are made at once.

        Returns:
            Whether there is something new to go on with.

        Raises:
            BudgetError: Not one call fits into the budget, and no batch is open.
            InputError: The service has no Batch API, or refuses the calls.
        """
        with self._lock:
            wanted, self._wanted = self._wanted, {}
        if not wanted:
            return False
        if self._config.mode != "run-batch" and not self._service.is_there():
            raise InputError(_no_batches(self._config.base_url))
        with self._jobs.leased(check):
            rest = [call for call in wanted.values() if self._is_wanting(call)]
            now, later = self._divided(rest)
            if now:
                outcomes = self._ask_now(now, is_wanted)
                with self._lock:
                    self._told |= {
                        call.key: outcome for call, outcome in zip(now, outcomes, strict=True)
                    }
            for calls in self._cut(self._affordable(later)):
                check()
                if self._config.mode == "run-batch":
                    self._write_down(calls, "file")
                else:
                    self._make(calls)
        return any(self._is_told(call) for call in wanted.values())

    def _is_wanting(self, call: ChatCall) -> bool:
        return not self._jobs.is_open(call.key) and not self._is_told(call)

    def _is_told(self, call: ChatCall) -> bool:
        """Whether it is known what came of a call."""
        if call.key in self._told or call.key in self._jobs.declined:
            return True
        return not self._jobs.is_open(call.key) and self._find(call) is not None

    def _find(self, call: ChatCall) -> Answer | None:
        return self._ledger.find(call.key, *call.earlier_keys)

    def _divided(self, calls: list[ChatCall]) -> tuple[list[ChatCall], list[ChatCall]]:
        """Calls to make at once, and calls to make batches of."""
        if self._config.mode == "auto" and len(calls) < self._config.batch.min_calls:
            return calls, []
        if self._config.mode == "run-batch":
            return [], calls
        failed = [call for call in calls if self._jobs.failures[call.key] >= _MOST_FAILURES]
        keys = _keys(failed)
        return failed, [call for call in calls if call.key not in keys]

    def _affordable(self, calls: list[ChatCall]) -> list[ChatCall]:
        """The first calls, as many as fit into the budget at worst beside all open batches."""
        config, prices = self._config, self._config.batch_prices
        if config.budget_usd is None and config.budget_tokens is None:
            return calls
        tokens, usd = self._ledger.at_worst(self._ledger.pending(), config.prices)
        spent = self._ledger.spent(config.prices)
        for index, call in enumerate(calls):
            most = most_tokens(call.body)
            tokens += sum(most)
            usd += prices.cost(*most) if prices else 0.0
            if tokens > (config.budget_tokens or tokens) or usd > (config.budget_usd or usd):
                if index == 0 and not self._jobs.open():
                    raise BudgetError(_no_room(spent, most, config))
                _log.warning("%d of %d calls fit into the budget now", index, len(calls))
                return calls[:index]
        return calls

    def _cut(self, calls: Sequence[ChatCall]) -> Iterator[dict[str, tuple[ChatCall, bytes]]]:
        """Cut calls into batches that keep the service's limits."""
        limits = self._config.batch
        part: dict[str, tuple[ChatCall, bytes]] = {}
        size = 0
        for call in calls:
            line = request_line(call.key, call.body)
            if part and (len(part) == limits.max_calls or size + len(line) > limits.max_bytes):
                yield part
                part, size = {}, 0
            part[call.key] = (call, line)
            size += len(line)
        if part:
            yield part

    def _make(self, calls: dict[str, tuple[ChatCall, bytes]]) -> None:
        batch = self._write_down(calls, "service")
        try:
            self._look(batch, lambda: None)
        except TransientError as error:  # whether it was made is found out at the next look
            _log.warning("batch %s is looked at later: %s", batch.intent.job, error)
            self._note(batch, self._jobs.state(batch.intent.job))

    def _write_down(self, calls: dict[str, tuple[ChatCall, bytes]], door: Door) -> OpenBatch:
        most = [most_tokens(call.body) for call, _ in calls.values()]
        intent = BatchIntent(
            job=new_job(),
            door=door,
            base_url=self._config.base_url,
            model=self._config.model,
            calls=len(calls),
            most_prompt_tokens=sum(read for read, _ in most),
            most_completion_tokens=sum(written for _, written in most),
            prices=self._config.prices if door == "file" else self._config.batch_prices,
            created=self._clock(),
        )
        about = BatchCalls(about={key: call.about for key, (call, _) in calls.items()})
        requests = b"".join(line for _, line in calls.values())
        return self._jobs.create(intent, requests, about)

    def _send(self, batch: OpenBatch) -> tuple[ServiceBatch, BatchState]:
        """Make a batch at the service, unless a process that was killed had done so."""
        intent, state = batch.intent, batch.state
        metadata = {"magicseg_dataset": self._jobs.dataset, "magicseg_job": intent.job}
        found = self._service.find(metadata, intent.created, state.turned_down)
        if found is not None:
            return found, state
        try:
            name = f"magicseg-{intent.job}.jsonl"
            file_id = state.file_id or self._service.upload(name, self._jobs.requests(intent.job))
            state = state.model_copy(update={"file_id": file_id, "status": "uploaded"})
            self._note(batch, state)
            return self._service.make(file_id, metadata), state
        except InputError as error:
            self._give_up(intent, str(error))

    def _note(self, batch: OpenBatch, state: BatchState) -> None:
        next_look = self._clock() + timedelta(seconds=self._config.batch.look_seconds)
        self._jobs.note(batch.intent.job, state.model_copy(update={"next_look": next_look}))

    def awaited(self) -> AwaitedAnswers:
        """What is waited for now; if that is nothing, when to ask for the rest."""
        found = awaited_of(self._jobs.open())
        if found.batches or self._config.mode == "run-batch":
            return found
        pause = timedelta(seconds=self._config.batch.look_seconds)
        return replace(found, next_look=self._clock() + pause)


def awaited_of(batches: Sequence[OpenBatch]) -> AwaitedAnswers:
    """Sum up open batches."""
    looks = [each.state.next_look for each in batches if each.state.next_look is not None]
    return AwaitedAnswers(
        calls=sum(each.intent.calls for each in batches),
        batches=len(batches),
        since=min((each.intent.created for each in batches), default=None),
        next_look=min(looks, default=None),
        exported=sum(each.intent.calls for each in batches if each.intent.door == "file"),
    )


def _keys(calls: Sequence[ChatCall]) -> set[str]:
    return {call.key for call in calls}


def _whose(intent: BatchIntent) -> tuple[str, str]:
    return intent.job, intent.base_url


def _no_batches(base_url: str) -> str:
    return (
        f"{base_url} has no Batch API, expected one for mode: batch; set mode: sync, or mode: "
        "run-batch to make the calls by the run-batch of vLLM"
    )


def _no_room(spent: tuple[int, float], most: tuple[int, int], config: ChatWriterConfig) -> str:
    limits = {"budget_tokens": config.budget_tokens, "budget_usd": config.budget_usd}
    known = ", ".join(f"{name} = {value}" for name, value in limits.items() if value is not None)
    return (
        f"{spent[0]} tokens ({spent[1]:.4f} USD) are spent and the next call may take {sum(most)} "
        f"more, beyond {known}; raise the budget and run the same command again, nothing that was "
        "answered is asked again"
    )
