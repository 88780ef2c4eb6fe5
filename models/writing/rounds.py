"""A round of calls to a chat endpoint, several at a time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

from models.writing.calls import CallOutcome, ChatCall, DeclinedError
from models.writing.endpoints import ChatEndpoint
from storage.errors import InputError, TransientError

_STREAK = 3  # calls given up one after the other before the service counts as down
_LOOK_SECONDS = 0.1  # between two looks at whether a call that waits for its turn is still wanted


class CallRound:
    """Makes calls at the same time and keeps what came of each, in order."""

    def __init__(
        self, endpoint: ChatEndpoint, slots: threading.BoundedSemaphore, concurrency: int
    ) -> None:
        self._endpoint = endpoint
        self._slots = slots  # rounds of other shards take theirs from the same ones
        self._concurrency = concurrency
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._streak = 0

    def run(self, calls: Sequence[ChatCall], is_wanted: Callable[[], bool]) -> list[CallOutcome]:
        """Make the calls, as long as they are wanted.

        Args:
            calls: What to send; answers that the ledger has are taken from there.
            is_wanted: Asked again and again, in this thread.

        Returns:
            What came of each call, in order.

        Raises:
            BudgetError: Before a call that could pass the budget.
            InputError: If the service refuses requests of this kind.
            TransientError: If not one of the calls was answered.
        """
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="writer")
        try:
            made = [pool.submit(self._make, call) for call in calls]
            while wait(made, _LOOK_SECONDS).not_done:
                if not is_wanted() or any(each.done() and each.exception() for each in made):
                    self._stop.set()
            outcomes = [each.result() for each in made]
        finally:
            self._stop.set()  # ends the waiting; answers under way still reach the ledger
            pool.shutdown(cancel_futures=True)
        down = [outcome for outcome in outcomes if isinstance(outcome, TransientError)]
        if down and len(down) == len(outcomes):
            raise down[0]
        return outcomes

    def _make(self, call: ChatCall) -> CallOutcome:
        if (answer := self._endpoint.find(call.key)) is not None:
            return answer
        try:
            with self._slot():
                outcome: CallOutcome = self._endpoint.send(
                    call.key, call.body, call.about, self._stop
                )
        except (DeclinedError, TransientError) as error:
            outcome = error
        except InputError:
            self._stop.set()  # the other calls are of the same kind
            raise
        self._count_failures(outcome)
        return outcome

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Wait until one call fewer than allowed is in flight."""
        while not self._slots.acquire(timeout=_LOOK_SECONDS):
            if self._stop.is_set():
                message = "the call was given up, because others were given up too"
                raise TransientError(message)
        try:
            yield
        finally:
            self._slots.release()

    def _count_failures(self, outcome: CallOutcome) -> None:
        with self._lock:
            self._streak = self._streak + 1 if isinstance(outcome, TransientError) else 0
            if self._streak == _STREAK:
                self._stop.set()
