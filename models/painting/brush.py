"""A brush: one call of a pipeline, and what is asked of every picture that it paints."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.arithmetic import rounding_of
from models.compiling import Compiled
from models.painting.config import SamplingConfig
from models.painting.embeddings import GuidingTexts
from models.painting.finite_pixels import FinitePixels
from models.painting.pipelines import LoadedPipeline
from models.protocols import PaintedImage

_ItemT = TypeVar("_ItemT")


class Brush:
    """Paints batches of pictures with a pipeline.

    Args:
        loaded: The pipeline.
        config: How it is sampled.
    """

    def __init__(self, loaded: LoadedPipeline, config: SamplingConfig) -> None:
        self.loaded = loaded
        self.device: torch.device = loaded.pipeline.device
        self._config = config
        if config.compile and self.device.type == "cuda":
            _compile(loaded)
        self._pixels = FinitePixels(loaded.pipeline.vae.decoder)
        self._texts = GuidingTexts(loaded, config)

    @torch.inference_mode()
    def paint(
        self,
        texts: Sequence[str],
        noises: Sequence[Float[Tensor, "channels height width"]],
        generators: Sequence[torch.Generator],
        size: tuple[int, int],
        more: Mapping[str, Any] | None = None,
        watched: AbstractContextManager[None] | None = None,
    ) -> list[PaintedImage]:
        """Paint a batch.

        Args:
            texts: One a picture; what is too long for the text encoders is cut.
            noises: Where each picture starts.
            generators: What each picture's sampler draws from.
            size: Height and width of all of them, in pixels.
            more: What else the call is told.
            watched: Held while the network runs.

        Returns:
            The pictures; those that the safety checker flagged are black.
        """
        arguments = self._texts.arguments(texts)
        self._pixels.forget()
        with watched or nullcontext(), rounding_of(self._config.dtype, self.device):
            output = self.loaded.pipeline(
                **arguments,
                latents=self.latents(noises),
                generator=list(generators),
                num_inference_steps=self._config.steps,
                height=size[0],
                width=size[1],
                output_type="pt",
                **(more or {}),
            )
        painted = _to_bytes(output.images)
        here = painted.to("cpu", non_blocking=True)  # goes on while the checker looks
        checker = self.loaded.checker
        unsafe = [False] * len(texts) if checker is None else checker.flagged(painted)
        finite = self._pixels.finite  # waits until all is done, the copy included
        images = here.numpy()
        images[unsafe] = 0
        return [
            PaintedImage(image, unsafe=flagged, finite=finite)
            for image, flagged, finite in zip(images, unsafe, finite, strict=True)
        ]

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> Float[Tensor, "texts tokens channels"]:
        """Texts as the network's layers see them."""
        return self._texts.arguments(texts)["prompt_embeds"]

    def latents(self, noises: Sequence[Float[Tensor, "channels height width"]]) -> Tensor:
        """Noises as the pipeline's call takes them."""
        family = self.loaded.family
        latents = torch.stack(list(noises))
        if family.packed:
            latents = self.loaded.pipeline._pack_latents(latents, *latents.shape)  # noqa: SLF001
        dtype = torch.float32 if family.in_float32 else self.loaded.network.dtype
        return latents.to(self.device, dtype)


def full_batches(items: Sequence[_ItemT], size: int) -> Iterator[tuple[list[_ItemT], int]]:
    """Cut items into batches that all have the full size, the last one by repeating its last item.

    Another batch size would make another order of additions.

    Returns:
        Batches, each with how many of its items were asked for.
    """
    for first in range(0, len(items), size):
        batch = list(items[first : first + size])
        yield [*batch, *[batch[-1]] * (size - len(batch))], len(batch)


def _compile(loaded: LoadedPipeline) -> None:
    """Compile what takes nearly all of the time; every batch has the same shape."""
    # Not the decoder as a module: what watches its pixels would be compiled with it.
    compiled = {"network": loaded.network, "decoder": loaded.pipeline.vae.decoder}
    for name in loaded.family.compiles:
        what = loaded.family.network if name == "network" else "vae"
        compiled[name].forward = Compiled(compiled[name].forward, f"the painter's {what}")


def _to_bytes(
    images: Float[Tensor, "images 3 height width"],
) -> UInt8[Tensor, "images height width 3"]:
    scaled = (images.float() * 255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous()
