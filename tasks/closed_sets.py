"""Closed sets: the tasks that train an ordinary segmenter on a dataset and score it.

`python -m tasks.closed_sets --config job.json` scores in a process of its own.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from pydantic import BaseModel

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.open_images import OpenImages
from evaluation.scoring.config import ScoringConfig, ViewConfig
from evaluation.scoring.on_closed_sets import ClosedSetPredictor, find_positions, score_closed_set
from evaluation.scoring.results import Scores, Subject
from models.devices import pick_device
from storage.errors import InputError
from storage.exports.closed_sets import ClosedSet
from storage.exports.folders import ExportedSet, export_shards
from storage.identity import digest
from tasks.children import run_child
from tasks.measuring import measure_in_child, run_document
from training.closed_sets.config import ClosedSetJob
from training.closed_sets.trained import TrainedSet, find_finished, load_record, load_trained
from training.data import find_shards

_log = logging.getLogger(__name__)


class ClosedSetScoreJob(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is scored, on what, and how."""

    run: str
    """Folder of the network's run; the scores go to `scores` below it."""
    benchmark: BenchmarkConfig
    """Images and truth."""
    scoring: ScoringConfig
    """How it is scored; only the average and the number of examples count."""
    device: str = "auto"
    """Where it runs."""

    @property
    def folder(self) -> Path:
        """Where the scores go: a folder for each benchmark folder and way of scoring."""
        counted = {"average": self.scoring.average, "examples": self.scoring.num_examples}
        return Path(self.run) / "scores" / digest([self.benchmark, counted])[:8]


def export_dataset(job: ClosedSetJob) -> ExportedSet:
    """Export the committed shards that are not degraded; what is exported is left alone.

    Raises:
        DataError: If a shard is damaged.
        InputError: If there is no shard, or the folder holds another export.
    """
    shards = {shard.path: shard.identity for shard in find_shards(job.dataset)}
    return export_shards(shards, job.closed_set, Path(job.config.data))


def suits(closed_set: ClosedSet, config: BenchmarkConfig) -> bool:
    """Whether a network of these classes can be scored on a benchmark.

    It can where whole label maps are known and at least one class is the same.

    Raises:
        InputError: If the benchmark's folder is not there.
    """
    benchmark = open_benchmark(config)
    if isinstance(benchmark, OpenImages):
        return False
    try:
        find_positions(closed_set, benchmark.classes)
    except InputError as error:
        _log.info("%s", error)
        return False
    return True


def describe_subject(record: TrainedSet) -> Subject:
    """Say what is scored; equal fingerprints stand for equal weights."""
    return Subject(
        kind="closed-set",
        name=f"{record.config.name} on {record.closed_set.name}",
        fingerprint=record.fingerprint,
        details={
            "steps": str(record.config.steps),
            "images": str(record.num_samples),
            "seed": str(record.config.seed),
        },
    )


def run_job(job: ClosedSetScoreJob) -> Scores:
    """Score a network in this process.

    Raises:
        DataError: If files of the benchmark or the run are damaged.
        InputError: If files are missing, or the benchmark has points and no label maps.
    """
    benchmark = open_benchmark(job.benchmark)
    if isinstance(benchmark, OpenImages):
        message = f"{job.benchmark.name} has answers at points, expected label maps: choose another"
        raise InputError(message)
    device = pick_device(job.device)
    network, record = load_trained(Path(job.run))
    config = record.config
    view = ViewConfig(short_side=config.short_side, long_side=config.long_side, window=None)
    predictor = ClosedSetPredictor(
        network.to(device), record.closed_set, benchmark.classes, view, device
    )
    subject = describe_subject(record)
    return score_closed_set(
        predictor, benchmark, subject=subject, config=job.scoring, out=job.folder
    )


@task(
    name="train-closed-set",
    task_run_name="train {job.config.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def train_closed_set(job: ClosedSetJob) -> Any:
    """Export the dataset and train a segmenter in a process of its own.

    Returns:
        The `TrainedSet`; in a state named ``Cached`` if the run was over before.

    Raises:
        ChildFailedError: If training ended with an error.
        InputError: If it refused its input.
        LeaseHeldError: If somebody trains in the same folder.
    """
    export_dataset(job)
    finished = find_finished(job.config)
    if finished is not None:
        message = "trained before on the same shards with the same settings"
        return Completed(name="Cached", message=message, data=finished)
    out = Path(job.config.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "training.json"
    path.write_text(job.config.model_dump_json(indent=1), encoding="utf-8")
    run_child(
        [sys.executable, "-m", "training.closed_sets", "--config", str(path)], out, "training.log"
    )
    return load_record(out)


@task(
    name="score-closed-set",
    task_run_name="score {job.run} on {job.benchmark.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def score(job: ClosedSetScoreJob) -> Any:
    """Score a network in a process of its own.

    Returns:
        The `Scores`; in a state named ``Cached`` if they were measured before.

    Raises:
        ChildFailedError: If scoring ended with an error.
        InputError: If files are missing.
    """
    subject = describe_subject(load_record(Path(job.run)))
    return measure_in_child("tasks.closed_sets", job, subject, "job.json")


def main(arguments: list[str] | None = None) -> int:
    """Run the job of a JSON file; returns the exit code."""
    return run_document(ClosedSetScoreJob, run_job, "python -m tasks.closed_sets", arguments)


if __name__ == "__main__":
    sys.exit(main())
