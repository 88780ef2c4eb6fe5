"""Painters: text-to-image diffusion that gives a scene and its counterfactual from one noise."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from models.devices import pick_device
from models.painting.brush import Brush, full_batches
from models.painting.config import PainterConfig
from models.painting.pipelines import load_pipeline
from models.protocols import ImageRequest, PaintedImage, PaintedPair, PairRequest


class DiffusionPairPainter:
    """Pairs of a text-to-image pipeline, batched over pairs and over positive and counterfactual.

    A pair depends on its own request alone: its noise is drawn in float32 on the CPU from a
    generator of its own, so that neither the device nor the company in the batch change it. Every
    batch is filled up to the full size, because another batch size makes another order of
    additions.

    Args:
        config: Checkpoint and sampling.

    Attributes:
        config: As given.
        loaded: The pipeline.

    Raises:
        InputError: If the checkpoint is missing, is no pipeline of a known family, or cannot
            paint as it is asked to.
    """

    def __init__(self, config: PainterConfig) -> None:
        self.config = config
        self.loaded = load_pipeline(config, pick_device(config.device))
        self._brush = Brush(self.loaded, config)
        self._size = config.height, config.width
        self._shape = self.loaded.latent_shape(config.model, self._size)

    def paint(self, requests: Sequence[PairRequest]) -> list[PaintedPair]:
        """Paint every pair, in order.

        Args:
            requests: What to paint; a text that is too long for the text encoders is cut.

        Returns:
            Pairs of the config's size; pictures that the safety checker flagged are black.
        """
        painted: list[PaintedPair] = []
        for batch, count in full_batches(requests, self.config.batch_size):
            painted += self._paint_batch(batch)[:count]
        return painted

    def paint_images(self, requests: Sequence[ImageRequest]) -> list[PaintedImage]:
        """Paint images alone, as many at once as in pairs; each is the image that its pair has."""
        painted: list[PaintedImage] = []
        for batch, count in full_batches(requests, 2 * self.config.batch_size):
            starts = [self._start(request.seed, own=False) for request in batch]
            painted += self._painted([request.text for request in batch], starts)[:count]
        return painted

    def _paint_batch(self, batch: Sequence[PairRequest]) -> list[PaintedPair]:
        texts = [request.text for request in batch]
        texts += [request.counterfactual_text for request in batch]
        starts = [self._start(request.seed, own=False) for request in batch]
        starts += [
            self._start(request.seed, own=not self.config.shared_latent) for request in batch
        ]
        painted, count = self._painted(texts, starts), len(batch)
        return [
            PaintedPair(
                image.image,
                twin.image,
                unsafe=image.unsafe or twin.unsafe,
                finite=image.finite and twin.finite,
            )
            for image, twin in zip(painted[:count], painted[count:], strict=True)
        ]

    def _painted(
        self,
        texts: Sequence[str],
        starts: Sequence[tuple[Float[Tensor, "channels height width"], torch.Generator]],
    ) -> list[PaintedImage]:
        noises, generators = zip(*starts, strict=True)
        return self._brush.paint(texts, noises, generators, self._size)

    def _start(
        self, seed: int, *, own: bool
    ) -> tuple[Float[Tensor, "channels height width"], torch.Generator]:
        """Draw a noise; the generator that goes on from there feeds samplers that draw more."""
        generator = torch.Generator("cpu").manual_seed(seed)
        latent = torch.randn(self._shape, generator=generator)
        if own:
            latent = torch.randn(self._shape, generator=generator)
        return latent, generator
