"""The safety checker of a checkpoint, asked about pictures that are bytes already.

The pipeline itself turns each batch into pictures a second time, one after the other on one core,
and that takes longer than the checker's network. What the network sees is the same.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from models.preparation import ImagePreparation


class SafetyChecker:
    """Says which pictures a checkpoint's safety checker flags.

    Args:
        network: The checker.
        preparation: What turns pictures into its input.
    """

    def __init__(self, network: Any, preparation: ImagePreparation) -> None:
        self._network = network
        self._preparation = preparation

    @torch.inference_mode()
    def flagged(self, pictures: UInt8[np.ndarray, "pictures height width 3"]) -> list[bool]:
        """Judge each picture.

        Args:
            pictures: RGB.
        """
        prepared = self._preparation.prepare(list(pictures))
        inputs = torch.cat([own.pixels for own in prepared])
        place = next(self._network.parameters())
        # It blackens what it flags in the pictures that it is given; ours are no part of it.
        blackened = torch.zeros(len(pictures), 1)
        _, found = self._network(images=blackened, clip_input=inputs.to(place.device, place.dtype))
        return [bool(flag) for flag in found]
