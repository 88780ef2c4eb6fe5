"""The whole command line: all commands, and how an error becomes one line and an exit code.

Exit codes: 0 done, 2 wrong input, 3 work left, 4 budget; see `flows.__main__` for the others.
"""

import errno
import logging
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from flows.commands import care, data, inspection, training
from flows.commands.app import app, errors
from storage.errors import EngineError
from storage.exit_codes import EXIT_INPUT, EXIT_WORK_LEFT, exit_code

SUBJECTS = (data, care, training, inspection)
"""The modules whose import adds the commands to the application."""

_log = logging.getLogger(__name__)

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
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
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    # Libraries may log more into a run's file; the terminal shows what needs attention.
    logging.getLogger().handlers[0].setLevel(logging.WARNING)
    try:
        code = _call(arguments)
        sys.stdout.flush()
    except CycloptsError as error:
        command = f"{arguments[0]} " if arguments[:1] and arguments[0] in set(app) else ""
        return _refuse(f"{error} `magicseg {command}--help` says what there is", EXIT_INPUT)
    except EngineError as error:
        return _refuse(str(error), exit_code(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        _log.debug("the system refused something", exc_info=True)
        return _refuse(*explain_system(error))
    return code


def explain_system(error: OSError) -> tuple[str, int]:
    """Explain an error of the operating system.

    Returns:
        What it is about, why, and what to do; and the exit code.
    """
    names = [str(name) for name in (error.filename2, error.filename) if name is not None]
    reason = error.strerror or str(error) or type(error).__name__
    what = ": ".join([*names[:1], reason[:1].lower() + reason[1:]])
    if error.errno in _NO_SPACE:
        way_out = "free some space and run the command again; finished work is kept"
        return f"{what}; {way_out}", EXIT_WORK_LEFT
    if error.errno in _INPUT:
        return f"{what}; give another path, or make this one fit", EXIT_INPUT
    return f"{what}; run the command again, what was finished is kept", EXIT_WORK_LEFT


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


def _refuse(message: str, code: int) -> int:
    text = " ".join(message.split())
    errors.print(f"error: {text}", markup=False, highlight=False, soft_wrap=True)
    return code
