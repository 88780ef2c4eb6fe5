"""Painters: text-to-image diffusion that gives a scene and its counterfactual from one noise."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.arithmetic import rounding_of
from models.compiling import Compiled
from models.devices import pick_device
from models.painting.config import PainterConfig
from models.painting.embeddings import GuidingTexts
from models.painting.finite_pixels import FinitePixels
from models.painting.pipelines import LoadedPipeline, load_pipeline
from models.protocols import PaintedPair, PairRequest


class DiffusionPairPainter:
    """Pairs of a text-to-image pipeline, batched over pairs and over positive and counterfactual.

    A pair depends on its own request alone: its noise is drawn in float32 on the CPU from a
    generator of its own, so that neither the device nor the company in the batch change it. Every
    batch is filled up to the full size, because another batch size makes another order of
    additions.

    Args:
        config: Checkpoint and sampling.

    Raises:
        InputError: If the checkpoint is missing, is no pipeline of a known family, or cannot
            paint as it is asked to.
    """

    def __init__(self, config: PainterConfig) -> None:
        self.config = config
        self.device = pick_device(config.device)
        self._loaded = load_pipeline(config, self.device)
        self._pipeline, self._checker = self._loaded.pipeline, self._loaded.checker
        if config.compile and self.device.type == "cuda":
            _compile(self._loaded)
        self._shape = self._loaded.latent_shape(config)
        self._pixels = FinitePixels(self._pipeline.vae.decoder)
        self._texts = GuidingTexts(self._loaded, config)

    def paint(self, requests: Sequence[PairRequest]) -> list[PaintedPair]:
        """Paint every pair, in order.

        Args:
            requests: What to paint; a text that is too long for the text encoders is cut.

        Returns:
            Pairs of the config's size; pictures that the safety checker flagged are black.
        """
        return list(chain.from_iterable(self._pairs(requests)))

    def _pairs(self, requests: Sequence[PairRequest]) -> Iterator[list[PaintedPair]]:
        size = self.config.batch_size
        for first in range(0, len(requests), size):
            batch = requests[first : first + size]
            filled = [*batch, *[batch[-1]] * (size - len(batch))]
            yield self._paint_batch(filled)[: len(batch)]

    @torch.inference_mode()
    def _paint_batch(self, batch: Sequence[PairRequest]) -> list[PaintedPair]:
        texts = [request.text for request in batch]
        texts += [request.counterfactual_text for request in batch]
        starts = [self._start(request.seed, own=False) for request in batch]
        starts += [
            self._start(request.seed, own=not self.config.shared_latent) for request in batch
        ]
        arguments = self._texts.arguments(texts)
        self._pixels.forget()
        with rounding_of(self.config.dtype, self.device):
            output = self._pipeline(
                **arguments,
                latents=self._latents([latent for latent, _ in starts]),
                generator=[generator for _, generator in starts],
                num_inference_steps=self.config.steps,
                height=self.config.height,
                width=self.config.width,
                output_type="pt",
            )
        images = _to_bytes(output.images)
        unsafe = [False] * len(texts) if self._checker is None else self._checker.flagged(images)
        images[unsafe] = 0
        finite = self._pixels.finite
        count = len(batch)
        return [
            PaintedPair(
                images[i],
                images[count + i],
                unsafe=unsafe[i] or unsafe[count + i],
                finite=finite[i] and finite[count + i],
            )
            for i in range(count)
        ]

    def _start(
        self, seed: int, *, own: bool
    ) -> tuple[Float[Tensor, "channels height width"], torch.Generator]:
        """Draw a noise; the generator that goes on from there feeds samplers that draw more."""
        generator = torch.Generator("cpu").manual_seed(seed)
        latent = torch.randn(self._shape, generator=generator)
        if own:
            latent = torch.randn(self._shape, generator=generator)
        return latent, generator

    def _latents(self, noises: list[Float[Tensor, "channels height width"]]) -> Tensor:
        """Noises as the pipeline's call takes them."""
        family = self._loaded.family
        latents = torch.stack(noises)
        if family.packed:
            latents = self._pipeline._pack_latents(latents, *latents.shape)  # noqa: SLF001
        dtype = torch.float32 if family.in_float32 else self._loaded.network.dtype
        return latents.to(self.device, dtype)


def _compile(loaded: LoadedPipeline) -> None:
    """Compile what takes nearly all of the time; every batch has the same shape."""
    # Not the decoder as a module: what watches its pixels would be compiled with it.
    compiled = {"network": loaded.network, "decoder": loaded.pipeline.vae.decoder}
    for name in loaded.family.compiles:
        what = loaded.family.network if name == "network" else "vae"
        compiled[name].forward = Compiled(compiled[name].forward, f"the painter's {what}")


def _to_bytes(
    images: Float[Tensor, "images 3 height width"],
) -> UInt8[np.ndarray, "images height width 3"]:
    scaled = (images.float() * 255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()
