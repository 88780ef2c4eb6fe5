"""SAM of `transformers`, prompted with boxes."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from models.arithmetic import rounding_of
from models.devices import pick_device
from models.labelling.box_segmenter import BoxSegmenter
from models.labelling.config import SegmenterConfig, compiled_batches
from models.labelling.sam_attention import attend_in_rows
from models.labelling.sam_parts import (
    PaddedSquares,
    compile_tower,
    normalise_as_trained,
    of_owners,
    place_in_float32,
)
from models.networks import load_network
from models.weights import resolve_weights

_log = logging.getLogger(__name__)


class Sam(BoxSegmenter):
    """SAM of `transformers`.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If the checkpoint is missing, incomplete, or of another architecture.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(config, _Network(config))


class _Network(PaddedSquares):
    """The network with its processor.

    Args:
        config: Checkpoint and arithmetic.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        from transformers import SamModel

        self._config = config
        self._device = pick_device(config.device)
        weights = resolve_weights(config.model, config.revision)
        network = load_network(SamModel, weights, model_type="sam", dtype=config.dtype)
        normalise_as_trained(network)
        attend_in_rows(network.vision_encoder)
        compile_tower(network.vision_encoder, compiled_batches(config, self._device))
        self._dtype = network.dtype
        place_in_float32(network, self._dtype)
        self._network: Any = network.to(self._device)
        super().__init__(weights, self._device)
        _log.info("segmenter %s loaded from %s", config.model, weights.source)

    def encode(self, pixels: Float32[Tensor, "images 3 side side"]) -> Sequence[Tensor]:
        """Encode images."""
        with rounding_of(self._config.dtype, self._device):
            return [self._network.get_image_embeddings(pixels.to(self._device, self._dtype))]

    def decode(
        self,
        encoded: Sequence[Tensor],
        owners: Int[np.ndarray, " boxes"],
        corners: Float32[np.ndarray, "boxes 4"],
    ) -> tuple[Float[Tensor, "boxes proposals rows columns"], Float[Tensor, "boxes proposals"]]:
        """Propose masks: each box is a row of the batch, with the encoding of its image."""
        [embeddings] = of_owners(encoded, owners)
        with rounding_of(self._config.dtype, self._device):
            outputs = self._network(
                image_embeddings=embeddings,
                input_boxes=torch.from_numpy(corners).to(self._device)[:, None],
                multimask_output=self._config.multimask,
            )
        return outputs.pred_masks[:, 0], outputs.iou_scores[:, 0]
