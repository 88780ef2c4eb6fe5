"""The breaker: stops a run in which nearly every sample is dropped for one reason."""

import threading
from collections import Counter, deque
from collections.abc import Iterable

from storage.errors import IncompleteError
from storage.records import Record, Rejected, Stage


class BreakerError(IncompleteError):
    """Nearly all of the last samples were dropped for one reason; more would be wasted."""


class Breaker:
    """Watches what becomes of the last samples that each stage of a run has decided.

    Each stage is watched by itself: the samples that an early stage drops are known long before
    those that pass all of them, so together they would look worse than they are. Threads may share
    it.

    Args:
        samples: How many of the last samples of a stage count; 0 never stops.
        share: The run stops when more than this share of them was dropped for one reason.
    """

    def __init__(self, samples: int = 0, share: float = 1.0) -> None:
        self._samples = samples
        self._most = share * samples
        self._last: dict[Stage, deque[Rejected | None]] = {}
        self._problem = ""
        self._lock = threading.Lock()

    def note(self, stage: Stage, rows: Iterable[Record]) -> None:
        """Take in what a stage has decided, in the order of the work."""
        if not self._samples:
            return
        with self._lock:
            last = self._last.setdefault(stage, deque(maxlen=self._samples))
            last.extend(row if isinstance(row, Rejected) else None for row in rows)
            if len(last) == self._samples and not self._problem:
                self._problem = self._judge(stage, [row for row in last if row is not None])

    def check(self) -> None:
        """Raise BreakerError if there is to be no more work."""
        if self._problem:
            raise BreakerError(self._problem)

    def _judge(self, stage: Stage, dropped: list[Rejected]) -> str:
        """Say what is wrong, or nothing."""
        reasons = Counter(row.reason for row in dropped)
        if not reasons or max(reasons.values()) <= self._most:
            return ""
        reason, count = reasons.most_common(1)[0]
        example = next(row for row in reversed(dropped) if row.reason is reason)
        detail = f" ({example.detail})" if example.detail else ""
        return (
            f"stopped, because {count} of the last {self._samples} samples of stage {stage} were "
            f"dropped for one reason, {reason}: {example.key} for one{detail}; expected at most "
            f"{self._most:g}. Mend the cause and run again, what is finished is kept; or let it go "
            "on with --set breaker_samples=0"
        )
