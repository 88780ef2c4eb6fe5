"""Steps: the work of a run, each done once, in this process or in a child of its own.

A step finds what it would make if that is there, works in this process, or names a program that
does the same work. Whoever works holds the lock of the step's folder, so both ways exclude each
other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

from tasks.children import run_child

ResultT = TypeVar("ResultT")
_ResultT_co = TypeVar("_ResultT_co", covariant=True)


@runtime_checkable
class RunStep(Protocol[_ResultT_co]):
    """A piece of work that is done once."""

    @property
    def kind(self) -> str:
        """What sort of work it is, as Prefect's user interface shows it, such as ``train``."""
        ...

    @property
    def label(self) -> str:
        """The work in words, such as ``score of the student on voc21``."""
        ...

    @property
    def folder(self) -> Path:
        """Where it writes; locked by whoever works."""
        ...

    def find(self) -> _ResultT_co | None:
        """What was made before of the same inputs, or nothing."""
        ...

    def work(self) -> _ResultT_co:
        """Do the work in this process.

        Raises:
            LeaseHeldError: If somebody else is at work in the folder.
        """
        ...

    def program(self) -> list[str]:
        """Write the work down and return the command of a program that does it."""
        ...

    def collect(self) -> _ResultT_co:
        """What the program has made.

        Raises:
            InputError: If it is not there.
        """
        ...


@dataclass(frozen=True)
class StepOutcome(Generic[ResultT]):
    """What a step came to.

    Attributes:
        result: What it made or found.
        found: Whether it was made before.
    """

    result: ResultT
    found: bool


@runtime_checkable
class Execute(Protocol):
    """A way to do steps."""

    def __call__(self, step: RunStep[ResultT]) -> StepOutcome[ResultT]:
        """Do a step, or find it done."""
        ...


def work_in_child(step: RunStep[ResultT]) -> ResultT:
    """Do a step in a process of its own, whose output goes to `<kind>.log` in the step's folder.

    Raises:
        ChildFailedError: If the process ended with an error that it did not explain.
        EngineError: If it explained one: of the same kind, with the same message.
    """
    run_child(step.program(), step.folder, f"{step.kind}.log")
    return step.collect()
