"""Child processes, in which training and evaluation keep their memory and crashes to themselves."""

import logging
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from storage.errors import EngineError
from storage.exit_codes import ERROR_START, read_error

_log = logging.getLogger(__name__)

_REMEMBERED_ERRORS = 50


class ChildFailedError(EngineError):
    """A child process ended with an error of its own."""


def run_child(command: Sequence[str], folder: Path, log_name: str) -> None:
    """Run a command to its end; its output goes to a file and, line by line, to our log.

    The file gets the bytes as they come. Whoever works in the folder locks it (`storage.locks`):
    the child does, so that one that outlives a killed parent is noticed.

    Args:
        command: Program and arguments.
        folder: Where it works; made if missing.
        log_name: Name of the file in the folder.

    Raises:
        EngineError: If it ended with an error that it explained: the same kind and message.
        ChildFailedError: If it ended with another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / log_name
    text = ""
    errors: deque[str] = deque(maxlen=_REMEMBERED_ERRORS)
    with path.open("ab") as log:
        with subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        ) as child:
            try:
                for line in child.stdout or ():
                    log.write(line)
                    log.flush()
                    text = line.decode(errors="replace").rstrip()
                    if text.startswith(ERROR_START):
                        errors.append(text)
                    _log.info("%s", text)
            except BaseException:
                child.terminate()
                raise
        code = child.returncode
    if code:
        message = (
            f"the child process ended with code {code} ({text or 'no output'}); its whole output "
            f"is in {path}"
        )
        raise read_error(code, errors) or ChildFailedError(message)
