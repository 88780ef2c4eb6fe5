"""Where a model's weights are, what identifies them, and what to do when they are missing."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
)
from safetensors import SafetensorError

from models.loading import LOADING
from storage.errors import InputError
from storage.paths import local_path

WEIGHTS_FOLDER_VARIABLE = "MAGICSEG_WEIGHTS"
"""Environment variable with a folder that holds `<namespace>/<name>` of downloaded hub models."""

_SHIPPED = "weights:"
_SHIPPED_FOLDER = Path(__file__).with_name("miniature") / "weights"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BRANCHES = ("main", "master")
_READ_SUFFIXES = frozenset({".safetensors", ".bin", ".json", ".txt", ".model"})
_TRAINING_RECORD = "training.json"


@dataclass(frozen=True)
class Weights:
    """A place that `from_pretrained` can read.

    Attributes:
        source: Hub id, or path of an existing folder.
        revision: Commit or tag of a hub id; None for a folder.
    """

    source: str
    revision: str | None

    @property
    def folder(self) -> Path | None:
        """The folder, or None if the weights come through the hub's cache."""
        return Path(self.source) if self.revision is None else None

    @property
    def options(self) -> dict[str, Any]:
        """What `from_pretrained` needs besides the source."""
        return {} if self.revision is None else {"revision": self.revision}


def resolve_weights(model: str, revision: str | None = None) -> Weights:
    """Find a model's weights, without reading them.

    Args:
        model: Hub id, path of a folder, or `weights:<name>`.
        revision: Commit or tag; needed for a hub id that is not in the folder
            `MAGICSEG_WEIGHTS`.

    Raises:
        InputError: If `model` is neither a folder nor a hub id, or is a hub id without revision.
    """
    if model.startswith(_SHIPPED):
        return Weights(str(_shipped_folder(model)), None)
    folder = local_path(model, "the weights")
    if folder.is_dir():
        return Weights(str(folder), None)
    if not _HUB_ID.fullmatch(model) or model.startswith("."):
        message = (
            f"weights {model!r} are no existing folder and no hub id; expected a folder, "
            "'<namespace>/<name>' or 'weights:<name>'"
        )
        raise InputError(message)
    provided = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    if provided and (local_path(provided, WEIGHTS_FOLDER_VARIABLE) / model).is_dir():
        return Weights(str(local_path(provided, WEIGHTS_FOLDER_VARIABLE) / model), None)
    if revision is None or revision in _BRANCHES:
        found = "no revision" if revision is None else f"the branch {revision!r} as its revision"
        message = (
            f"hub model {model!r} has {found}; give the commit that it must be taken from, "
            "because a branch moves and the dataset could not be made again"
        )
        raise InputError(message)
    return Weights(model, revision)


def weights_identity(model: str, revision: str | None = None) -> str:
    """Name the weights so that equal names mean equal weights.

    A hub id with a revision is `<id>@<revision>` wherever the files lie. A folder is the SHA-256
    over names and contents of its weight, config and tokenizer files: kept in memory until one of
    them changes.

    Args:
        model: Hub id, path of a folder, or `weights:<name>`.
        revision: Commit or tag of a hub id.

    Raises:
        InputError: If the weights cannot be found or the folder holds none.
    """
    weights = resolve_weights(model, revision)
    if revision is not None and not model.startswith(_SHIPPED) and not Path(model).is_dir():
        return f"{model}@{revision}"
    folder = Path(weights.source)
    files = sorted(path for path in folder.rglob("*") if _is_read(path))
    if not files:
        message = f"folder {weights.source!r} holds no weights; expected a from_pretrained folder"
        raise InputError(message)
    stats = ((path, path.stat()) for path in files)
    signature = tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    return f"sha256:{_digest(str(folder), signature)}"


@contextmanager
def loading(weights: Weights) -> Iterator[None]:
    """Load while no other thread does, and say how to get what is missing.

    Raises:
        InputError: If files are missing, refused by the hub or damaged. Other errors of the
            operating system (no permission, no space) pass unchanged.
    """
    try:
        with LOADING:
            yield
    except SafetensorError as error:
        message = f"weights in {weights.source!r} are damaged ({error}); {way_out(weights)}"
        raise InputError(message) from error
    except (OSError, EntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        if getattr(error, "errno", None) not in {None, errno.ENOENT}:
            raise
        raise InputError(_missing(weights, error)) from error


def require_marker(weights: Weights, name: str) -> Path:
    """Find the small file at the root of a model, before anything large is read.

    Args:
        weights: Where to look.
        name: `config.json` of a model or `model_index.json` of a pipeline.

    Returns:
        Path of the local file.

    Raises:
        InputError: If it is not there and cannot be downloaded; says what to do.
    """
    if weights.folder is None:
        try:
            return Path(hf_hub_download(weights.source, name, revision=weights.revision))
        except (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            OfflineModeIsEnabled,
        ) as error:
            raise InputError(_missing(weights, error)) from error
    path = weights.folder / name
    if not path.is_file():
        raise InputError(_missing(weights, FileNotFoundError(f"no {name}")))
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a checkpoint's JSON file.

    Raises:
        InputError: If it is not a JSON object.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"model file {str(path)!r} is not JSON ({error}); download the model again"
        raise InputError(message) from error
    if not isinstance(contents, dict):
        message = f"model file {str(path)!r} is not a JSON object; download the model again"
        raise InputError(message)
    return contents


def _shipped_folder(model: str) -> Path:
    folder = _SHIPPED_FOLDER / model.removeprefix(_SHIPPED)
    if folder.parent != _SHIPPED_FOLDER or not folder.is_dir():
        shipped = sorted(path.name for path in _SHIPPED_FOLDER.glob("*/"))
        message = f"weights {model!r} do not ship with the engine; those that do: {shipped}"
        raise InputError(message)
    return folder


def _is_read(path: Path) -> bool:
    return path.is_file() and path.suffix in _READ_SUFFIXES and path.name != _TRAINING_RECORD


@lru_cache(maxsize=32)
def _digest(folder: str, signature: tuple[tuple[str, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for name, _, _ in signature:
        with Path(name).open("rb") as file:
            contents = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{Path(name).relative_to(folder).as_posix()} {contents}\n".encode())
    return whole.hexdigest()


def _missing(weights: Weights, error: Exception) -> str:
    where = f"folder {weights.source!r}"
    if weights.folder is None:
        where = f"hub model {weights.source!r} at revision {weights.revision!r}"
    first_line = str(error).strip().splitlines()[:1]
    reason = ": ".join([type(error).__name__, *first_line]).rstrip(".")
    return f"{where} cannot be loaded ({reason}); {way_out(weights)}"


def way_out(weights: Weights) -> str:
    """Say how to get weights that are missing or damaged."""
    if weights.folder is not None:
        return "download the model again into that folder, or set `model` to a folder that has it"
    command = f"hf download {weights.source} --revision {weights.revision} --local-dir FOLDER"
    return (
        f"download it where there is a network: `{command}`, then set `model` to FOLDER, or let "
        f"FOLDER be <weights>/{weights.source} and set {WEIGHTS_FOLDER_VARIABLE}=<weights>"
    )
