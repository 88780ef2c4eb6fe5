"""Steps: the work of a run, each done once, in this process or in a child of its own.

A step finds what it would make if that is there, works in this process, or names a program that
does the same work. Whoever works holds the lock of the step's folder, so both ways exclude each
other.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from tasks.children import run_child

ResultT = TypeVar("ResultT")


class RunStep(ABC, Generic[ResultT]):
    """A piece of work that is done once."""

    kind: ClassVar[str]
    """What sort of work it is, as Prefect's user interface shows it, such as ``train``."""

    @property
    @abstractmethod
    def label(self) -> str:
        """A short description of the work, such as ``score of the student on voc21``."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where it writes; locked by whoever works."""

    @abstractmethod
    def find(self) -> ResultT | None:
        """What was made before of the same inputs, or nothing."""

    @abstractmethod
    def work(self) -> ResultT:
        """Do the work in this process.

        Raises:
            LeaseHeldError: If somebody else is at work in the folder.
        """

    @abstractmethod
    def program(self) -> list[str]:
        """Write the work down and return the command of a program that does it."""

    @abstractmethod
    def collect(self) -> ResultT:
        """What the program has made.

        Raises:
            InputError: If it is not there.
        """


@dataclass(frozen=True)
class StepOutcome(Generic[ResultT]):
    """The outcome of a step.

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
