"""A round of calls to a chat endpoint, several at a time."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from models.writing.calls import CallOutcome, ChatCall, DeclinedError, RefusedError
from models.writing.endpoints import ChatEndpoint
from storage.errors import InputError, TransientError

_STREAK = 3  # calls given up one after the other before the service counts as down
_LOOK_SECONDS = 0.1  # between two looks at whether a call that waits for its turn is still wanted

_ErrorT = TypeVar("_ErrorT", TransientError, RefusedError)


class CallRound:
    """Makes calls at the same time and keeps what came of each, in order."""

    def __init__(self, endpoint: ChatEndpoint, concurrency: int) -> None:
        self._endpoint = endpoint
        self._concurrency = concurrency
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._streak = 0
        self._down: CallOutcome | None = None

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
            TransientError: If the service is down. What was answered before is in the ledger, so a
                repetition of the round goes on where this one ended.
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
        if isinstance(self._down, Exception):
            raise self._down
        if failed := _of_all(outcomes, TransientError):
            raise failed
        if not self._endpoint.is_proven and (refused := _of_all(outcomes, RefusedError)):
            raise refused
        return outcomes

    def _make(self, call: ChatCall) -> CallOutcome:
        if (answer := self._endpoint.find(call)) is not None:
            return answer
        try:
            outcome: CallOutcome = self._endpoint.send(call, self._stop)
        except (DeclinedError, RefusedError, TransientError) as error:
            outcome = error
        except InputError:
            self._stop.set()  # the other calls are of the same kind
            raise
        self._count_failures(outcome)
        return outcome

    def _count_failures(self, outcome: CallOutcome) -> None:
        """Notice that the service is down, or takes no request of this kind."""
        refused = isinstance(outcome, RefusedError) and not self._endpoint.is_proven
        with self._lock:
            if self._stop.is_set():
                return  # given up with the others
            failed = refused or isinstance(outcome, TransientError)
            self._streak = self._streak + 1 if failed else 0
            if self._streak == _STREAK:
                self._down = outcome
                self._stop.set()


def _of_all(outcomes: Sequence[CallOutcome], kind: type[_ErrorT]) -> _ErrorT | None:
    """The first outcome, if all are errors of one kind."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, kind)]
    return errors[0] if errors and len(errors) == len(outcomes) else None
