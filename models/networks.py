"""Networks of transformers and diffusers, loaded whole or not at all."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from models.arithmetic import torch_dtype
from models.folders import WeightFiles, require_network
from models.weights import Weights, loading, require_model_type, way_out
from storage.errors import InputError

_log = logging.getLogger(__name__)

_WRAPPED = re.compile(r"^(?:(?:module|_orig_mod)\.)+")
# What a release of transformers calls otherwise than the release that wrote the file; transformers
# 5 reads the names of 4, and 4 needs to be told those of 5.
_RENAMED = {
    r"^(embeddings|encoder|final_layer_norm)\.": r"text_model.\1.",
    r"^vision_model\.(?!vision_model\.)": "vision_model.vision_model.",
    r"^(?:detector_model\.)?text_encoder\.(?=(?:embeddings|encoder|final_layer_norm)\.)": (
        "text_encoder.text_model."
    ),
}
# Tables of indices that some releases store and some do not, and a norm that no network uses.
_WITHOUT_EFFECT = re.compile(
    r"(?:^|\.)(?:position_ids|relative_position_index|num_batches_tracked)$"
    r"|\.swin\.layernorm\.(?:weight|bias)$"
)


@runtime_checkable
class _Network(Protocol):
    @classmethod
    def from_pretrained(cls, source: str, /, **options: Any) -> Any: ...


def load_network(
    network: type[_Network],
    weights: Weights,
    *,
    model_type: str | tuple[str, ...],
    dtype: str,
    **options: Any,
) -> Any:
    """Load a `transformers` network, complete, for inference.

    Args:
        network: A class with `from_pretrained`.
        weights: Where the checkpoint is.
        model_type: What its `config.json` must say; of several the first is what is expected.
        dtype: Name of the arithmetic, as in `ModelConfig`.
        options: More of what `from_pretrained` takes.

    Raises:
        InputError: If the checkpoint is missing, damaged, of another architecture, or lacks
            tensors, which would stay at their random initial values.
    """
    require_model_type(weights, *([model_type] if isinstance(model_type, str) else model_type))
    return load_part(network, weights, dtype=dtype, **options)


def load_part(
    network: type[_Network],
    weights: Weights,
    *,
    dtype: str,
    part: str = "",
    fresh: str = "",
    **options: Any,
) -> Any:
    """Load a network of transformers or diffusers, complete, for inference.

    Args:
        network: A class with `from_pretrained`.
        weights: Where the checkpoint is.
        dtype: Name of the arithmetic, as in `ModelConfig`.
        part: Its folder in a pipeline; empty for a network of its own.
        fresh: Dotted part of the names of tensors that may be missing, and start as new ones do.
        options: More of what `from_pretrained` takes.

    Raises:
        InputError: If it is missing, damaged, or lacks tensors, which would stay at their random
            initial values. Tensors that the network does not know are told in the log.
    """
    files = require_network(weights.folder, part) if weights.folder is not None else None
    options |= {**weights.options, **(files.options if files else {})}
    options |= {_dtype_name(network): torch_dtype(dtype)}
    if part:
        options |= {"subfolder": part}
    with loading(weights, part, str(files or "")), _quiet():
        loaded, info = _load(network, weights.source, options)
    missing = {name for name in info["missing_keys"] if not fresh or fresh not in name}
    _refuse_missing(loaded, {**info, "missing_keys": missing}, weights, part, files)
    unexpected = sorted(n for n in info["unexpected_keys"] if not _WITHOUT_EFFECT.search(n))
    if unexpected:
        _log.warning(
            "%s of %s: %d tensors have no place in the network and are not used, %s for one",
            part or "weights",
            weights.source,
            len(unexpected),
            unexpected[0],
        )
    return loaded.eval()


def _load(
    network: type[_Network], source: str, options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Load; a second time with other names if the file has those of another release."""
    loaded, info = network.from_pretrained(source, **options, output_loading_info=True)
    renamed = _renamed(set(info["missing_keys"]), set(info["unexpected_keys"]))
    if not renamed or _is_of_diffusers(network):
        return loaded, info
    return network.from_pretrained(source, **options, output_loading_info=True, key_mapping=renamed)


def _renamed(missing: set[str], unexpected: set[str]) -> dict[str, str]:
    """The patterns, with their replacements, by which what is unexpected is what is missing."""
    if not missing:
        return {}
    if any(_WRAPPED.match(name) for name in unexpected):
        return {_WRAPPED.pattern: ""}
    return {
        pattern: replacement
        for pattern, replacement in _RENAMED.items()
        if any(re.sub(pattern, replacement, name) in missing for name in unexpected)
    }


def _refuse_missing(
    loaded: Any,
    info: Mapping[str, Any],
    weights: Weights,
    part: str,
    files: WeightFiles | None,
) -> None:
    where = f"{part!r} of {weights.source!r}" if part else repr(weights.source)
    where += f" ({files})" if files else ""
    lacking = _lacking(loaded, set(info["missing_keys"]))
    if lacking and any(_WRAPPED.match(name) for name in info["unexpected_keys"]):
        raise InputError(_wrapped(where, min(info["unexpected_keys"]), files))
    if lacking:
        message = (
            f"weights in {where} lack {len(lacking)} parameters of the architecture, "
            f"{lacking[0]!r} for one; {way_out(weights)}"
        )
        raise InputError(message)
    if info["mismatched_keys"]:
        name, *shapes = min(info["mismatched_keys"])
        message = (
            f"weights in {where} have {name!r} in another shape than the architecture, "
            f"{' instead of '.join(str(tuple(shape)) for shape in shapes)}; {way_out(weights)}"
        )
        raise InputError(message)


def _lacking(loaded: Any, missing: set[str]) -> list[str]:
    """What is missing and would be random; tables of integers are computed."""
    tensors: dict[str, Tensor] = dict(loaded.named_parameters(remove_duplicate=False))
    tensors |= dict(loaded.named_buffers(remove_duplicate=False))
    return sorted(name for name in missing & tensors.keys() if tensors[name].is_floating_point())


def _wrapped(where: str, name: str, files: WeightFiles | None) -> str:
    prefix = name.removesuffix(_WRAPPED.sub("", name))
    message = (
        f"weights in {where} are named {name!r}, as a wrapper for training or compiling saves "
        f"them, expected names without {prefix!r}"
    )
    held_in = files.files if files is not None else ()
    if len(held_in) != 1:
        return f"{message}; save the network inside the wrapper"
    return f"{message}; rename them: `{unwrapping_command(str(held_in[0]), prefix)}`"


def unwrapping_command(file: str, prefix: str) -> str:
    """The command that takes a prefix from the names of a weights file, in place."""
    if file.endswith(".safetensors"):
        reading = "from safetensors.torch import load_file as r, save_file as w"
        writing = f"w(d, {file!r}, {{'format': 'pt'}})"
    else:
        reading = "from torch import load as r, save as w"
        writing = f"w(d, {file!r})"
    renaming = f"d = {{n.removeprefix({prefix!r}): t for n, t in r({file!r}).items()}}"
    return f'python -c "{reading}; {renaming}; {writing}"'


def _is_of_diffusers(network: type[Any]) -> bool:
    from diffusers.models.modeling_utils import ModelMixin

    return issubclass(network, ModelMixin)


def _dtype_name(network: type[Any]) -> str:
    return "torch_dtype" if _is_of_diffusers(network) else "dtype"


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave it to us to say what is missing: the libraries advise to train the network."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    before = [library.get_verbosity() for library in (transformers_logging, diffusers_logging)]
    transformers_logging.set_verbosity_error()
    diffusers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before[0])
        diffusers_logging.set_verbosity(before[1])
