"""How long a text is for a painter, told by the painter's own tokenizers.

A fast tokenizer keeps truncation and padding as state that whoever uses it changes: while one
thread paints with truncation, another one that counts reads lengths that are cut. So counting has
tokenizers of its own, and needs no other part of the painter.
"""

import inspect
from typing import Any

from models.folders import pipeline_parts, read_json
from models.painting.config import PainterConfig
from models.painting.families import Reader, family_of
from models.painting.parts import load_pipeline_tokenizer, read_pipeline_index
from models.weights import Weights, require_marker, resolve_weights


class PipelineTokens:
    """Counts tokens as the text encoders that carry the text read them; threads may share it.

    Of several such encoders the one that takes more tokens counts. One that only sums a text up,
    as CLIP does beside T5, may cut it.

    Args:
        config: The painter; its tokenizers and the sizes of its text encoders are read.

    Raises:
        InputError: If the checkpoint or its tokenizers are missing, or it is no pipeline of a
            known family.
    """

    def __init__(self, config: PainterConfig) -> None:
        weights = resolve_weights(config.model, config.revision)
        index = read_pipeline_index(weights)
        family = family_of(index, weights.source)
        parts = set(pipeline_parts(index))
        reader = family.reads(parts)
        told = family.text_tokens(parts, config.text_tokens, weights.source)
        names = (reader.tokenizer,) if reader else family.clip
        self._tokenizers = [load_pipeline_tokenizer(weights, index, name) for name in names]
        self._max_tokens = told or min(
            _positions(weights, name, tokenizer)
            for name, tokenizer in zip(names, self._tokenizers, strict=True)
        )
        self._reader = reader
        self._shell = _shell(family.pipeline, reader, self._tokenizers)
        self._unread = reader.unread(self._shell) if reader else 0

    @property
    def max_tokens(self) -> int:
        """Longest text that the text encoders read, special tokens included."""
        return self._max_tokens

    def count_tokens(self, text: str) -> int:
        """Count a text's tokens, special tokens included."""
        if self._reader is not None and self._reader.frame is not None:
            text = self._reader.frame(self._shell, text)
        # Nothing here ever asks for truncation, so that no call changes what another one sees.
        counts = [len(each(text, verbose=False).input_ids) for each in self._tokenizers]
        return max(counts) - self._unread


def _shell(pipeline: str, reader: Reader | None, tokenizers: list[Any]) -> Any:
    """A pipeline of nothing but its tokenizer, where only it knows how texts are framed."""
    if reader is None or reader.frame is None:
        return None
    import diffusers

    kind = getattr(diffusers, pipeline)
    parts: dict[str, Any] = dict.fromkeys(inspect.signature(kind).parameters)
    return kind(**parts | {reader.tokenizer: tokenizers[0]})


def _positions(weights: Weights, part: str, tokenizer: Any) -> int:
    """How many tokens an encoder of CLIP has places for."""
    encoder = part.replace("tokenizer", "text_encoder")
    longest = tokenizer.model_max_length
    places = read_json(require_marker(weights, f"{encoder}/config.json")).get(
        "max_position_embeddings"
    )
    return min(longest, places if isinstance(places, int) else longest)
