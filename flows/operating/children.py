"""Children: processes that live as long as their parent does, and are started again if they die."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_STOP_SECONDS = 45.0
"""A run that is stopped commits what it has finished before it ends."""

_CALM_SECONDS = 60.0
_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0

_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A process of our own.

    Attributes:
        name: What it is called.
        command: Its command line.
        environment: Its variables.
        log: File of its output.
        folder: Where it works.
        restarts: How often it was started again.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    folder: Path
    restarts: int = 0
    _process: "subprocess.Popen[bytes] | None" = None
    _started: float = 0.0
    _wait: float = _FIRST_WAIT
    _due: float = field(default=0.0)

    @property
    def pid(self) -> int | None:
        """Of the process, if it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start it, in a session of its own: a Ctrl-C at the terminal is for its parent alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._started = time.monotonic()

    def look_after(self) -> str:
        """Start it again if it has ended, later and later if it ends at once.

        Returns:
            What happened, for people; empty if nothing did.
        """
        if self.pid is not None:
            if time.monotonic() - self._started > _CALM_SECONDS:
                self._wait = _FIRST_WAIT
            return ""
        if not self._due:
            self._due = time.monotonic() + self._wait
            self._wait = min(_LONGEST_WAIT, 2 * self._wait)
            code = self._process.returncode if self._process else None
            return f"{self.name} ended with code {code}; it is started again, see {self.log}"
        if time.monotonic() >= self._due:
            self._due = 0.0
            self.restarts += 1
            self.start()
        return ""

    def ask_to_stop(self) -> None:
        """Ask it to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Wait until it has ended; what does not end in time is killed with its children."""
        self.ask_to_stop()
        if self._process is None:
            return
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent dies; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
