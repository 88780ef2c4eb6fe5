"""Released checkpoints: tensors read from a `.pth`, and put into a network whole or not at all."""

import logging
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.devices import is_out_of_memory
from models.loading import LOADING
from storage.errors import InputError

_log = logging.getLogger(__name__)

_WRAPPED = re.compile(r"^(?:(?:module|_orig_mod)\.)+")
_INSIDE = ("model", "state_dict")
_AGAIN = "download it again"


def load_checkpoint(network: nn.Module, path: Path) -> None:
    """Give a network all of its weights.

    Args:
        network: Of the package.
        path: The released file.

    Raises:
        InputError: If the file is damaged, holds more than tensors, or its tensors are not those of
            the network. What the network does not know is told in the log.
    """
    # torch warns of pickles that it then reads or refuses.
    with LOADING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = _tensors(_read(path), path)
    own = network.state_dict()
    _require_shapes(own, tensors, path)
    _require_all(own, tensors, path)
    left = sorted(tensors.keys() - own.keys())
    if left:
        _log.info("%s: %d tensors have no place in the network, %s", path, len(left), left[0])
    network.load_state_dict({name: tensors[name] for name in tensors if name in own}, strict=False)


def keeping_command(path: Path) -> str:
    """The command that keeps the tensors of a checkpoint alone; it runs what the file says."""
    statements = (
        "import torch",
        f"d = torch.load({str(path)!r}, map_location='cpu', weights_only=False)",
        f"torch.save({{'model': d['model']}}, {str(path)!r})",
    )
    return f'python -c "{"; ".join(statements)}"'


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not found:
            raise InputError(_damaged(path, error)) from error
        message = (
            f"checkpoint {str(path)!r} holds {found[1]!r} beside its tensors, expected tensors "
            "alone: the rest could run any code, and is not read. If you trust whoever made it, "
            f"keep the tensors: `{keeping_command(path)}`"
        )
        raise InputError(message) from error
    except Exception as error:
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise InputError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
    if isinstance(error, pickle.UnpicklingError):  # which advises to read it without care
        reason = "no tensors in it"
    return (
        f"checkpoint {str(path)!r} cannot be read ({reason.rstrip('.')}), expected a file that "
        f"torch has saved; {_AGAIN}"
    )


def _tensors(saved: Any, path: Path) -> dict[str, Tensor]:
    for name in _INSIDE:
        if isinstance(saved, dict) and isinstance(saved.get(name), dict):
            saved = saved[name]
    if isinstance(saved, dict):
        tensors = {n: t for n, t in saved.items() if isinstance(n, str) and isinstance(t, Tensor)}
        if tensors:
            return {_WRAPPED.sub("", name): tensor for name, tensor in tensors.items()}
    message = (
        f"checkpoint {str(path)!r} holds no named tensors, expected the weights of a network or "
        f"'model' with them; {_AGAIN}"
    )
    raise InputError(message)


def _require_shapes(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    for name in sorted(own.keys() & tensors.keys()):
        found, expected = tuple(tensors[name].shape), tuple(own[name].shape)
        if found != expected:
            message = (
                f"checkpoint {str(path)!r} has {name!r} of shape {found}, expected {expected}; set "
                "`architecture` to that of the checkpoint"
            )
            raise InputError(message)


def _require_all(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse what would stay random; a tensor under two names may be stored under one."""
    given = set(_places(own[name] for name in own.keys() & tensors.keys()))
    lacking = sorted(
        name
        for name, tensor in own.items()
        if tensor.is_floating_point() and set(_places([tensor])) - given
    )
    if lacking:
        message = (
            f"checkpoint {str(path)!r} lacks {len(lacking)} tensors of the network, {lacking[0]!r} "
            f"for one; {_AGAIN}, or set `architecture` to that of the checkpoint"
        )
        raise InputError(message)


def _places(tensors: Iterable[Tensor]) -> Iterable[int]:
    return (tensor.data_ptr() for tensor in tensors if tensor.numel())
