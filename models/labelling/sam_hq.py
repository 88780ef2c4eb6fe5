"""SAM-HQ of `transformers`, prompted with boxes: SAM with a token for fine borders."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from models.arithmetic import rounding_of
from models.devices import pick_device
from models.labelling.box_segmenter import BoxSegmenter, runs_of
from models.labelling.config import SamHqConfig, compiled_batches
from models.labelling.sam_attention import attend_in_rows
from models.labelling.sam_parts import (
    PaddedSquares,
    compile_tower,
    normalise_as_trained,
    place_in_float32,
)
from models.networks import load_network
from models.weights import resolve_weights

_log = logging.getLogger(__name__)


class SamHq(BoxSegmenter):
    """SAM-HQ of `transformers`: what its fine token says is added to the mask of SAM.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If the checkpoint is missing, incomplete, or of another architecture.
    """

    def __init__(self, config: SamHqConfig) -> None:
        super().__init__(config, _Network(config))


class _Network(PaddedSquares):
    """The network with its processor.

    Args:
        config: Checkpoint and arithmetic.
    """

    def __init__(self, config: SamHqConfig) -> None:
        from transformers import SamHQModel

        self._config = config
        self._device = pick_device(config.device)
        weights = resolve_weights(config.model, config.revision)
        network = load_network(SamHQModel, weights, model_type="sam_hq", dtype=config.dtype)
        normalise_as_trained(network)
        attend_in_rows(network.vision_encoder)
        compile_tower(network.vision_encoder, compiled_batches(config, self._device))
        network.mask_decoder.transformer.register_forward_hook(_hand_on_image, with_kwargs=True)
        self._dtype = network.dtype
        place_in_float32(network, self._dtype)
        self._network: Any = network.to(self._device)
        super().__init__(weights, self._device)
        _log.info("segmenter %s loaded from %s", config.model, weights.source)

    def encode(self, pixels: Float32[Tensor, "images 3 side side"]) -> Sequence[Tensor]:
        """Encode images; what the first global layer gives is for the fine token."""
        with rounding_of(self._config.dtype, self._device):
            embeddings, between = self._network.get_image_embeddings(
                pixels.to(self._device, self._dtype)
            )
        return [embeddings, between[0]]

    def decode(
        self,
        encoded: Sequence[Tensor],
        owners: Int[np.ndarray, " boxes"],
        corners: Float32[np.ndarray, "boxes 4"],
    ) -> tuple[Float[Tensor, "boxes proposals rows columns"], Float[Tensor, "boxes proposals"]]:
        """Propose masks, image by image: the decoder's work on an image is more than on a box."""
        boxes = torch.from_numpy(corners).to(self._device)
        with rounding_of(self._config.dtype, self._device):
            outputs = [
                self._network(
                    image_embeddings=encoded[0][owner : owner + 1],
                    intermediate_embeddings=[encoded[1][owner : owner + 1]],
                    input_boxes=boxes[None, own],
                    multimask_output=self._config.multimask,
                )
                for owner, own in runs_of(owners)
            ]
        masks = torch.cat([output.pred_masks[0] for output in outputs])
        return masks, torch.cat([output.iou_scores[0] for output in outputs])


def _hand_on_image(
    _: torch.nn.Module, _given: tuple[()], named: dict[str, Any], found: tuple[Tensor, Tensor]
) -> None:
    """Let the decoder make masks of what its transformer makes of the image, as SAM-HQ does.

    The decoder of transformers (4.57 to 5.23) drops that, and reads what it gave to the transformer
    instead, with rows and columns exchanged. So what it reads is put there. A decoder that does not
    drop it has no use for what is there.
    """
    read = named["image_embeddings"]
    read.copy_(found[1].transpose(2, 3).reshape(read.shape).transpose(2, 3))
