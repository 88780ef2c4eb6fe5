"""The errors that the engine raises on purpose.

* `EngineError`: everything below; the command line prints its text and no traceback.
    * `InputError`: the caller must change something (exit code 2).
    * `TransientError`: the same call may work later; tasks retry it.
        * `LeaseHeldError`: somebody else is making the same output right now.
    * `BudgetError`: a limit on money or tokens stops the run before it is passed (exit code 4).
    * `IncompleteError`: a run ended with work left (exit code 3).
    * `DataError`: bytes on disk and the record about them disagree.

A message says what was found, what was expected, and the way out.
"""

__all__ = [
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


class IncompleteError(EngineError):
    """A run ended with work left; what was finished stays committed and a rerun goes on."""


class DataError(EngineError):
    """Bytes and the record about them disagree."""
