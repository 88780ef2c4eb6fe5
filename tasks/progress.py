"""What the stages are doing right now, for whoever wants to show it.

Progress is told, not stored: the store alone knows what is finished. A listener is called from the
thread that does the work and must be quick.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from storage.commits import Commit
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
    """A stage ended early because its process was asked to stop; it commits nothing."""


_stopping = threading.Event()
_listeners: list[Listener] = []


def listen(listener: Listener) -> Callable[[], None]:
    """Call a listener at every step from now on.

    Returns:
        A function that ends it.
    """
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def ask_to_stop(*, stop: bool = True) -> None:
    """Let the stages of this process end at their next step, or let them go on again."""
    if stop:
        _stopping.set()
    else:
        _stopping.clear()


def tell(step: Step) -> None:
    """Tell every listener of a step.

    Raises:
        StoppedError: The stages were asked to stop.
    """
    if _stopping.is_set():
        message = f"{step.stage} of {step.shard} was interrupted after {step.done} samples"
        raise StoppedError(message)
    for listener in tuple(_listeners):
        listener(step)


def tell_commit(commit: Commit, *, cached: bool) -> None:
    """Tell that a stage of a shard is done, and how many samples it dealt with."""
    count = commit.counts.requested
    tell(Step(commit.stage, commit.shard, count, count, cached))
