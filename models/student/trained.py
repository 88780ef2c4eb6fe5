"""A trained student: the newest checkpoint of a run, checked and built."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.finiteness import find_not_finite
from models.student.config import StudentConfig
from models.student.zegclip import ZegClip
from models.weights import weights_identity
from storage.errors import DataError, InputError
from storage.identity import digest
from storage.paths import local_path

__all__ = ["describe_student", "load_student"]

_NAME = re.compile(r"step-(\d{8})")

WEIGHTS_FILE = "student.safetensors"

RECORD_FILE = "checkpoint.json"

AVERAGE_PREFIX = "average."


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints below a folder, oldest first; they are not checked."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if _NAME.fullmatch(path.name))


def load_student(path: str | Path) -> tuple[ZegClip, dict[str, Any]]:
    """Build the student of a checkpoint, in evaluation mode, with its running mean if it has one.

    Args:
        path: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.

    Returns:
        The student on the CPU, and what its run was made of: `config`, `vocabulary`, `dataset`,
        `clip`, `step` and `fingerprint`.

    Raises:
        DataError: If the checkpoint is damaged.
        InputError: If there is none, its values are not finite, or CLIP's weights are not there or
            are not those that it was trained on.
    """
    folder = _newest(path)
    record = read_checked(folder)
    config = StudentConfig.model_validate(record["meta"]["config"]["student"])
    _refuse_other_clip(folder, record["meta"], config)
    student = ZegClip.from_config(config)
    weights, average = read_tensors(folder)
    load_weights(student, average or weights)
    return student.eval(), _description(record)


def describe_student(path: str | Path) -> dict[str, Any]:
    """Say what a trained student is without building it: what `load_student` returns beside it.

    Its files are held against their sizes; their digests are when the student is loaded.

    Args:
        path: Folder of a checkpoint, or of a run, whose newest checkpoint is taken.

    Raises:
        DataError: If the checkpoint is damaged.
        InputError: If there is none.
    """
    folder = _newest(path)
    record = _read_record(folder)
    if digest(record["meta"]) != record["fingerprint"]:
        message = (
            f"checkpoint {folder} is damaged: its contents have the fingerprint "
            f"{digest(record['meta'])}, expected {record['fingerprint']}"
        )
        raise DataError(message)
    for name, expected in record["files"].items():
        found = _size(folder / name)
        if not expected.startswith(f"{found},"):
            message = f"checkpoint {folder} is damaged: {name} is {found}, expected {expected}"
            raise DataError(message)
    return _description(record)


def load_weights(student: ZegClip, weights: Mapping[str, Tensor]) -> None:
    """Copy trained tensors into a student.

    Raises:
        DataError: If names or shapes differ.
    """
    own = dict(student.trainable_parameters())
    wrong = own.keys() ^ weights.keys() or {n for n in own if own[n].shape != weights[n].shape}
    if wrong:
        message = (
            f"the checkpoint and the student differ in {len(wrong)} tensors, {min(wrong)!r} one"
            " of them: it was written by another version of the student"
        )
        raise DataError(message)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """The trained tensors of a checkpoint by name, and their running mean if it has one.

    Raises:
        InputError: If a value is not finite: the training had diverged.
    """
    tensors = load_file(path / WEIGHTS_FILE)
    wrong = find_not_finite(tensors)
    if wrong is not None:
        message = (
            f"checkpoint {path} holds a tensor that is not finite, {wrong}: its training had "
            "diverged. Take an earlier checkpoint, or train into another out folder with a lower "
            "optimiser.learning_rate"
        )
        raise InputError(message)
    average = {
        n.removeprefix(AVERAGE_PREFIX): t
        for n, t in tensors.items()
        if n.startswith(AVERAGE_PREFIX)
    }
    return {n: t for n, t in tensors.items() if not n.startswith(AVERAGE_PREFIX)}, average or None


def read_checked(path: Path) -> dict[str, Any]:
    """Read a checkpoint's record and check its files against it."""
    record = _read_record(path)
    for name, expected in record["files"].items():
        found = describe_file(path / name) if (path / name).is_file() else "nothing"
        if found != expected:
            message = f"checkpoint {path} is damaged: {name} is {found}, expected {expected}"
            raise DataError(message)
    return record


def _newest(path: str | Path) -> Path:
    folder = local_path(path, "the run")
    newest = list_checkpoints(folder / "checkpoints")
    return newest[-1] if newest else folder


def _description(record: Mapping[str, Any]) -> dict[str, Any]:
    fingerprint = {"step": record["step"], "fingerprint": record["fingerprint"]}
    return {**record["meta"], **fingerprint}


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / RECORD_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        message = (
            f"{path} is not a checkpoint (it has no {RECORD_FILE}); train first, or give "
            "another folder"
        )
        raise InputError(message) from error
    except ValueError as error:
        message = f"{path / RECORD_FILE} is not JSON ({error})"
        raise DataError(message) from error


def describe_file(path: Path) -> str:
    """Size and digest of a file, as text for a record."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{_size(path)}, sha256 {sha256}"


def _size(path: Path) -> str:
    return f"{path.stat().st_size} bytes" if path.is_file() else "nothing"


def _refuse_other_clip(path: Path, meta: Mapping[str, Any], config: StudentConfig) -> None:
    trained, found = meta.get("clip"), weights_identity(config.clip, config.revision)
    if found != trained:
        message = (
            f"checkpoint {path} was trained on CLIP weights {trained}, but {config.clip} holds "
            f"{found}: put the old weights back there"
        )
        raise InputError(message)
