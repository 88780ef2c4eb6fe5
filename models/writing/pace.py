"""How many calls are in flight: fewer when a service says that it is busy, more when it answers."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from models.writing.waits import exhausted_wait, remaining_requests
from storage.errors import TransientError

_LOOK_SECONDS = 0.1  # between two looks at whether a call that waits for its turn is still wanted
_DECREASE = 0.7
_SHORTEST_PERIOD = 1.0  # seconds in which several calls that are told to wait count as one sign


class CallPace:
    """Adapts the calls in flight to what a service takes; threads may share it.

    Additive increase, multiplicative decrease (Chiu and Jain 1989): each answer raises the limit by
    one call for each round of calls, each period with a "not now" lowers it by a part.

    Args:
        most: Most calls in flight.
        longest: Longest pause in seconds that a service's headers may ask for.
    """

    def __init__(self, most: int, longest: float) -> None:
        self._most = most
        self._longest = longest
        self._limit = float(most)
        self._in_flight = 0
        self._quiet_until = 0.0
        self._lowered = float("-inf")
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return max(int(self._limit), 1)

    @contextmanager
    def turn(self, stop: threading.Event) -> Iterator[None]:
        """Wait until another call may be in flight, and the service wants to be asked.

        Args:
            stop: Set by another thread to end the waiting.

        Raises:
            TransientError: The waiting was ended.
        """
        with self._changed:
            while not stop.is_set() and not self._is_free():
                self._changed.wait(_LOOK_SECONDS)
            if stop.is_set():
                message = "the call was given up, because others were given up too"
                raise TransientError(message)
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify()

    def _is_free(self) -> bool:
        return self._in_flight < self.limit and time.monotonic() >= self._quiet_until

    def answered(self, headers: Mapping[str, str]) -> None:
        """Take in that the service answered, and what its headers say of the next calls."""
        wait, left = exhausted_wait(headers), remaining_requests(headers)
        with self._changed:
            self._limit = min(self._limit + 1 / self._limit, float(self._most))
            if left is not None:
                self._limit = min(self._limit, float(max(left, 1)))
            if wait is not None:
                self._be_quiet(min(wait, self._longest))

    def refused(self, wait: float | None) -> None:
        """Take in that the service is busy.

        Args:
            wait: Seconds that it wants to be left alone by every call, if it says so.
        """
        with self._changed:
            now = time.monotonic()
            if now - self._lowered >= _SHORTEST_PERIOD:
                self._limit = max(self._limit * _DECREASE, 1.0)
                self._lowered = now
            if wait is not None:
                self._be_quiet(wait)

    def _be_quiet(self, seconds: float) -> None:
        self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)
