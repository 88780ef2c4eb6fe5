"""Training: the task that trains a student in a process of its own."""

import sys
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from models.student.trained import list_checkpoints
from storage.errors import IncompleteError
from storage.identity import digest
from storage.layout import SPEC_PATH
from storage.objects import open_objects
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.children import run_child
from training.checkpoints import read_record
from training.config import TrainingConfig
from training.data import find_shards
from training.loop import CHECKPOINT_FOLDER, describe_run

CONFIG_FILE = "training.json"


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


def find_finished(config: TrainingConfig) -> Path | None:
    """The last checkpoint of a run that is over, if it was made of the same data and settings.

    A run that is to go on from a chosen checkpoint is not over.

    Raises:
        DataError: If that checkpoint is damaged.
        InputError: If shards or weights are missing.
    """
    checkpoints = list_checkpoints(Path(config.out).expanduser() / CHECKPOINT_FOLDER)
    if not checkpoints or config.resume_from is not None:
        return None
    shards = find_shards(config.dataset, use_degraded=config.degraded_shards == "use")
    meta = describe_run(config, load_vocabulary(config.vocabulary), shards)
    record = read_record(checkpoints[-1])
    is_over = record["step"] >= config.optimiser.steps and record["fingerprint"] == digest(meta)
    return checkpoints[-1] if is_over else None


@task(name="train", cache_policy=NO_CACHE, persist_result=False)
def train_student(config: TrainingConfig, processes: int = 1) -> Any:
    """Train a student in a process of its own, or in several, one a GPU.

    Args:
        config: Data, student, recipe and machine.
        processes: More than one are started by torchrun.

    Returns:
        Path of the last checkpoint; in a state named ``Cached`` if the run was over before.

    Raises:
        ChildFailedError: If training ended with an error.
        InputError: If it refused its input.
        LeaseHeldError: If somebody trains in the same folder.
    """
    finished = find_finished(config)
    if finished is not None:
        message = "trained before on the same shards with the same settings"
        return Completed(name="Cached", message=message, data=str(finished))
    out = Path(config.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG_FILE).write_text(config.model_dump_json(indent=1), encoding="utf-8")
    launcher = ["-m", "training"]
    if processes > 1:
        several = ["--standalone", f"--nproc-per-node={processes}"]
        launcher = ["-m", "torch.distributed.run", *several, "-m", "training"]
    command = [sys.executable, *launcher, "--config", str(out / CONFIG_FILE)]
    run_child(command, out, "training.log")
    return str(list_checkpoints(out / CHECKPOINT_FOLDER)[-1])
