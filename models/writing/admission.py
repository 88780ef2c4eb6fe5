"""What lets a call pass: a free place among all workers' calls, and room in the budget."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from models.writing.chat_config import EndpointConfig
from storage.errors import BudgetError, TransientError
from storage.ledger import Ledger
from storage.open_calls import OpenCall

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # between two looks at other workers' calls
_SLACK_SECONDS = 30.0  # for a call that takes a little longer than its timeout


@dataclass
class Sending:
    """A call that may be sent.

    Attributes:
        token: Its answer names it in the ledger.
        is_lost: Set by the sender: it was sent, and nobody knows whether it was paid.
    """

    token: str
    is_lost: bool = False


class Admission:
    """Lets calls pass, one after the other.

    A call is filed where every worker of the store sees it, and only then all that are filed are
    counted. So two workers that count at the same time both see too many, and both step back: the
    limits hold over all of them, whatever becomes of a worker.

    Args:
        config: The limits.
        ledger: What was spent, and the calls under way.
    """

    def __init__(self, config: EndpointConfig, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._lock = threading.Lock()
        self._has_budget = config.budget_usd is not None or config.budget_tokens is not None

    @contextmanager
    def admitted(self, key: str, most: tuple[int, int], stop: threading.Event) -> Iterator[Sending]:
        """Wait until a call may be sent; it is settled at the end of the block.

        Args:
            key: Digest of the request.
            most: Upper bounds of the tokens read and written.
            stop: Set by another thread to end the waiting.

        Raises:
            BudgetError: It could pass the budget, also when everything under way has ended.
            TransientError: The waiting was ended.
        """
        sending = Sending(self._filed(key, most, stop).token)
        try:
            yield sending
        except BaseException:
            if sending.is_lost:
                self._ledger.calls.lose(sending.token)
            else:
                self._ledger.calls.settle(sending.token)
            raise
        self._ledger.calls.settle(sending.token)

    def _filed(self, key: str, most: tuple[int, int], stop: threading.Event) -> OpenCall:
        config, calls, pause = self._config, self._ledger.calls, _SHORTEST_PAUSE
        while True:
            with self._lock:
                if calls.in_flight() < config.concurrency:
                    call = calls.file(key, most, config.prices, config.timeout + _SLACK_SECONDS)
                    if self._fits(call):
                        return call
            if stop.wait(pause * secrets.SystemRandom().uniform(0.5, 1.5)):
                message = "the call was given up, because others were given up too"
                raise TransientError(message)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _fits(self, call: OpenCall) -> bool:
        """Whether a call that is filed fits beside all others; taken away again if not."""
        fits = False
        try:
            free = self._ledger.calls.in_flight() <= self._config.concurrency
            fits = free and (not self._has_budget or self._is_within_budget(call))
        finally:
            if not fits:
                self._ledger.calls.settle(call.token)
        return fits

    def _is_within_budget(self, call: OpenCall) -> bool:
        """Whether the worst case fits.

        Raises:
            BudgetError: It does not, whatever becomes of the calls that somebody waits for.
        """
        pending = [each for each in self._ledger.pending() if each.token != call.token]
        gone = [each for each in pending if not each.is_live]
        if excess := self._excess([*gone, call], unsettled=len(gone)):
            raise BudgetError(excess)
        return not self._excess([*pending, call], unsettled=len(gone))

    def _excess(self, calls: list[OpenCall], *, unsettled: int) -> str:
        """Why these calls do not fit together, or an empty text."""
        config = self._config
        tokens, usd = self._ledger.at_worst([], config.prices)
        all_tokens, all_usd = self._ledger.at_worst(calls, config.prices)
        if config.budget_tokens is not None and all_tokens > config.budget_tokens:
            limit = f"budget_tokens = {config.budget_tokens}"
            return _beyond(f"{tokens} tokens", f"{all_tokens - tokens}", limit, unsettled)
        if config.budget_usd is not None and all_usd > config.budget_usd:
            limit = f"budget_usd = {config.budget_usd}"
            return _beyond(f"{usd:.4f} USD", f"{all_usd - usd:.4f}", limit, unsettled)
        return ""


def _beyond(spent: str, worst: str, limit: str, unsettled: int) -> str:
    if unsettled:
        spent = f"{spent} (and {unsettled} calls without an answer may have been paid)"
    return (
        f"{spent} are spent and the next call may take {worst} more, beyond {limit}; raise the "
        "budget and run the same command again, nothing that was answered is asked again"
    )
