"""Where a model's weights are, what identifies them, and what to do when they are missing."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
)

from models.devices import is_out_of_memory
from models.folders import NETWORK_CONFIG, read_json, require_complete, require_marker_file
from models.hub import find_on_hub, is_offline, whole_commit
from models.loading import LOADING
from storage.errors import EngineError, InputError
from storage.paths import local_path

WEIGHTS_FOLDER_VARIABLE = "MAGICSEG_WEIGHTS"
"""Environment variable with a folder that holds `<namespace>/<name>` of downloaded hub models."""

_SHIPPED = "weights:"
_SHIPPED_FOLDER = Path(__file__).with_name("miniature") / "weights"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_BRANCHES = ("main", "master")
_READ_SUFFIXES = frozenset({".safetensors", ".bin", ".json", ".txt", ".model", ".jinja"})
_TRAINING_RECORD = "training.json"
_LONGEST_REASON = 400


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
        InputError: If `model` is neither a folder nor a hub id, is a single file, or is a hub id
            without revision or with a part of a commit as its revision.
    """
    if model.startswith(_SHIPPED):
        return Weights(str(_shipped_folder(model)), None)
    folder = local_path(model, "the weights")
    if folder.is_dir():
        return Weights(str(folder), None)
    if folder.is_file():
        raise InputError(_single_file(model))
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
    return Weights(model, whole_commit(model, revision))


def weights_identity(
    model: str, revision: str | None = None, *, unneeded: frozenset[str] = frozenset()
) -> str:
    """Name the weights so that equal names mean equal weights.

    A hub id with a revision is `<id>@<revision>` wherever the files lie. A folder is the SHA-256
    over names and contents of its weight, config and tokenizer files: kept in memory until one of
    them changes.

    Args:
        model: Hub id, path of a folder, or `weights:<name>`.
        revision: Commit or tag of a hub id.
        unneeded: Parts of a pipeline that will not be loaded, and may be missing.

    Raises:
        InputError: If the weights cannot be found, or the folder is not complete: what is missing
            would have no part in the name.
    """
    weights = resolve_weights(model, revision)
    files: list[Path] = []
    if weights.folder is not None:
        files = sorted(path for path in weights.folder.rglob("*") if _is_read(path))
        if not files:
            message = (
                f"folder {weights.source!r} holds no weights; expected a from_pretrained folder"
            )
            raise InputError(message)
        require_complete(weights.folder, unneeded)
    if revision is not None and not model.startswith(_SHIPPED) and not Path(model).is_dir():
        return f"{model}@{revision}"
    stats = ((path, path.stat()) for path in files)
    signature = tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)
    return f"sha256:{_digest(weights.source, signature)}"


@contextmanager
def loading(weights: Weights, part: str = "", reading: str = "") -> Iterator[None]:
    """Load while no other thread does, and say how to get what is missing or damaged.

    Args:
        weights: What is loaded.
        part: Its part, if it is a pipeline.
        reading: Which files are read.

    Raises:
        InputError: If the libraries cannot load it, whatever they raise: files are missing,
            refused by the hub, damaged, or do not fit together. Other errors of the operating
            system (no permission, no space) and a lack of memory pass unchanged.
    """
    try:
        with LOADING:
            yield
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise InputError(_missing(weights, error, part)) from error
    except Exception as error:
        if _is_no_fault_of_the_files(error):
            raise
        raise InputError(_missing(weights, error, part, reading)) from error


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
    if weights.folder is not None:
        return require_marker_file(weights.folder, name)
    try:
        return find_on_hub(weights.source, name, str(weights.revision))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(_missing(weights, error)) from error


def require_model_type(weights: Weights, *expected: str) -> str:
    """Read of which architecture a network is, before anything large is read.

    Args:
        weights: Where to look.
        expected: What its `config.json` may say.

    Returns:
        Which of them it says.

    Raises:
        InputError: If it says something else, is not there, or cannot be downloaded.
    """
    found = read_json(require_marker(weights, NETWORK_CONFIG)).get("model_type")
    if found not in expected:
        message = (
            f"{NETWORK_CONFIG} of {weights.source!r} says that the weights are of type {found!r}, "
            f"expected {' or '.join(map(repr, expected))}"
        )
        raise InputError(message)
    return found


def require_weights_of(weights: Weights, marker: str, unneeded: frozenset[str]) -> Path:
    """Look for all files of a model without reading the large ones.

    Args:
        weights: Where to look.
        marker: The small file at its root.
        unneeded: Parts of a pipeline that will not be loaded.

    Returns:
        The folder with the files; through the hub, what is missing there is still downloaded.

    Raises:
        InputError: If files are missing, and cannot be downloaded as far as can be told.
    """
    folder = require_marker(weights, marker).parent
    if weights.folder is None and not is_offline():
        return folder
    try:
        require_complete(folder, unneeded)
    except InputError as error:
        if weights.folder is not None:
            raise
        raise InputError(_missing(weights, error)) from error
    return folder


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


def _missing(weights: Weights, error: Exception, part: str = "", reading: str = "") -> str:
    where = f"folder {weights.source!r}"
    if weights.folder is None:
        where = f"hub model {weights.source!r} at revision {weights.revision!r}"
    if part:
        where = f"{part!r} of {where}"
    first_line = str(error).strip().splitlines()[:1]
    reason = ": ".join([type(error).__name__, *first_line])[:_LONGEST_REASON].rstrip(".")
    if reading:
        reason += f", while {reading} was read"
    return f"{where} cannot be loaded ({reason}); {way_out(weights)}"


def _is_no_fault_of_the_files(error: Exception) -> bool:
    of_the_machine = isinstance(error, OSError) and error.errno not in {None, errno.ENOENT}
    return of_the_machine or isinstance(error, EngineError) or is_out_of_memory(error)


def _single_file(model: str) -> str:
    return (
        f"weights {model!r} are a single file, expected a folder in the hub's layout. Of a Stable "
        "Diffusion file this makes one, where there is a network: "
        f"`{single_file_command(model, 'FOLDER')}`; then set `model` to FOLDER. Other models: take "
        "the folder of the same model from the hub with `hf download`"
    )


def single_file_command(file: str, folder: str) -> str:
    """The command that makes a folder of a Stable Diffusion checkpoint in a single file."""
    statements = (
        "from diffusers import StableDiffusionPipeline as P",
        f"P.from_single_file({file!r}).save_pretrained({folder!r})",
    )
    return f'python -c "{"; ".join(statements)}"'


def way_out(weights: Weights) -> str:
    """Say how to get weights that are missing or damaged."""
    if weights.folder is not None:
        return "download the model again into that folder, or set `model` to a folder that has it"
    command = f"hf download {weights.source} --revision {weights.revision} --local-dir FOLDER"
    return (
        f"download it where there is a network: `{command}`, then set `model` to FOLDER, or let "
        f"FOLDER be <weights>/{weights.source} and set {WEIGHTS_FOLDER_VARIABLE}=<weights>"
    )
