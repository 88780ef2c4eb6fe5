"""The machine: what one run owns of it - devices, models, progress, and its stop.

Nothing is process-wide: two runs in one process neither stop nor count each other, and one that was
stopped leaves nothing behind for the next. Only GPUs are shared, by locks that the kernel keeps.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tasks.progress import Progress
from tasks.resident import ResidentModels
from tasks.turns import Turns

_PACKED_AT_ONCE = 2
"""Tars that are packed at a time: each is in memory until it is written."""

_LOOK_SECONDS = 0.5


class Machine:
    """The owner of the machine for one run.

    Args:
        models: Models of an earlier run to go on with; they stay when this run ends. Without them
            the run builds its own, and lets go of them at its end.
        turns: How devices are shared; by default GPUs are locked by their UUID.
        service_limit: Prefect concurrency limit that the use of a paid service must fit into, over
            all workers.

    Attributes:
        progress: What the stages do, and the run's stop.
        models: The resident models.
        turns: Turns on devices.
        service_limit: As given.
    """

    def __init__(
        self,
        models: ResidentModels | None = None,
        turns: Turns | None = None,
        service_limit: str | None = None,
    ) -> None:
        self.progress = Progress()
        self.models = models or ResidentModels()
        self.turns = turns or Turns(lambda: self.progress.check("the wait for a device"))
        self.service_limit = service_limit
        self._packers = threading.BoundedSemaphore(_PACKED_AT_ONCE)
        self._owns_models = models is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @contextmanager
    def packing(self) -> Iterator[None]:
        """Wait until there is memory for one more tar.

        Raises:
            StoppedError: The run was asked to stop.
        """
        while not self._packers.acquire(timeout=_LOOK_SECONDS):
            self.progress.check("the wait for room to pack a shard")
        try:
            yield
        finally:
            self._packers.release()

    def close(self) -> None:
        """Stop what still works, and let go of the models that this run has built."""
        self.progress.stop()
        if self._owns_models:
            self.models.release()
