"""Programs that run the job of a JSON file: `python -m <module> --config job.json`.

Whoever starts one as a child process reads its exit code and its last line (`storage.exit_codes`).
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from storage.documents import validate
from storage.errors import EngineError, InputError
from storage.exit_codes import EXIT_DONE, error_line, exit_code

JobT = TypeVar("JobT", bound=BaseModel)


def run_job_file(
    kind: type[JobT],
    work: Callable[[JobT], object],
    program: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run the job of a JSON file and return the exit code.

    An error that the engine explains is one line on standard error. Of several processes that
    torchrun has started the first alone logs more than warnings.

    Args:
        kind: What the file holds.
        work: What is done with it.
        program: How the program is called, for its help.
        arguments: Instead of the process's own.
    """
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--config", type=Path, required=True, help=f"a {kind.__name__} as JSON")
    path = parser.parse_args(arguments).config
    level = logging.INFO if is_first_process() else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        work(read_job(kind, path))
    except EngineError as error:
        sys.stderr.write(f"{error_line(error)}\n")
        return exit_code(error)
    return EXIT_DONE


def is_first_process() -> bool:
    """Whether this process is the only one of its job, or the first that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


def read_job(kind: type[JobT], path: Path) -> JobT:
    """Read a job.

    Raises:
        InputError: If the file is missing, no JSON, or holds a wrong field.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); expected a {kind.__name__} as JSON"
        raise InputError(message) from error
    except ValueError as error:
        message = f"{path} is not JSON ({error}); expected a {kind.__name__}"
        raise InputError(message) from error
    return validate(kind, document, str(path))
