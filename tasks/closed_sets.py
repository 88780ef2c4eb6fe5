"""Closed sets: the step that trains an ordinary segmenter on a dataset."""

import logging
import sys
from pathlib import Path

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.open_images import OpenImages
from evaluation.scoring.on_closed_sets import find_positions
from storage.errors import InputError
from storage.exports.closed_sets import ClosedSet
from storage.exports.folders import ExportedSet, export_shards
from storage.folds import Fold
from tasks.steps import RunStep
from tasks.training import write_document
from training.closed_sets.config import ClosedSetJob
from training.closed_sets.loop import train_closed_set
from training.closed_sets.trained import (
    TrainedSet,
    find_trained_closed_set,
    read_closed_set_record,
)
from training.data import find_shards

_log = logging.getLogger(__name__)


class ClosedSetTraining(RunStep[TrainedSet]):
    """The step that trains a segmenter on exports of datasets.

    Args:
        job: Datasets, classes, network and schedule.
    """

    kind = "train-closed-set"

    def __init__(self, job: ClosedSetJob) -> None:
        self.job = job

    @property
    def label(self) -> str:
        """A short description of the work."""
        return f"training of {self.job.config.name}"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.job.config.out)

    def find(self) -> TrainedSet | None:
        """The record of a run that is over, if it was made of the same data and settings.

        The data are those of an export, which is brought up to date first.

        Raises:
            DataError: If a shard or the record is damaged.
            InputError: If there is no shard, or the export's folder holds another one.
            LeaseHeldError: If somebody else exports there.
        """
        export_datasets(self.job)
        return find_trained_closed_set(self.job.config)

    def work(self) -> TrainedSet:
        """Train in this process on the export, see `train_closed_set`."""
        return train_closed_set(self.job.config)

    def program(self) -> list[str]:
        """`python -m training.closed_sets`."""
        text = self.job.config.model_dump_json(indent=1)
        document = write_document(text, self.folder, self.kind)
        return [sys.executable, "-m", "training.closed_sets", "--config", str(document)]

    def collect(self) -> TrainedSet:
        """The record of the trained network.

        Raises:
            DataError: If it is damaged.
            InputError: If there is none.
        """
        return read_closed_set_record(self.folder)


def export_datasets(job: ClosedSetJob) -> list[ExportedSet]:
    """Export the committed shards that are not degraded; what is exported is left alone.

    Raises:
        DataError: If a shard is damaged.
        InputError: If there is no shard, or the folder holds another export.
        LeaseHeldError: If somebody else exports there.
    """
    exported: list[ExportedSet] = []
    for dataset, source in zip(job.datasets, job.config.exports, strict=True):
        out = Path(source.data)
        exported.append(export_dataset(dataset, job.closed_set, out, held_out=job.held_out))
    return exported


def export_dataset(
    dataset: str, closed_set: ClosedSet, out: Path, *, held_out: Fold | None = None
) -> ExportedSet:
    """Export the shards of a dataset that are not degraded, without the samples left out of it.

    Args:
        dataset: Its root, or a folder of tars.
        closed_set: The classes.
        out: Folder of the export.
        held_out: A part of the dataset that is left out besides, as `find_shards` has it.

    Raises:
        DataError: If a shard is damaged.
        InputError: If there is no shard, or the folder holds another export.
        LeaseHeldError: If somebody else exports there.
    """
    found = find_shards(dataset, held_out=held_out)
    shards = {shard.path: shard.identity for shard in found}
    excluded = {shard.path: shard.excluded for shard in found}
    corrected = {shard.path: shard.corrected for shard in found}
    return export_shards(shards, closed_set, out, excluded=excluded, corrected=corrected)


def suits(closed_set: ClosedSet, config: BenchmarkConfig) -> bool:
    """Whether a network of these classes can be scored on a benchmark.

    It can where whole label maps are known and at least one class is the same.

    Raises:
        InputError: If files of the benchmark are missing.
    """
    benchmark = open_benchmark(config)
    if isinstance(benchmark, OpenImages):
        return False
    try:
        find_positions(closed_set, benchmark.classes)
    except InputError as error:
        _log.info("%s", error)
        return False
    benchmark.check()
    return True
