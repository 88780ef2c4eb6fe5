"""Folders of original checkpoints: the weights in one `.pth`, and what the network needs besides.

Nothing here reads a tensor or runs a line of what lies in the folder.
"""

import ast
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from models.folders import NETWORK_CONFIG, read_json, refuse_pointer, require_vocabulary
from storage.errors import InputError
from storage.paths import local_path

_TEXT_ENCODER = "bert"
_VOCABULARY = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def original_folder(model: str) -> Path:
    """The folder that a profile names.

    Raises:
        InputError: If it is none.
    """
    folder = local_path(model, "the folder of the checkpoint")
    if not folder.is_dir():
        found = "a single file" if folder.is_file() else "no existing folder"
        message = (
            f"original weights {model!r} are {found}, expected a folder that holds the released "
            "checkpoint (.pth); put it into a folder of its own, and set `model` to that"
        )
        raise InputError(message)
    return folder


def find_checkpoint(folder: Path) -> Path:
    """The one file of weights in a folder.

    Raises:
        InputError: If there is none or there are several, or it is empty or Git LFS's pointer.
    """
    path = _only(folder, sorted(folder.glob("*.pth")), "checkpoint (.pth)")
    refuse_pointer(path)
    if not path.stat().st_size:
        message = f"checkpoint {str(path)!r} is empty; download it again"
        raise InputError(message)
    return path


def find_settings(folder: Path) -> Path:
    """The one file of settings in a folder, of the form that `groundingdino` has.

    Raises:
        InputError: If there is none, or there are several.
    """
    return _only(folder, sorted(folder.glob("*.py")), "file of settings (.py)")


def find_text_encoder(folder: Path) -> Path:
    """The folder in a folder that has the settings and the vocabulary of BERT.

    Raises:
        InputError: If there is none or there are several, or one of another network, or something
            is missing in it.
    """
    own = _only(
        folder,
        sorted(path.parent for path in folder.glob(f"*/{NETWORK_CONFIG}")),
        f"folder of the text encoder ({NETWORK_CONFIG} and vocabulary of bert-base-uncased)",
    )
    found = read_json(own / NETWORK_CONFIG).get("model_type")
    if found != _TEXT_ENCODER:
        message = (
            f"{NETWORK_CONFIG} of {str(own)!r} is of type {found!r}, expected {_TEXT_ENCODER!r}; "
            "the text encoder of Grounding DINO is bert-base-uncased"
        )
        raise InputError(message)
    require_vocabulary(own)
    return own


def files_of_text_encoder(folder: Path) -> list[Path]:
    """What of a text encoder's folder the outputs depend on; its weights are in the checkpoint."""
    return [path for name in (NETWORK_CONFIG, *_VOCABULARY) if (path := folder / name).is_file()]


def digest_of(folder: Path, files: Sequence[Path]) -> str:
    """Name files so that equal names mean equal contents; kept in memory until one changes.

    Args:
        folder: Names are relative to it.
        files: Below it.
    """
    stats = ((path, path.stat()) for path in sorted(files))
    return _digest(str(folder), tuple((str(p), s.st_size, s.st_mtime_ns) for p, s in stats))


def read_settings(path: Path) -> dict[str, Any]:
    """Read a file of settings, lines of `name = value`, without running it.

    Raises:
        InputError: If it is no such file.
    """
    try:
        lines = ast.parse(path.read_text(encoding="utf-8")).body
        return dict(_assignment(line) for line in lines if not _is_remark(line))
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        message = (
            f"settings {str(path)!r} cannot be read ({error}), expected lines of `name = value`; "
            "they are read and not run: write the values out"
        )
        raise InputError(message) from error


@lru_cache(maxsize=32)
def _digest(folder: str, signature: tuple[tuple[str, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for name, _, _ in signature:
        with Path(name).open("rb") as file:
            contents = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{Path(name).relative_to(folder).as_posix()} {contents}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _only(folder: Path, found: list[Path], what: str) -> Path:
    if len(found) != 1:
        names = ", ".join(repr(path.name) for path in found) or "none"
        message = f"folder {str(folder)!r} holds {names}, expected one {what}"
        raise InputError(message)
    return found[0]


def _is_remark(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def _assignment(line: ast.stmt) -> tuple[str, Any]:
    match line:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name, ast.literal_eval(line.value)
    message = f"line {line.lineno} is no `name = value`"
    raise ValueError(message)
