"""Detectors of `transformers` that are asked for a closed set of phrases."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from models.arithmetic import keep_in_float32, rounding_of
from models.devices import pick_device
from models.labelling.captions import Caption
from models.labelling.config import DetectorConfig, MmGroundingDinoConfig, compiled_batches
from models.labelling.deformable_attention import attend_to_points
from models.labelling.span_detector import SpanDetector, TokenScores
from models.networks import load_network
from models.preparation import ImagePreparation
from models.processors import load_whole_tokenizer, require_fit
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
        _take_what_was_seen(network.model.backbone)
        attend_to_points(network, compiled_batches(config, self._device))
        self._network: Any = network.to(self._device)
        self._images = ImagePreparation(weights, "GroundingDinoImageProcessor", self._device)
        self.tokenizer: Any = load_whole_tokenizer(weights, "BertTokenizer")
        require_fit(self.tokenizer, network.config.text_config.vocab_size, weights)
        _log.info("detector %s loaded from %s", config.model, weights.source)

    @property
    def max_tokens(self) -> int:
        """Longest caption that the network reads."""
        return self._network.config.max_text_len

    @torch.inference_mode()
    def encode(self, images: Sequence[UInt8[np.ndarray, "height width 3"]]) -> "list[_Seen]":
        """Look at images of one size with the image tower."""
        prepared = self._images.prepare(images)
        pixels = torch.cat([own.pixels for own in prepared])
        shape = (len(images), *pixels.shape[2:])
        mask = torch.zeros(shape, dtype=torch.int64, device=pixels.device)
        for own, picture in zip(mask, prepared, strict=True):
            own[: picture.inside[0], : picture.inside[1]] = 1
        with rounding_of(self._dtype, self._device):
            levels, places = self._network.model.backbone(pixels.to(self._device, self._kind), mask)
        seen = _Seen(
            tuple(features for features, _ in levels),
            tuple(inside for _, inside in levels),
            tuple(places),
            mask,
        )
        return [seen.alone(row) for row in range(len(images))]

    @torch.inference_mode()
    def score(self, encoded: "Sequence[_Seen]", captions: Sequence[Caption]) -> list[TokenScores]:
        """Score each caption on its image."""
        seen = _Seen.together(encoded)
        tokens = self.tokenizer.pad(
            {"input_ids": [caption.token_ids for caption in captions]},
            return_tensors="pt",
            verbose=False,
        )
        with rounding_of(self._dtype, self._device):
            outputs = self._network(
                pixel_values=seen,
                pixel_mask=seen.mask,
                input_ids=tokens["input_ids"].to(self._device),
                attention_mask=tokens["attention_mask"].to(self._device),
            )
        scores = outputs.logits.float().sigmoid().cpu().numpy()
        boxes = outputs.pred_boxes.float().cpu().numpy()
        return [TokenScores(*own) for own in zip(scores, boxes, strict=True)]


@dataclass(frozen=True)
class _Seen:
    """What the image tower makes of images: given to the network in place of their pixels.

    Attributes:
        maps: Features, coarser from one to the next.
        inside: Which of their cells are of the image.
        places: Where each cell is, in waves.
        mask: 1 where the pixels that were prepared are of the image.
    """

    maps: tuple[Float[Tensor, "images _ _ _"], ...]
    inside: tuple[Bool[Tensor, "images _ _"], ...]
    places: tuple[Float[Tensor, "images _ _ _"], ...]
    mask: Int64[Tensor, "images height width"]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """What the network asks its pixels for."""
        images, height, width = self.mask.shape
        return images, 3, height, width

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.mask.device

    def alone(self, row: int) -> "_Seen":
        """One of the images."""
        own = slice(row, row + 1)
        return _Seen(
            tuple(part[own] for part in self.maps),
            tuple(part[own] for part in self.inside),
            tuple(part[own] for part in self.places),
            self.mask[own],
        )

    @classmethod
    def together(cls, seen: "Sequence[_Seen]") -> "_Seen":
        """Several as one batch."""
        return cls(
            _joined(one.maps for one in seen),
            _joined(one.inside for one in seen),
            _joined(one.places for one in seen),
            torch.cat([one.mask for one in seen]),
        )


def _joined(levels: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(same) for same in zip(*levels, strict=True))


def _take_what_was_seen(tower: Any) -> None:
    """Let an image tower hand on what it made of images before, as many times as it is asked.

    The network calls its tower on its pixels, and uses these for nothing else but their shape.
    """
    look = tower.forward

    def forward(pixels: Any, mask: Tensor) -> Any:
        if not isinstance(pixels, _Seen):
            return look(pixels, mask)
        # The network adds to the list of places.
        return list(zip(pixels.maps, pixels.inside, strict=True)), list(pixels.places)

    tower.forward = forward


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
