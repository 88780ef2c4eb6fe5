"""Detectors of `transformers` that are asked for a closed set of phrases."""

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from models.arithmetic import keep_in_float32, rounding_of
from models.devices import pick_device
from models.labelling.captions import Caption
from models.labelling.config import DetectorConfig, MmGroundingDinoConfig
from models.labelling.span_detector import SpanDetector, TokenScores
from models.networks import load_network
from models.processors import load_image_processor, load_whole_tokenizer, require_fit
from models.threads import in_threads
from models.weights import resolve_weights
from storage.errors import InputError

_log = logging.getLogger(__name__)

_HALF_SINCE = 5
"""Release of transformers whose MM-Grounding-DINO keeps to one arithmetic."""


class GroundingDino(SpanDetector):
    """Grounding DINO of `transformers`.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If the checkpoint is missing, incomplete, or of another architecture.
    """

    def __init__(self, config: DetectorConfig) -> None:
        from transformers import GroundingDinoForObjectDetection

        super().__init__(config, _Network(config, GroundingDinoForObjectDetection))


class MmGroundingDino(SpanDetector):
    """MM-Grounding-DINO of `transformers`: the same network, trained by others on more.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If the checkpoint is missing, incomplete, or of another architecture, or the
            installed transformers computes it in float32 alone.
    """

    def __init__(self, config: MmGroundingDinoConfig) -> None:
        from transformers import MMGroundingDinoForObjectDetection

        _require_half_precision(config.dtype)
        super().__init__(config, _Network(config, MMGroundingDinoForObjectDetection))


class _Network:
    """The network with its processors.

    Args:
        config: Checkpoint and arithmetic.
        architecture: Its class.
    """

    def __init__(
        self, config: DetectorConfig | MmGroundingDinoConfig, architecture: type[Any]
    ) -> None:
        self._dtype = config.dtype
        self._device = pick_device(config.device)
        weights = resolve_weights(config.model, config.revision)
        network = load_network(architecture, weights, model_type=config.kind, dtype=config.dtype)
        if network.dtype != torch.float32:
            _find_places_in_float32(network)
        self._kind = network.dtype
        self._network: Any = network.to(self._device)
        self._images: Any = load_image_processor(weights, "GroundingDinoImageProcessor")
        self.tokenizer: Any = load_whole_tokenizer(weights, "BertTokenizer")
        require_fit(self.tokenizer, network.config.text_config.vocab_size, weights)
        _log.info("detector %s loaded from %s", config.model, weights.source)

    @property
    def max_tokens(self) -> int:
        """Longest caption that the network reads."""
        return self._network.config.max_text_len

    @torch.inference_mode()
    def score(
        self, pictures: Sequence[Image.Image], captions: Sequence[Caption]
    ) -> list[TokenScores]:
        """Score each caption on its picture."""
        pixels = self._pixels(pictures)
        tokens = self.tokenizer.pad(
            {"input_ids": [caption.token_ids for caption in captions]},
            return_tensors="pt",
            verbose=False,
        )
        with rounding_of(self._dtype, self._device):
            outputs = self._network(
                pixel_values=pixels["pixel_values"].to(self._device, self._kind),
                pixel_mask=pixels["pixel_mask"].to(self._device),
                input_ids=tokens["input_ids"].to(self._device),
                attention_mask=tokens["attention_mask"].to(self._device),
            )
        scores = outputs.logits.float().sigmoid().cpu().numpy()
        boxes = outputs.pred_boxes.float().cpu().numpy()
        return [TokenScores(*own) for own in zip(scores, boxes, strict=True)]

    def _pixels(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Prepare pictures of one size, each by itself."""
        prepared = in_threads(lambda own: self._images(images=[own], return_tensors="pt"), pictures)
        return {
            name: torch.cat([own[name] for own in prepared])
            for name in ("pixel_values", "pixel_mask")
        }


def _require_half_precision(dtype: str) -> None:
    """Refuse half precision where the library mixes it with float32 inside the network."""
    found = version("transformers")
    if dtype in {"float16", "bfloat16"} and int(found.partition(".")[0]) < _HALF_SINCE:
        message = (
            f"dtype {dtype!r} of mm-grounding-dino needs transformers {_HALF_SINCE} or later, "
            f"found {found}, which computes it in float32 alone; set `dtype: float32`"
        )
        raise InputError(message)


def _find_places_in_float32(network: Any) -> None:
    """Refine boxes in float32: in half precision each step would round them by a pixel or two."""
    keep_in_float32(network.model.decoder)
    for head in (*network.bbox_embed, *network.class_embed):
        keep_in_float32(head)
