"""Processes that a test starts: none outlives it, and none of their pipes."""

import subprocess
from collections.abc import Iterable
from typing import Any

__all__ = ["end_processes"]


def end_processes(processes: Iterable[subprocess.Popen[Any]]) -> None:
    """Kill what still runs and close all pipes, so that nobody warns of them in another test."""
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
