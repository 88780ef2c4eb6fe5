"""The entry point: runs a command line in this process and leaves with its exit code.

Commands are imported inside, so that an interrupt prints a line even while Python loads them.
"""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from storage.exit_codes import EXIT_INTERRUPTED

EXIT_READER_GONE = 128 + signal.SIGPIPE
"""What a shell reports for a program whose output is no longer read."""

_AGAIN_SECONDS = 0.05
_PATIENCE_SECONDS = 10.0
"""Longer than the libraries of one step take to be imported."""

_ENVIRONMENT = {
    # What these libraries say about themselves is no news to our users.
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Threads that wait by spinning take the cores from their neighbours: on a shared CPU a step of
    # training took 1.6 s of CPU time with spinning and 0.45 s without.
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Read when the libraries are imported."""


def main() -> None:
    """Run the command line of this process; always ends in SystemExit."""
    interruption = Interruption()
    signal.signal(signal.SIGTERM, interruption)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, interruption)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _prepare_output()
    try:
        code = _run(sys.argv[1:])
    except BrokenPipeError:
        code = EXIT_READER_GONE
    _finish_output()
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    try:
        from flows.command_line import run_command

        return run_command(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was finished is kept, run the command again to go on\n")
        return EXIT_INTERRUPTED


class Interruption:
    """Handles a signal by KeyboardInterrupt; some seconds later, if threads import side by side.

    In the midst of an import it can get lost, because libraries catch everything there, or leave
    the lock of all imports held, and a thread that imports beside this one would never end. An
    import that hangs is interrupted after all.
    """

    def __init__(self) -> None:
        self._latest: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, or have the signal sent again in a moment."""
        now = time.monotonic()
        if self._latest is None and threading.active_count() > 1:
            self._latest = now + _PATIENCE_SECONDS
        if self._latest is not None and now < self._latest and _is_importing(frame):
            again = threading.Timer(_AGAIN_SECONDS, _send_to_main_thread, [number])
            again.daemon = True
            again.start()
            return
        self._latest = None
        raise KeyboardInterrupt


def _send_to_main_thread(number: int) -> None:
    # Sent to a thread of its own, the signal would not wake a main thread that waits.
    main_thread = threading.main_thread().ident
    if main_thread is not None:
        signal.pthread_kill(main_thread, number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _prepare_output() -> None:
    """Make sure that no text and no missing stream can end a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as in `magicseg status x >&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _finish_output() -> None:
    """Write out what is left; what cannot be written was reported, or has no reader."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # Python would try again when it ends, and say so.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
