"""Child processes, in which training and evaluation keep their memory and crashes to themselves."""

import fcntl
import logging
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from storage.errors import EngineError, InputError, LeaseHeldError

_log = logging.getLogger(__name__)

_INPUT_EXIT = 2
_REMEMBERED_LINES = 20


class ChildFailedError(EngineError):
    """A child process ended with an error of its own."""


def run_child(command: Sequence[str], folder: Path, log_name: str) -> None:
    """Run a command to its end; its output goes to a file and, line by line, to our log.

    The folder is locked by the kernel for as long as this process or the child lives, so a child
    that outlives a killed parent is noticed and no second one works in the same folder.

    Args:
        command: Program and arguments.
        folder: Where it works; made if missing.
        log_name: Name of the file in the folder.

    Raises:
        ChildFailedError: If it ended with an error.
        InputError: If it refused its input (exit code 2).
        LeaseHeldError: If another child is at work in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / log_name
    last: deque[str] = deque(maxlen=_REMEMBERED_LINES)
    with _locked(folder) as lock, path.open("a", encoding="utf-8") as log:
        child = subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            pass_fds=[lock],
        )
        try:
            for line in child.stdout or ():
                log.write(line)
                log.flush()
                last.append(line.rstrip())
                _log.info("%s", line.rstrip())
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if code:
        raise _failure(code, list(last), path)


def _failure(code: int, last: list[str], path: Path) -> EngineError:
    errors = [line.removeprefix("error: ") for line in last if line.startswith("error: ")]
    if code == _INPUT_EXIT and errors:
        return InputError(errors[-1])
    reason = errors[-1] if errors else (last[-1] if last else "no output")
    message = f"the child process ended with code {code} ({reason}); its whole output is in {path}"
    return ChildFailedError(message)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another process is at work in {folder}; wait for it, or choose another one"
            raise LeaseHeldError(message) from error
        yield file.fileno()
