"""Exit codes: which error ends a program with which code, and how a parent reads a child's error.

One table serves the command line and every program that runs the job of a file
(`storage.job_files`). A code stands for several kinds of error, so the last line that such a
program writes names the kind too: ``error: DataError: shard 3 is damaged``.
"""

from collections.abc import Sequence

from storage.errors import (
    AwaitedError,
    BudgetError,
    DataError,
    EngineError,
    IncompleteError,
    InputError,
    LeaseHeldError,
    TransientError,
)

EXIT_DONE = 0
EXIT_FAULT = 1
"""An error that nobody foresaw: a fault of the engine."""
EXIT_INPUT = 2
"""The caller must change something."""
EXIT_WORK_LEFT = 3
"""Something is left to do: work, damaged data, a busy folder, a service that does not answer."""
EXIT_BUDGET = 4
"""A limit on money or tokens is reached."""
EXIT_WAITING = 5
"""Only answers are awaited that come hours later; the same command looks again."""
EXIT_INTERRUPTED = 130
"""Somebody pressed Ctrl-C, or the process was asked to end."""

_CODES: dict[type[EngineError], int] = {
    InputError: EXIT_INPUT,
    BudgetError: EXIT_BUDGET,
    AwaitedError: EXIT_WAITING,
    IncompleteError: EXIT_WORK_LEFT,
    DataError: EXIT_WORK_LEFT,
    LeaseHeldError: EXIT_WORK_LEFT,
    TransientError: EXIT_WORK_LEFT,
    EngineError: EXIT_WORK_LEFT,
}
_NAMES = {kind.__name__: kind for kind in _CODES}

ERROR_START = "error: "
"""How `error_line` begins."""


def exit_code(error: EngineError) -> int:
    """The code with which an error ends a program."""
    return _CODES[_kind(error)]


def error_line(error: EngineError) -> str:
    """Say an error in one line that `read_error` turns back into it."""
    return f"{ERROR_START}{_kind(error).__name__}: {' '.join(str(error).split())}"


def read_error(code: int, lines: Sequence[str]) -> EngineError | None:
    """The error that ended a program, if it ended with one of ours.

    Args:
        code: The program's exit code.
        lines: Its output, or the lines of it that begin as `error_line` does; the last one of the
            code counts, since several processes may have written one each.

    Returns:
        An error of the same kind with the same message; nothing if no line names one of that code.
    """
    for line in reversed(lines):
        name, colon, message = line.removeprefix(ERROR_START).partition(": ")
        kind = _NAMES.get(name) if line.startswith(ERROR_START) and colon else None
        if kind is not None and _CODES[kind] == code:
            return kind(message)
    return None


def _kind(error: EngineError) -> type[EngineError]:
    """The kind in the table that an error is: its own, or the nearest above it."""
    return next(kind for kind in type(error).__mro__ if kind in _CODES)
