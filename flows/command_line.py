"""The whole command line: all commands, and how an error becomes one line and an exit code.

Exit codes: 0 done, 1 a fault of ours, 2 wrong input, 3 work left, 4 budget, 5 waiting;
`flows.__main__` has the others.
"""

import errno
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from cyclopts import CycloptsError

from flows.commands import (
    care,
    curation,
    data,
    inspection,
    operations,
    publishing,
    segmentation,
    training,
)
from flows.commands.app import app, errors
from flows.terminal import OneLine, printable
from storage.errors import AwaitedError, EngineError
from storage.exit_codes import EXIT_FAULT, EXIT_INPUT, EXIT_WORK_LEFT, exit_code
from storage.files import NO_SPACE

SUBJECTS = (
    data,
    care,
    curation,
    training,
    segmentation,
    inspection,
    publishing,
    operations,
)
"""The modules whose import adds the commands to the application."""

_log = logging.getLogger(__name__)

_LONGEST = 3000
"""Characters of a message; of a longer one, such as an endless name, the middle is left out."""
_INPUT = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
        errno.EXDEV,
    }
)
"""What another path or other permissions cure; to try again changes nothing."""


def run_command(arguments: Sequence[str]) -> int:
    """Run a command; an error that we can explain becomes one line on standard error.

    Args:
        arguments: The words after `magicseg`.

    Returns:
        The exit code.

    Raises:
        BrokenPipeError: Nobody reads the output any more.
        KeyboardInterrupt: The command was interrupted.
    """
    shown = logging.StreamHandler()
    shown.setFormatter(OneLine())
    # Libraries may log more into a run's file; the terminal shows what needs attention.
    shown.setLevel(logging.WARNING)
    logging.basicConfig(handlers=[shown])
    try:
        code = _call(arguments)
        sys.stdout.flush()
    except CycloptsError as error:
        command = f"{arguments[0]} " if arguments[:1] and arguments[0] in set(app) else ""
        return _refuse(f"{error} `magicseg {command}--help` says what there is", EXIT_INPUT)
    except EngineError as error:
        is_awaited = isinstance(error, AwaitedError)
        return _refuse(str(error), exit_code(error), "waiting" if is_awaited else "error")
    except BrokenPipeError:
        raise
    except OSError as error:
        _log.debug("the system refused something", exc_info=True)
        return _refuse(*explain_system(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours: told in a line, kept in a file
        return _refuse(_confess(error), EXIT_FAULT)
    return code


def _confess(error: Exception) -> str:
    """Keep the traceback of an error that we cannot explain, and say where it is."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="magicseg-fault-", suffix=".log", delete=False, encoding="utf-8"
    ) as kept:
        traceback.print_exception(error, file=kept)
    return (
        f"{type(error).__name__}: {error} - a fault of the engine and not of your input; what was "
        f"finished is kept. Report it with the traceback, which is in {kept.name}"
    )


def explain_system(error: OSError) -> tuple[str, int]:
    """Explain an error of the operating system.

    Returns:
        What it is about, why, and what to do; and the exit code.
    """
    if error.errno == errno.ENOENT and error.filename is None and not _has_folder():
        return "the current folder is gone; go to another one with 'cd'", EXIT_INPUT
    names = [str(name) for name in (error.filename2, error.filename) if name is not None]
    reason = error.strerror or str(error) or type(error).__name__
    what = ": ".join([*names[:1], reason[:1].lower() + reason[1:]])
    if error.errno in NO_SPACE:
        way_out = "free some space and run the command again; finished work is kept"
        return f"{what}; {way_out}", EXIT_WORK_LEFT
    if error.errno in _INPUT:
        return f"{what}; give another path, or make this one fit", EXIT_INPUT
    return f"{what}; run the command again, what was finished is kept", EXIT_WORK_LEFT


def _has_folder() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - the question is whether there is one
    except FileNotFoundError:
        return False
    return True


def _call(arguments: Sequence[str]) -> int:
    try:
        app(
            arguments,
            exit_on_error=False,
            print_error=False,
            help_on_error=False,
            result_action="return_value",
        )
    except SystemExit as ended:  # a command has told its outcome
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def _refuse(message: str, code: int, kind: str = "error") -> int:
    text = printable(" ".join(message.split()))
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} [...] {text[-_LONGEST // 2 :]}"
    errors.print(f"{kind}: {text}", markup=False, highlight=False, soft_wrap=True)
    return code
