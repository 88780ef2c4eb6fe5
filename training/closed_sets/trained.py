"""A trained closed-set segmenter: its file of weights and what they are."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.closed_sets.networks import build_network
from models.finiteness import find_not_finite
from storage.errors import DataError, InputError
from storage.exports.closed_sets import ClosedSet
from storage.exports.folders import ExportedSet, read_export
from storage.files import whole_file, write_whole
from storage.identity import digest
from storage.records import read_record
from training.closed_sets.config import ClosedSetConfig

_WEIGHTS_FILE = "model.safetensors"

_RECORD_FILE = "closed_set.json"


class TrainedSet(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What a finished run's weights are: the contents of ``closed_set.json``."""

    fingerprint: str
    """Digest of config, classes and data."""
    config: ClosedSetConfig
    """How it was trained."""
    closed_set: ClosedSet
    """Classes in the order of the network's outputs from 1 on; output 0 is background."""
    num_samples: int
    """Images that it was trained on."""
    weights_sha256: str
    """Digest of the file of weights."""


def read_exports(config: ClosedSetConfig) -> list[ExportedSet]:
    """Read what the exports of a run hold.

    Raises:
        DataError: If a description is damaged.
        InputError: If one is no finished export, or they are not all of the same classes.
    """
    exported = [read_export(Path(source.data)) for source in config.exports]
    for source, own in zip(config.exports, exported, strict=True):
        if own.closed_set != exported[0].closed_set:
            message = (
                f"{source.data} is an export of {own.closed_set.name}, expected "
                f"{exported[0].closed_set.name} as in {config.exports[0].data}: export it again"
            )
            raise InputError(message)
    return exported


def closed_set_run_identity(
    config: ClosedSetConfig, exported: Sequence[ExportedSet]
) -> dict[str, Any]:
    """Describe what the weights depend on; the digest of it is the run's fingerprint."""
    data = [{"samples": own.num_samples, "digest": own.digest} for own in exported]
    return {
        "config": config.identity(),
        "classes": exported[0].closed_set.model_dump(mode="json"),
        "data": data if len(data) > 1 else data[0],
    }


def find_trained_closed_set(config: ClosedSetConfig) -> TrainedSet | None:
    """Find the record of a finished run that used the same data and settings.

    Raises:
        InputError: If there is no export.
        DataError: If the record is damaged.
    """
    out = Path(config.out)
    if not (out / _RECORD_FILE).is_file():
        return None
    record = read_closed_set_record(out)
    meta = closed_set_run_identity(config, read_exports(config))
    return record if record.fingerprint == digest(meta) else None


def is_closed_set(run: Path) -> bool:
    """Whether a folder holds a finished closed-set run."""
    return (run / _RECORD_FILE).is_file()


def read_closed_set_record(out: Path) -> TrainedSet:
    """Read what the weights of a finished run are.

    Raises:
        InputError: If the run is not finished.
        DataError: If the record is damaged.
    """
    path = out / _RECORD_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        message = f"{out} holds no trained segmenter (no {_RECORD_FILE}): train first"
        raise InputError(message) from error
    return read_record(TrainedSet, data, str(path), way_out="train again elsewhere")


def load_closed_set(out: Path) -> tuple[Any, TrainedSet]:
    """Build the network of a finished run, in evaluation mode, on the CPU.

    Raises:
        InputError: If the run is not finished, its weights are not finite, or mmsegmentation is
            missing.
        DataError: If its files are damaged.
    """
    record = read_closed_set_record(out)
    path = out / _WEIGHTS_FILE
    found = _sha256(path) if path.is_file() else "nothing"
    if found != record.weights_sha256:
        message = f"{path} is {found}, expected {record.weights_sha256}: train again elsewhere"
        raise DataError(message)
    network = build_network(record.config.network, len(record.closed_set.labels))
    tensors = load_file(path)
    _refuse_not_finite(tensors, out)
    network.load_state_dict(tensors)
    return network.eval(), record


def save_trained(
    network: nn.Module, config: ClosedSetConfig, exported: Sequence[ExportedSet], out: Path
) -> TrainedSet:
    """Write the weights of a finished run and the record that vouches for them.

    Raises:
        InputError: If the weights are not finite.
    """
    tensors: dict[str, Tensor] = {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in network.state_dict().items()
    }
    _refuse_not_finite(tensors, out)
    with whole_file(out / _WEIGHTS_FILE) as place:
        save_file(tensors, place)
    record = TrainedSet(
        fingerprint=digest(closed_set_run_identity(config, exported)),
        config=config,
        closed_set=exported[0].closed_set,
        num_samples=sum(own.num_samples for own in exported),
        weights_sha256=_sha256(out / _WEIGHTS_FILE),
    )
    write_whole(out / _RECORD_FILE, record.model_dump_json(indent=1).encode())
    return record


def _refuse_not_finite(tensors: Mapping[str, Tensor], out: Path) -> None:
    wrong = find_not_finite(tensors)
    if wrong is not None:
        message = (
            f"the weights in {out} are not finite, {wrong} to begin with: the training has "
            "diverged. Train into another folder with a lower learning_rate"
        )
        raise InputError(message)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
