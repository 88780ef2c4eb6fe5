"""How long a text is for a painter, told by the painter's own tokenizer.

A fast tokenizer keeps truncation and padding as state that whoever uses it changes: while one
thread paints with truncation, another one that counts reads lengths that are cut. So counting has
a tokenizer of its own, and needs no other part of the painter.
"""

from typing import Any

from models.folders import pipeline_parts, read_json
from models.painting.config import PainterConfig
from models.processors import load_whole_tokenizer
from models.weights import Weights, require_marker, resolve_weights
from storage.errors import InputError

_PIPELINE = "StableDiffusionPipeline"


class PipelineTokens:
    """Counts tokens as a diffusion pipeline's first text encoder reads them; threads may share it.

    Args:
        config: The painter; its tokenizer and the size of its text encoder are read.

    Raises:
        InputError: If the checkpoint or its tokenizer is missing, or it is no Stable Diffusion
            pipeline.
    """

    def __init__(self, config: PainterConfig) -> None:
        weights = resolve_weights(config.model, config.revision)
        self._tokenizer: Any = pipeline_tokenizer(weights, read_pipeline_index(weights))
        encoder = read_json(require_marker(weights, "text_encoder/config.json"))
        longest = self._tokenizer.model_max_length
        positions = encoder.get("max_position_embeddings", longest)
        self._max_tokens = min(longest, positions if isinstance(positions, int) else longest)

    @property
    def max_tokens(self) -> int:
        """Longest text that the text encoder reads, special tokens included."""
        return self._max_tokens

    def count_tokens(self, text: str) -> int:
        """Count a text's tokens, special tokens included."""
        # Nothing here ever asks for truncation, so that no call changes what another one sees.
        return len(self._tokenizer(text, verbose=False).input_ids)


def read_pipeline_index(weights: Weights) -> dict[str, Any]:
    """Read what a pipeline is made of.

    Raises:
        InputError: If it is missing, or no Stable Diffusion pipeline.
    """
    index = read_json(require_marker(weights, PainterConfig.marker))
    if index.get("_class_name") != _PIPELINE:
        message = (
            f"painter {weights.source!r} is a {index.get('_class_name')}, expected a {_PIPELINE}"
        )
        raise InputError(message)
    return index


def pipeline_tokenizer(weights: Weights, index: dict[str, Any]) -> Any:
    """Load the tokenizer that a pipeline's index names.

    Raises:
        InputError: If the index names none, or its vocabulary is missing or damaged.
    """
    _, name = part_class(index, "tokenizer")
    return load_whole_tokenizer(weights, name, part="tokenizer", marker=PainterConfig.marker)


def part_class(index: dict[str, Any], part: str) -> tuple[str, str]:
    """Library and class of a part.

    Raises:
        InputError: If the index does not name them.
    """
    if part not in set(pipeline_parts(index)):
        message = (
            f"{PainterConfig.marker} says {part!r} is {index.get(part)!r}, expected a library and "
            "a class; download the model again"
        )
        raise InputError(message)
    library, name = index[part]
    return library, name
