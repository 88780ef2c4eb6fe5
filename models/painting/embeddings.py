"""Texts as a pipeline's network reads them, under the names by which its call takes them."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.painting.config import PainterConfig
from models.painting.families import call_defaults
from models.painting.pipelines import LoadedPipeline

_NEGATIVE = "negative_"
_INSTRUCTION = "complex_human_instruction"


class GuidingTexts:
    """Texts that guide a pipeline, embedded; what stands for no text is embedded once.

    Every text takes the same room, so that neither the company of a text nor its own length
    changes the shape of what the network sees. Z-Image alone cannot have it so: its network takes
    texts as long as they are.

    Args:
        loaded: The pipeline.
        config: Says how strongly texts guide, and how much of one is read.
    """

    def __init__(self, loaded: LoadedPipeline, config: PainterConfig) -> None:
        self._pipeline = loaded.pipeline
        self._family = loaded.family
        self._device = loaded.pipeline.device
        self._guidance = _guidance(loaded, config)
        self._length = loaded.text_tokens or 0
        self._options = self._how_to_encode()
        two_passes = config.guidance > 1 and not loaded.takes_guidance
        self._without_words = self._embed_nothing() if two_passes else {}

    def arguments(self, texts: Sequence[str]) -> dict[str, Any]:
        """What a call is told of texts and of how they guide.

        Args:
            texts: One a picture.
        """
        embedded = self._embed(list(texts), guided=False)
        nothing = {name: _repeated(each, len(texts)) for name, each in self._without_words.items()}
        return {**self._family.options, **self._guidance, **embedded, **nothing}

    @torch.inference_mode()
    def _embed(self, texts: list[str], *, guided: bool) -> dict[str, Any]:
        """Those of the texts, or of what stands for no text."""
        given = {"do_classifier_free_guidance": guided} if self._has_negatives else {}
        found = self._pipeline.encode_prompt(prompt=texts, **given, **self._options)
        named = dict(zip(self._family.returns, found, strict=False))
        kept = {
            name: each
            for name, each in named.items()
            if name and name.startswith(_NEGATIVE) == guided
        }
        return self._padded(kept, len(texts)) if self._family.pads else kept

    def _embed_nothing(self) -> dict[str, Any]:
        if self._has_negatives:
            return self._embed([self._family.unconditional], guided=True)
        found = self._embed([self._family.unconditional], guided=False)
        return {_NEGATIVE + name: each for name, each in found.items()}

    def _padded(self, embedded: dict[str, Any], count: int) -> dict[str, Any]:
        """Fill up with tokens that nothing attends to."""
        texts = embedded["prompt_embeds"]
        mask = embedded["prompt_embeds_mask"]
        if mask is None:  # none of them is shorter than the others
            mask = texts.new_ones(texts.shape[:2], dtype=torch.long)
        whole = texts.new_zeros(count, self._length, texts.shape[2])
        read = mask.new_zeros(count, self._length)
        whole[:, : texts.shape[1]] = texts
        read[:, : mask.shape[1]] = mask
        return {"prompt_embeds": whole, "prompt_embeds_mask": read}

    def _how_to_encode(self) -> dict[str, Any]:
        """Arguments of `encode_prompt`, as the pipeline's own call gives them."""
        known = inspect.signature(self._pipeline.encode_prompt).parameters
        told = {
            "device": self._device,
            "num_images_per_prompt": 1,
            _INSTRUCTION: call_defaults(self._pipeline).get(_INSTRUCTION),
            "prompt_2": None,
            "prompt_3": None,
        }
        if self._length:
            told |= {"max_sequence_length": self._length}
        return {name: each for name, each in told.items() if name in known}

    @property
    def _has_negatives(self) -> bool:
        known = inspect.signature(self._pipeline.encode_prompt).parameters
        return "do_classifier_free_guidance" in known


def _guidance(loaded: LoadedPipeline, config: PainterConfig) -> dict[str, float]:
    """How strongly texts guide: as an input of the network, by a second pass, or not at all."""
    family = loaded.family
    in_passes = {family.guidance: config.guidance if config.guidance > 1 else family.unguided}
    if not loaded.takes_guidance:
        return in_passes
    return {family.guidance: family.unguided, "guidance_scale": config.guidance}


def _repeated(embedded: Tensor | list[Tensor], count: int) -> Tensor | list[Tensor]:
    if isinstance(embedded, list):
        return embedded * count
    return embedded.expand(count, *embedded.shape[1:])
