"""Checkpoints: folders that appear whole, hold what training changed, and prove themselves.

    step-00000500/student.safetensors   trained tensors, and their running mean if there is one
                  optimiser.pt          state of the optimiser
                  checkpoint.json       step, fingerprint and its contents, sizes and digests

There is no generator to save: every random draw is derived from the seed and the step.
"""

import io
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from models.student.trained import (
    AVERAGE_PREFIX,
    RECORD_FILE,
    WEIGHTS_FILE,
    describe_file,
    list_checkpoints,
    read_checked,
    read_tensors,
)
from storage.errors import DataError, InputError
from storage.identity import canonical_json, digest, refuse_drift
from storage.paths import local_path
from training.disk import explain_no_room

_log = logging.getLogger(__name__)

_OPTIMISER = "optimiser.pt"
_ASIDE = "set-aside"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two updates.

    Attributes:
        step: Updates done.
        meta: What the run is made of, JSON types; its digest is the fingerprint.
        weights: Trained tensors by name.
        average: Their running mean, or nothing.
        optimiser: State dict of the optimiser.
    """

    step: int
    meta: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None
    optimiser: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint below a folder; it is there whole, or not at all.

    Durable when it returns. Older checkpoints beyond the newest `keep` are removed.

    Returns:
        The checkpoint's own folder.

    Raises:
        InputError: If there is no room for it; what was written of it is removed.
    """
    target = folder / f"step-{checkpoint.step:08d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        with explain_no_room(folder):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            _write_files(temporary, checkpoint)
    except InputError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    temporary.rename(target)
    _sync(folder)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def restore_checkpoint(
    folder: Path, meta: Mapping[str, Any], chosen: str | None
) -> Checkpoint | None:
    """Read the checkpoint that a run goes on from.

    Args:
        folder: Where the run keeps its checkpoints.
        meta: What the run is made of now.
        chosen: The checkpoint to take instead of the newest one.

    Returns:
        The checkpoint, or nothing if the run is new.

    Raises:
        DataError: If it is damaged; an earlier one is taken only if it is chosen.
        InputError: If it belongs to a run of other data or another config, if its values are not
            finite, or if there is no checkpoint where the chosen one should be.
    """
    present = list_checkpoints(folder)
    if chosen is None and not present:
        return None
    path = present[-1] if chosen is None else local_path(chosen, "the checkpoint")
    record = read_checkpoint_record(path)
    refuse_drift(
        f"checkpoint {path} belongs to another run",
        record["meta"],
        meta,
        way_out="Train into another out folder, or take the old values back",
    )
    weights, average = read_tensors(path)
    optimiser = torch.load(path / _OPTIMISER, weights_only=True)
    return Checkpoint(record["step"], record["meta"], weights, average, optimiser)


def read_checkpoint_record(path: Path) -> dict[str, Any]:
    """Read the record of a checkpoint: `step`, `fingerprint`, `meta` and `files`.

    Raises:
        DataError: If it is damaged; says how the run goes on without it.
        InputError: If it is not a checkpoint.
    """
    try:
        return read_checked(path)
    except DataError as error:
        earlier = [str(p) for p in list_checkpoints(path.parent) if p.name < path.name]
        way = f"set resume_from to {earlier[-1]}" if earlier else f"move {path} away to start over"
        message = f"{error}; to go on, {way}"
        raise DataError(message) from error


def set_later_aside(folder: Path, step: int) -> None:
    """Move checkpoints of later steps to `set-aside`; they will be made again."""
    for path in list_checkpoints(folder):
        if path.name > f"step-{step:08d}":
            aside = folder / _ASIDE
            aside.mkdir(exist_ok=True)
            path.rename(aside / f"{sum(1 for _ in aside.iterdir()):03d}-{path.name}")
            _log.warning("%s is later than step %d and was moved to %s", path, step, aside)


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    """Write and force to the disk all files of a checkpoint."""
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()
    }
    for name, tensor in (checkpoint.average or {}).items():
        tensors[AVERAGE_PREFIX + name] = tensor.detach().cpu().contiguous()
    optimiser = io.BytesIO()
    torch.save(dict(checkpoint.optimiser), optimiser)
    # The libraries' own writers do not say that a disk is full in a way that can be told apart.
    files = {WEIGHTS_FILE: save(tensors), _OPTIMISER: optimiser.getvalue()}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    record = {
        "step": checkpoint.step,
        "fingerprint": digest(checkpoint.meta),
        "meta": checkpoint.meta,
        "files": {name: describe_file(folder / name) for name in files},
    }
    (folder / RECORD_FILE).write_bytes(canonical_json(record))
    for path in (*sorted(folder.iterdir()), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
