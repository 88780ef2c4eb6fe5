"""Parts of a pipeline, each loaded by itself: the library would not say what one lacks."""

import inspect
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from models.folders import PIPELINE_INDEX, pipeline_parts, read_json
from models.networks import load_part
from models.processors import load_whole_tokenizer, require_fit
from models.weights import Weights, loading, require_marker
from storage.errors import InputError

_LIBRARIES = {
    "diffusers": "diffusers",
    "transformers": "transformers",
    "stable_diffusion": "diffusers.pipelines.stable_diffusion",
}
_SWITCHED_OFF = ("requires_safety_checker", "add_watermarker")


def read_pipeline_index(weights: Weights) -> dict[str, Any]:
    """Read what a pipeline is made of.

    Raises:
        InputError: If its index is missing or damaged.
    """
    return read_json(require_marker(weights, PIPELINE_INDEX))


def part_class(index: dict[str, Any], part: str) -> Any:
    """The class of a part.

    Raises:
        InputError: If the index names none, or one that the library does not have.
    """
    library, name = _named(index, part)
    found = (
        getattr(import_module(_LIBRARIES[library]), name, None) if library in _LIBRARIES else None
    )
    if found is None:
        message = (
            f"{PIPELINE_INDEX} says {part!r} is {name!r} of {library!r}, which is not known; "
            "expected a class of diffusers or transformers"
        )
        raise InputError(message)
    return found


def load_pipeline_tokenizer(weights: Weights, index: dict[str, Any], part: str) -> Any:
    """Load a tokenizer that a pipeline's index names.

    Raises:
        InputError: If the index names none, or its vocabulary is missing or damaged.
    """
    _, name = _named(index, part)
    return load_whole_tokenizer(weights, name, part=part, marker=PIPELINE_INDEX)


def load_parts(
    weights: Weights, index: dict[str, Any], parts: Iterable[str], *, dtype: str
) -> dict[str, Any]:
    """Load parts of a pipeline, whole or not at all.

    Args:
        weights: Where the pipeline is.
        index: Contents of its index.
        parts: Names of parts: networks, schedulers, and tokenizers with the encoders they are for.
        dtype: Name of the arithmetic of the networks, as in `ModelConfig`.

    Raises:
        InputError: If a part is not in the index, is missing, damaged, or lacks tensors, or if an
            encoder does not know all the words of its tokenizer.
    """
    loaded = {part: _load(weights, index, part, dtype) for part in parts}
    for part in [name for name in loaded if name.startswith("tokenizer")]:
        encoder = loaded.get(part.replace("tokenizer", "text_encoder"))
        if encoder is not None:
            rows = encoder.get_input_embeddings().num_embeddings
            require_fit(loaded[part], rows, weights)
    return loaded


def assemble(make: Any, weights: Weights, index: dict[str, Any], parts: dict[str, Any]) -> Any:
    """Make a pipeline of loaded parts; what it could have besides, it has not.

    Args:
        make: Its class.
        weights: Where the parts are from.
        index: Contents of the index; its settings are the pipeline's.
        parts: What `load_parts` gave.

    Raises:
        InputError: If the parts do not fit together.
    """
    known = inspect.signature(make).parameters
    absent = {name: None for name, each in known.items() if each.default is inspect.Parameter.empty}
    settings = {name: index[name] for name in known if isinstance(index.get(name), bool)}
    switched_off = {name: False for name in _SWITCHED_OFF if name in known}
    with loading(weights):
        pipeline = make(**(absent | settings | switched_off | parts))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _load(weights: Weights, index: dict[str, Any], part: str, dtype: str) -> Any:
    if part.startswith("tokenizer"):
        return load_pipeline_tokenizer(weights, index, part)
    kind = part_class(index, part)
    if part.startswith("scheduler"):
        with loading(weights, part):
            return kind.from_pretrained(weights.source, subfolder=part, **weights.options)
    return load_part(kind, weights, dtype=dtype, part=part)


def _named(index: dict[str, Any], part: str) -> tuple[str, str]:
    """Library and name of the class of a part."""
    if part not in set(pipeline_parts(index)):
        message = (
            f"{PIPELINE_INDEX} says {part!r} is {index.get(part)!r}, expected a library and "
            "a class; download the model again"
        )
        raise InputError(message)
    library, name = index[part]
    return library, name
