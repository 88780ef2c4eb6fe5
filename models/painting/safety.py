"""The safety checker of a checkpoint, asked about pictures that are bytes already.

The pipeline itself turns each batch into pictures a second time, one after the other on one core,
and that takes longer than the checker's network. What the network sees is the same.
"""

from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from models.preparation import ImagePreparation

_LIMITS = ("concept_embeds_weights", "special_care_embeds_weights")


class SafetyChecker:
    """Says which pictures a checkpoint's safety checker flags.

    Args:
        network: The checker.
        preparation: What turns pictures into its input.
    """

    def __init__(self, network: Any, preparation: ImagePreparation) -> None:
        self._network = network
        self._preparation = preparation
        weights = next(network.parameters())
        self._place = weights.device, weights.dtype
        for name in _LIMITS:  # asked for one by one, for each picture
            limits = getattr(network, name)
            limits.data = limits.data.cpu()

    @torch.inference_mode()
    def flagged(self, pictures: UInt8[Tensor, "pictures height width 3"]) -> list[bool]:
        """Judge each picture.

        Args:
            pictures: RGB, where they were painted.
        """
        inputs = self._preparation.prepare_painted(pictures)
        # It blackens what it flags in the pictures that it is given; ours are no part of it.
        blackened = torch.zeros(len(pictures), 1)
        _, found = self._network(images=blackened, clip_input=inputs.to(*self._place))
        return [bool(flag) for flag in found]
