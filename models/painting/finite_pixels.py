"""Pixels that are numbers: seen where they leave the autoencoder, before they are clamped."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class FinitePixels:
    """Watches an autoencoder's decoder for pictures with values that are NaN or infinite.

    The pipeline clamps what the decoder gives, which makes white of infinities, and turns NaN into
    any grey level at all. Such a picture is painted zero; the others keep every bit.

    Args:
        decoder: What turns latents into pixels, one picture a row.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self._found: list[Bool[Tensor, " pictures"]] = []
        decoder.register_forward_hook(self._note)

    @property
    def finite(self) -> list[bool]:
        """Of each picture since `forget`; waits until the decoder is done."""
        return torch.cat(self._found).tolist()

    def forget(self) -> None:
        """Begin with a new batch."""
        self._found = []

    def _note(
        self, _decoder: nn.Module, _inputs: Any, pixels: Float[Tensor, "pictures 3 *pixels"]
    ) -> Float[Tensor, "pictures 3 *pixels"]:
        # Whether there are such pictures is not asked: the processor would wait for the answer.
        finite = pixels.isfinite().flatten(1).all(dim=1)
        self._found.append(finite)
        return pixels.where(finite.view(-1, *[1] * (pixels.ndim - 1)), 0.0)
