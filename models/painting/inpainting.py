"""Inpainters: a region of an image is painted over, so that it fits the image around it."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from models.devices import pick_device
from models.painting.brush import Brush, full_batches
from models.painting.config import InpainterConfig
from models.painting.families import FAMILIES, INPAINTING, REPAINTING
from models.painting.holding import as_pixels, held_to
from models.painting.pipelines import load_pipeline
from models.protocols import InpaintRequest, PaintedImage

_FAMILIES = {**{name: FAMILIES[name] for name in REPAINTING}, **INPAINTING}


class DiffusionInpainter:
    """Paints regions over with a checkpoint for inpainting, or with an ordinary one.

    An ordinary one is held to the image: after each step, all latents outside the region are those
    of the image with the noise of that step. A picture depends on its own request alone: its noise
    is drawn in float32 on the CPU from a generator of its own, and every batch is filled up.

    Args:
        config: Checkpoint and sampling.

    Raises:
        InputError: If the checkpoint is missing, is no pipeline of a family that can do this, or
            cannot paint as it is asked to.
    """

    def __init__(self, config: InpainterConfig) -> None:
        self.config = config
        loaded = load_pipeline(config, pick_device(config.device), _FAMILIES)
        self._brush = Brush(loaded, config)
        self._sees_images = loaded.family.pipeline in INPAINTING
        self._factor: int = loaded.pipeline.vae_scale_factor

    def inpaint(self, requests: Sequence[InpaintRequest]) -> list[PaintedImage]:
        """Paint each region over, in order.

        Args:
            requests: What to paint; a text that is too long for the text encoders is cut.

        Returns:
            Pictures of the images' sizes; those that the safety checker flagged are black. Outside
            its region a picture is what the autoencoder makes of the image.

        Raises:
            InputError: If an image is of a size that the checkpoint cannot paint.
        """
        painted: list[PaintedImage] = []
        for size, alike in groupby(requests, key=lambda request: request.region.shape):
            for batch, count in full_batches(list(alike), self.config.batch_size):
                painted += self._paint_batch(batch, (size[0], size[1]))[:count]
        return painted

    @torch.inference_mode()
    def _paint_batch(
        self, batch: Sequence[InpaintRequest], size: tuple[int, int]
    ) -> list[PaintedImage]:
        shape = self._brush.loaded.latent_shape(self.config.model, size, self._noise_channels)
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in batch]
        noises = [torch.randn(shape, generator=generator) for generator in generators]
        images = np.stack([request.image for request in batch])
        pixels = as_pixels(torch.from_numpy(images))
        regions = torch.from_numpy(np.stack([request.region for request in batch]))
        # Every latent that has a pixel in the region: what is left out could not be painted over.
        cells = max_pool2d(regions[:, None].float(), self._factor)
        more = (
            self._see(pixels, cells)
            if self._sees_images
            else held_to(self._brush, pixels, noises, cells)
        )
        texts = [request.text for request in batch]
        return self._brush.paint(texts, noises, generators, size, more)

    @property
    def _noise_channels(self) -> int:
        return self._brush.loaded.pipeline.vae.config.latent_channels

    def _see(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        cells: Float[Tensor, "batch 1 rows columns"],
    ) -> dict[str, Any]:
        """What a pipeline for inpainting is told."""
        masks = cells.repeat_interleave(self._factor, 2).repeat_interleave(self._factor, 3)
        return {"image": pixels, "mask_image": masks, "strength": 1.0}
