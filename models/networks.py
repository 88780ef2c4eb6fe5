"""Networks of transformers, loaded whole or not at all."""

from typing import Any, Protocol, runtime_checkable

import torch

from models.weights import Weights, loading, read_json, require_marker, way_out
from storage.errors import InputError


@runtime_checkable
class _Network(Protocol):
    @classmethod
    def from_pretrained(cls, source: str, /, **options: Any) -> Any: ...


def load_network(network: type[_Network], weights: Weights, *, model_type: str, dtype: str) -> Any:
    """Load a `transformers` network, complete, for inference.

    Args:
        network: A class with `from_pretrained`.
        weights: Where the checkpoint is.
        model_type: What its `config.json` must say.
        dtype: Name of the arithmetic, as in `ModelConfig`.

    Raises:
        InputError: If the checkpoint is missing, damaged, of another architecture, or lacks
            parameters, which would stay at their random initial values.
    """
    from transformers.utils import logging as transformers_logging

    found = read_json(require_marker(weights, "config.json")).get("model_type")
    if found != model_type:
        message = f"weights in {weights.source!r} are of type {found!r}, expected {model_type!r}"
        raise InputError(message)
    transformers_logging.disable_progress_bar()
    with loading(weights):
        loaded, info = network.from_pretrained(
            weights.source,
            **weights.options,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
        )
    # Buffers such as index tables are computed; some versions store them and some do not.
    parameters = {name for name, _ in loaded.named_parameters()}
    missing = sorted(parameters.intersection(info["missing_keys"]))
    if missing:
        message = (
            f"weights in {weights.source!r} lack {len(missing)} parameters of the architecture, "
            f"{missing[0]!r} for one; {way_out(weights)}"
        )
        raise InputError(message)
    return loaded.eval()
