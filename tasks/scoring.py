"""Scoring: the step that scores a subject on a benchmark.

`python -m tasks.scoring --config job.json` does it in a process of its own.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.known import WantedScores, find_scores
from evaluation.scoring.measured import Measured
from storage.errors import InputError
from storage.identity import digest
from storage.job_files import run_job_file
from storage.locks import hold_folder
from storage.paths import local_path
from tasks.steps import RunStep
from tasks.subjects import AnyBenchmark, AnySubject
from tasks.training import write_document

SCORES_FOLDER = "scores"


class ScoreJob(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is scored, on what, and how."""

    subject: AnySubject
    """What is scored."""
    out: str
    """Folder of a run; the scores go to `scores` below it."""
    benchmark: BenchmarkConfig
    """Images and truth."""
    scoring: ScoringConfig
    """How it is scored."""
    device: str = "auto"
    """Where it runs."""
    by_image: bool = False
    """Whether scores of an older version, which know nothing of single images, are made again."""

    @property
    def counted(self) -> dict[str, object]:
        """The settings that make a difference to this subject."""
        if self.subject.kind != "closed-set":
            return self.scoring.identity()
        split = {} if self.scoring.zero_shot is None else {"zero_shot": self.scoring.zero_shot}
        return {
            "average": self.scoring.average,
            "examples": self.scoring.num_examples,
            **split,
        }


class Scoring(RunStep[Measured]):
    """The step that scores a subject on a benchmark.

    Args:
        job: What is scored, on what, and how.
    """

    kind = "score"

    def __init__(self, job: ScoreJob) -> None:
        self.job = job
        self._folder: Path | None = None
        self._benchmark: AnyBenchmark | None = None

    @property
    def label(self) -> str:
        """A short description of the work."""
        return f"score of the {self.job.subject.name} on {self.job.benchmark.name}"

    @property
    def folder(self) -> Path:
        """A folder for each benchmark and way of scoring, wherever the benchmark lies.

        Raises:
            DataError: If files of the benchmark are damaged.
            InputError: If some are missing.
        """
        if self._folder is None:
            self._folder = self._folder_of(self._opened())
        return self._folder

    def find(self) -> Measured | None:
        """Scores of the same subject under the same protocol on the same images.

        Raises:
            DataError: If files of the benchmark or the subject are damaged.
            InputError: If some are missing.
        """
        benchmark = self._opened()
        self._folder = self._folder_of(benchmark)
        scores = self._find(benchmark)
        # Large annotations take seconds to read: whoever works next needs them again.
        self._benchmark = benchmark if scores is None else None
        return scores

    def work(self) -> Measured:
        """Score in this process; take what another process has measured meanwhile.

        Raises:
            DataError: If files of the benchmark or the subject are damaged.
            InputError: If some are missing.
            LeaseHeldError: If somebody else is at work in the folder.
        """
        job, benchmark = self.job, self._benchmark or self._opened()
        self._benchmark = None
        folder = self._folder = self._folder_of(benchmark)
        with hold_folder(folder):
            known = self._find(benchmark)
            if known is not None:
                return known
            return job.subject.measure(benchmark, job.scoring, out=folder, device=job.device)

    def program(self) -> list[str]:
        """`python -m tasks.scoring`."""
        self._benchmark = None  # the program reads its own
        document = write_document(self.job.model_dump_json(indent=1), self.folder, self.kind)
        return [sys.executable, "-m", "tasks.scoring", "--config", str(document)]

    def collect(self) -> Measured:
        """The scores that the program has written.

        Raises:
            InputError: If there are none.
        """
        scores = self.find()
        if scores is None:
            message = (
                f"scoring wrote no scores of the {self.job.subject.name} into {self.folder}, "
                "expected a file scores-*.json: did the run change meanwhile? score again"
            )
            raise InputError(message)
        return scores

    def _opened(self) -> AnyBenchmark:
        benchmark = open_benchmark(self.job.benchmark)
        benchmark.check()
        return benchmark

    def _folder_of(self, benchmark: AnyBenchmark) -> Path:
        job = self.job
        identity = [job.benchmark.identity(), benchmark.contents(), job.counted]
        return self._scores / digest(identity)[:8]

    def _find(self, benchmark: AnyBenchmark) -> Measured | None:
        job = self.job
        wanted = WantedScores.of(
            job.subject.describe(),
            job.subject.protocol(benchmark, job.scoring),
            benchmark,
            job.scoring,
            _old_folders(job),
        )
        wanted = replace(wanted, by_image=job.by_image)
        return find_scores(self._scores, wanted, benchmark)

    @property
    def _scores(self) -> Path:
        return local_path(self.job.out) / SCORES_FOLDER


def _old_folders(job: ScoreJob) -> frozenset[str]:
    """Names that folders had when the benchmark's place was a part of them, for its spellings."""
    root = job.benchmark.root
    spellings = {root, root.absolute(), root.resolve()}
    if root.absolute().is_relative_to(Path.cwd()):
        spellings.add(root.absolute().relative_to(Path.cwd()))
    named = (job.benchmark.model_copy(update={"root": spelling}) for spelling in spellings)
    return frozenset(digest([benchmark, job.counted])[:8] for benchmark in named)


def main(arguments: Sequence[str] | None = None) -> int:
    """Score as a JSON file says; returns the exit code."""
    return run_job_file(ScoreJob, _score, "python -m tasks.scoring", arguments)


def _score(job: ScoreJob) -> None:
    Scoring(job).work()


if __name__ == "__main__":
    sys.exit(main())
