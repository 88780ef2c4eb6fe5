"""Holding a pipeline to pictures: after each step it goes on from them, with the step's noise.

So an ordinary painter fills a region in, and what its network sees of a picture that it did not
paint can be recorded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.painting.brush import Brush


def held_to(
    brush: Brush,
    pixels: Float[Tensor, "batch 3 height width"],
    noises: Sequence[Float[Tensor, "channels rows columns"]],
    free: Float[Tensor, "batch 1 rows columns"] | None = None,
) -> dict[str, Any]:
    """What a pipeline is told, to be held to pictures.

    Args:
        brush: Paints.
        pixels: The pictures, in [0, 1].
        noises: Where each starts.
        free: 1 where it may paint what it likes; None for nowhere.
    """
    noise = brush.latents(noises)
    kept = _encode(brush, pixels).to(noise)
    own = torch.zeros_like(kept[:, :1]) if free is None else free.to(noise)

    def hold(pipeline: Any, step: int, _time: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        times = pipeline.scheduler.timesteps[step + 1 : step + 2]
        around = pipeline.scheduler.add_noise(kept, noise, times) if len(times) else kept
        return {"latents": (1 - own) * around + own * given["latents"]}

    return {"callback_on_step_end": hold}


def as_pixels(
    images: UInt8[Tensor, "batch height width 3"],
) -> Float[Tensor, "batch 3 height width"]:
    """Bytes as pipelines take pictures, in [0, 1]."""
    return images.permute(0, 3, 1, 2).float() / 255


def _encode(
    brush: Brush, pixels: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch channels rows columns"]:
    """The latents that pictures most likely have."""
    vae = brush.loaded.pipeline.vae
    encoded = vae.encode((2 * pixels - 1).to(vae.device, vae.dtype))
    return encoded.latent_dist.mode() * vae.config.scaling_factor
