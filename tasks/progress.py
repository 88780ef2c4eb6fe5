"""Progress of the stages of a run, for whoever shows it, and the signal to stop.

Progress is reported, not stored: the store alone knows what is finished.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from storage.errors import EngineError
from storage.records import Stage


@dataclass(frozen=True)
class Step:
    """One step of one stage of one shard.

    Attributes:
        stage: Which stage.
        shard: Shard name.
        done: Samples of the shard that this stage has dealt with so far.
        total: Samples of the shard that reached this stage.
        cached: Whether the output was already committed, so that nothing was executed.
    """

    stage: Stage
    shard: str
    done: int
    total: int
    cached: bool = False


Listener = Callable[[Step], None]


class StoppedError(EngineError):
    """A stage ended early because its run was asked to stop; what it had finished is committed."""


class Progress:
    """Tells the listeners of one run what its stages do; threads may share it.

    A listener is called from the thread that does the work and must be quick.
    """

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call a listener at every step from now on.

        Returns:
            A function that ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def stop(self) -> None:
        """Let the stages of this run end at their next step, and commit what they have."""
        self._stopping.set()

    def wait(self, seconds: float, what: str) -> None:
        """Wait, unless the run is asked to stop.

        Args:
            seconds: How long.
            what: What is interrupted.

        Raises:
            StoppedError: The run was asked to stop.
        """
        self._stopping.wait(seconds)
        self.check(what)

    @property
    def is_stopping(self) -> bool:
        """Whether the run was asked to stop."""
        return self._stopping.is_set()

    def check(self, what: str) -> None:
        """Raise StoppedError if the run was asked to stop.

        Args:
            what: What is interrupted.
        """
        if self._stopping.is_set():
            message = f"{what} was interrupted"
            raise StoppedError(message)

    def tell(self, step: Step) -> None:
        """Tell every listener of a step."""
        for listener in tuple(self._listeners):
            listener(step)
