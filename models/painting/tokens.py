"""How long a text is for a painter, told by the painter's own tokenizer.

A fast tokenizer keeps truncation and padding as state that whoever uses it changes: while one
thread paints with truncation, another one that counts reads lengths that are cut. So counting has
a tokenizer of its own, and needs no other part of the painter.
"""

from typing import Any

from models.painting.config import PainterConfig
from models.weights import (
    Weights,
    loading,
    read_json,
    require_marker,
    resolve_weights,
    way_out,
)
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
        import transformers

        weights = resolve_weights(config.model, config.revision)
        _, name = read_pipeline_index(weights)["tokenizer"]
        options = {**weights.options, "subfolder": "tokenizer"}
        with loading(weights):
            kind = getattr(transformers, name)
            self._tokenizer: Any = kind.from_pretrained(weights.source, **options)
        if len(self._tokenizer) <= len(self._tokenizer.all_special_ids):
            # Without its files the class makes an empty tokenizer instead of an error.
            message = (
                f"painter {weights.source!r} has no words in its tokenizer, expected its "
                f"vocabulary: {way_out(weights)}"
            )
            raise InputError(message)
        encoder = read_json(require_marker(weights, "text_encoder/config.json"))
        longest = self._tokenizer.model_max_length
        self._max_tokens = min(longest, encoder.get("max_position_embeddings", longest))

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
