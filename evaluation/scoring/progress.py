"""Progress of a pass over a benchmark, in the log."""

import logging
import time

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class ScoringProgress:
    """One log line every few seconds, with the time left.

    Args:
        what: What is going on.
        total: Steps until it is over.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._started = self._last = time.monotonic()

    def step(self, done: int) -> None:
        """Note how many steps are done."""
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and done < self._total:
            return
        self._last = now
        left = (now - self._started) / done * (self._total - done)
        _log.info("%s: %d of %d images, %.0f s left", self._what, done, self._total, left)
