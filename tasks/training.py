"""Training: the step that trains a student."""

import sys
from collections.abc import Callable
from pathlib import Path

from models.student.trained import list_checkpoints
from storage.errors import IncompleteError, InputError
from storage.files import write_whole
from storage.identity import digest
from storage.layout import SPEC_PATH
from storage.objects import open_objects
from storage.paths import local_path
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.steps import RunStep
from training.config import TrainingConfig
from training.data import find_shards, find_sources
from training.loop import (
    CHECKPOINT_FOLDER,
    StepMetrics,
    find_finished,
    student_run_identity,
    train_student,
)


class StudentTraining(RunStep[Path]):
    """The step that trains a student.

    Args:
        config: Data, student, recipe and machine.
        processes: Processes of the program, one a GPU; more than one are started by torchrun. This
            process trains alone.
    """

    kind = "train"

    def __init__(self, config: TrainingConfig, processes: int = 1) -> None:
        self.config = config
        self._processes = processes

    @property
    def label(self) -> str:
        """A short description of the work."""
        return "training of the student"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return local_path(self.config.out)

    def find(self) -> Path | None:
        """The last checkpoint of a run that is over, see `find_trained_student`."""
        return find_trained_student(self.config)

    def work(self, on_step: Callable[[StepMetrics], None] | None = None) -> Path:
        """Train in this process, see `train_student`, and return the last checkpoint."""
        return train_student(self.config, on_step)

    def program(self) -> list[str]:
        """`python -m training`, in one process or in several."""
        document = write_document(self.config.model_dump_json(indent=1), self.folder, self.kind)
        launcher = ["training"]
        if self._processes > 1:
            several = ["--standalone", f"--nproc-per-node={self._processes}"]
            launcher = ["training.torchrun", *several, "-m", "training"]
        return [sys.executable, "-m", *launcher, "--config", str(document)]

    def collect(self) -> Path:
        """The last checkpoint.

        Raises:
            InputError: If there is none.
        """
        checkpoints = list_checkpoints(self.folder / CHECKPOINT_FOLDER)
        if not checkpoints:
            message = f"training left no checkpoint in {self.folder}: train again"
            raise InputError(message)
        return checkpoints[-1]


def require_shards(dataset: str, wanted: int) -> int:
    """Count the shards that training may use.

    Args:
        dataset: Root of a dataset, of which good committed shards count, or a folder of tars.
        wanted: Least number.

    Raises:
        IncompleteError: Fewer are there than wanted.
        InputError: There is neither a dataset nor a tar.
    """
    if open_objects(dataset).size(SPEC_PATH) is None:
        good, degraded = len(find_shards(dataset)), 0
    else:
        shards = Store.open(dataset).shards()
        good = sum(not shard.degraded for shard in shards)
        degraded = len(shards) - good
    if good < wanted:
        message = (
            f"{dataset} has {good} good shards ({degraded} degraded), "
            f"{wanted} are wanted before training starts; generate more, or lower min_shards"
        )
        raise IncompleteError(message)
    return good


def refuse_other_vocabulary(dataset: str, vocabulary: str) -> None:
    """Refuse a dataset whose labels index another vocabulary than a run's.

    Raises:
        InputError: Its specification names another one.
    """
    if open_objects(dataset).size(SPEC_PATH) is None:
        return
    found = Store.open(dataset).vocabulary
    if found != vocabulary:
        message = (
            f"{dataset} has the vocabulary {found}, the run has {vocabulary}: choose a profile "
            f"with {found}, or leave the source out"
        )
        raise InputError(message)


def find_trained_student(config: TrainingConfig) -> Path | None:
    """The last checkpoint of a run that is over, if it was made of the same data and settings.

    A run that is to go on from a chosen checkpoint is not over.

    Raises:
        DataError: If that checkpoint is damaged.
        InputError: If shards or weights are missing.
    """
    meta = student_run_identity(config, load_vocabulary(config.vocabulary), find_sources(config))
    return find_finished(config, meta)


def write_document(text: str, folder: Path, kind: str) -> Path:
    """Write a program's job into a file named after its contents.

    Two who want different things in one folder do not overwrite each other's jobs before the lock
    tells one of them to wait.
    """
    path = folder / f"{kind}-{digest(text)[:8]}.json"
    write_whole(path, text.encode())
    return path
