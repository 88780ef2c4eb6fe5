"""The pipeline of a piece: while a network computes on one step, others are read and written.

A device is held around a network's call alone. What lies around it (decoding and encoding, checks
of pixels, masks, rules) is done in threads of its own, ahead of the network and behind it, so a
GPU does not wait for it, and another shard may compute in between.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from typing import TypeVar

from tasks.progress import Progress, StoppedError

_ItemT = TypeVar("_ItemT")
_ResultT = TypeVar("_ResultT")

HoldDevice = Callable[[], AbstractContextManager[None]]
"""Waits for the device, and keeps it until the block ends."""

IN_FLIGHT = 3
"""Steps at a time: one that computes, one that is ready to, and one that is written."""


class Pipeline:
    """Does a piece step by step, some steps at a time.

    Args:
        progress: Says when the run is to stop.
        what: What is interrupted then.
        hold: Waits for the device that the piece needs; nothing if it needs none.
        tell: Told after each step how many items are done.

    Attributes:
        held_seconds: How long the device was held.
    """

    def __init__(
        self,
        progress: Progress,
        what: str,
        hold: HoldDevice | None = None,
        tell: Callable[[int], None] = lambda _done: None,
    ) -> None:
        self.held_seconds = 0.0
        self._progress = progress
        self._what = what
        self._hold = hold
        self._tell = tell
        self._failed = threading.Event()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the device while a network computes.

        Raises:
            StoppedError: The run was asked to stop, or another step has failed.
        """
        if self._hold is None:
            yield
            return
        with self._hold():
            self._check()  # the wait may have been long
            began = time.monotonic()
            try:
                yield
            finally:
                self.held_seconds += time.monotonic() - began  # whoever holds it is alone

    def run(
        self, items: Iterable[_ItemT], size: int, do: Callable[[list[_ItemT]], _ResultT]
    ) -> list[_ResultT]:
        """Do something with items, some at a time.

        Steps begin in order. When the run is asked to stop, none begins any more; those that have
        begun are finished, but for those that still wait for the device.

        Args:
            items: What to do it with; read by the calling thread alone.
            size: Items of a step; a whole number of a network's batches is best.
            do: Does it, in a thread of its own; takes its turn on the device by `turn`.

        Returns:
            What came out of each step that was finished, in the order of the items.

        Raises:
            Exception: The first that a step or the items raised; no other step begins then.
        """
        steps = _in_steps(items, size)
        running: deque[tuple[int, Future[_ResultT]]] = deque()
        results: list[_ResultT] = []
        done = 0
        with ThreadPoolExecutor(IN_FLIGHT, "step") as threads:
            try:
                self._begin(steps, do, threads, running)
                while running:
                    count, future = running.popleft()
                    with suppress(StoppedError):
                        results.append(future.result())
                        done += count
                        self._tell(done)
                    self._begin(steps, do, threads, running)
            except BaseException:
                self._failed.set()
                raise
        return results

    def _begin(
        self,
        steps: Iterator[list[_ItemT]],
        do: Callable[[list[_ItemT]], _ResultT],
        threads: ThreadPoolExecutor,
        running: deque[tuple[int, Future[_ResultT]]],
    ) -> None:
        while len(running) < IN_FLIGHT and not self._progress.is_stopping:
            step = next(steps, None)
            if step is None:
                return
            running.append((len(step), threads.submit(do, step)))

    def _check(self) -> None:
        self._progress.check(self._what)
        if self._failed.is_set():
            message = f"{self._what} has failed in another step"
            raise StoppedError(message)


def _in_steps(items: Iterable[_ItemT], size: int) -> Iterator[list[_ItemT]]:
    iterator = iter(items)
    while step := list(islice(iterator, size)):
        yield step
