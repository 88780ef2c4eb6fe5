"""The safety checker of a checkpoint, asked about pictures that are bytes already.

The pipeline itself turns each batch into pictures a second time, one after the other on one core,
and that takes longer than the checker's network. What the network sees is the same.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from models.threads import in_threads


class SafetyChecker:
    """Says which pictures a checkpoint's safety checker flags.

    Args:
        network: The checker.
        extractor: What turns a picture into its input.
    """

    def __init__(self, network: Any, extractor: Any) -> None:
        self._network = network
        self._extractor = extractor

    @torch.inference_mode()
    def flagged(self, pictures: UInt8[np.ndarray, "pictures height width 3"]) -> list[bool]:
        """Judge each picture.

        Args:
            pictures: RGB.
        """
        inputs = torch.cat(in_threads(self._input, list(pictures)))
        place = next(self._network.parameters())
        # It blackens what it flags in the pictures that it is given; ours are no part of it.
        blackened = torch.zeros(len(pictures), 1)
        _, found = self._network(images=blackened, clip_input=inputs.to(place.device, place.dtype))
        return [bool(flag) for flag in found]

    def _input(self, picture: np.ndarray) -> torch.Tensor:
        return self._extractor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
