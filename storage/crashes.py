"""Crashes on demand: places where a test kills the process to see what a crash leaves."""

import os
import signal
from fnmatch import fnmatchcase

_VARIABLE = "MAGICSEG_CRASH_AT"


def crash_point(step: str) -> None:
    """Kill this process here if the environment asks for it.

    Args:
        step: ``temp:<path>`` when the bytes are safe but nameless, ``named:<path>`` when they
            have their name, ``moved:<path>`` and ``deleted:<path>`` when that has happened;
            the variable ``MAGICSEG_CRASH_AT`` holds a shell pattern for it.
    """
    if fnmatchcase(step, os.environ.get(_VARIABLE, "")):
        os.kill(os.getpid(), signal.SIGKILL)
