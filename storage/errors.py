"""The errors that the engine raises on purpose.

* `EngineError`: everything below; the command line prints its text and no traceback.
    * `InputError`: the caller must change something (exit code 2).
    * `TransientError`: the same call may work later; tasks retry it.
        * `LeaseHeldError`: somebody else is making the same output right now.
    * `BudgetError`: a limit on money or tokens stops the run before it is passed (exit code 4).
    * `AwaitedError`: answers were asked for that come hours later (exit code 5).
    * `IncompleteError`: a run ended with work left (exit code 3).
    * `DataError`: bytes on disk and the record about them disagree.

A message says what was found, what was expected, and the way out.
"""

from datetime import datetime

__all__ = [
    "AwaitedError",
    "BudgetError",
    "DataError",
    "EngineError",
    "IncompleteError",
    "InputError",
    "LeaseHeldError",
    "TransientError",
]


class EngineError(Exception):
    """An error whose message is written for the user."""


class InputError(EngineError):
    """The caller must change something; trying again changes nothing."""


class TransientError(EngineError):
    """The same call may succeed later.

    Args:
        message: What happened.
        retry_after: Seconds that the other side asked to wait, if it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LeaseHeldError(TransientError):
    """Another worker holds the lease on this output."""


class BudgetError(EngineError):
    """A spending limit would be passed; what was finished stays committed."""


class AwaitedError(EngineError):
    """Nothing is left to do but to wait for answers that a service gives hours later.

    Args:
        message: What is waited for.
        next_look: When to look again; None if nobody can say.
    """

    def __init__(self, message: str, *, next_look: datetime | None = None) -> None:
        super().__init__(message)
        self.next_look = next_look


class IncompleteError(EngineError):
    """A run ended with work left; what was finished stays committed and a rerun goes on."""


class DataError(EngineError):
    """Bytes and the record about them disagree."""
