"""Measuring in a process of its own: what scoring jobs of every kind share."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel

from evaluation.scoring.measured import Measured, read_measured
from evaluation.scoring.results import Subject
from storage.errors import DataError, EngineError, InputError
from tasks.children import run_child

_log = logging.getLogger(__name__)

JobT = TypeVar("JobT", bound=BaseModel)


class ScoringJob(Protocol):
    """A subject on a benchmark, as a document that a child process can read."""

    @property
    def folder(self) -> Path:
        """Where the scores go."""
        ...

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """The job as JSON."""
        ...


def find_scores(job: ScoringJob, subject: Subject) -> Measured | None:
    """Scores of the same subject under the same settings that were measured before.

    A file that cannot be read is no reason to stop: its scores are measured again.
    """
    for path in sorted(job.folder.glob("scores-*.json")):
        try:
            scores = read_measured(path)
        except DataError as error:
            _log.warning("%s", error)
            continue
        if scores.subject == subject:
            return scores
    return None


def measure_in_child(
    module: str, job: ScoringJob, subject: Subject, document: str
) -> Measured | State[Measured]:
    """Find a job's scores, or have them measured by `python -m module --config document`.

    Args:
        module: A module whose `main` is `run_document`.
        job: What is scored.
        subject: What the scores will be of.
        document: Name of the job's file in its folder.

    Returns:
        The scores; in a state named ``Cached`` if they were measured before.

    Raises:
        ChildFailedError: If scoring ended with an error.
        InputError: If it refused its input, or wrote no scores.
    """
    scores = find_scores(job, subject)
    if scores is not None:
        return Completed(name="Cached", message="measured before", data=scores)
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / document
    path.write_text(job.model_dump_json(indent=1), encoding="utf-8")
    run_child([sys.executable, "-m", module, "--config", str(path)], job.folder, "score.log")
    scores = find_scores(job, subject)
    if scores is None:
        message = (
            f"scoring wrote no scores of {subject.name} into {job.folder}, expected a file "
            "scores-*.json: did the run change meanwhile? score again"
        )
        raise InputError(message)
    return scores


def run_document(
    kind: type[JobT],
    run: Callable[[JobT], object],
    program: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run the job of a JSON file; returns the exit code: 0 done, 2 for anything to be changed."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--config", type=Path, required=True, help=f"a {kind.__name__} as JSON")
    path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        run(kind.model_validate_json(path.read_bytes()))
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0
