"""The noise that the denoiser learns to take away: how much, where it counts, and its target."""

import torch
from torch import Tensor

from models.miniature.painter.config import Config
from models.miniature.painter.examples import LatentScene


def random_times(count: int, done: float, levels: Tensor) -> Tensor:
    """Draw time steps whose log signal-to-noise ratio is normal, around the middle of the range.

    Args:
        count: How many.
        done: How far the noise levels have spread, from 0; 1 and more is as wide as they get.
        levels: Share of the signal in the power at each time step, falling, float (time steps).

    Returns:
        Long (count).
    """
    wide = min(1.0, done)
    ratio = (-1 + 0.3 * wide) + (1.3 + 0.5 * wide) * torch.randn(count)
    table = (levels / (1 - levels)).log()  # (time steps), falling
    return (len(table) - torch.searchsorted(table.flip(0), ratio)).clamp(0, len(table) - 1)


def diffuse(examples: list[LatentScene], level: Tensor) -> tuple[Tensor, Tensor]:
    """Add noise to latents.

    Args:
        examples: What the latents belong to.
        level: Share a of the signal in the power, float (examples, 1, 1, 1).

    Returns:
        The noisy latents, sqrt(a) x + sqrt(1 - a) n, and the velocities that the denoiser is to
        predict from them, sqrt(a) n - sqrt(1 - a) x (arXiv 2202.00512); both are float (examples,
        LATENTS, 16, 16).
    """
    latents = torch.stack([example.latent for example in examples])  # (examples, LATENTS, 16, 16)
    noise = torch.randn_like(latents)
    noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
    return noisy, level.sqrt() * noise - (1 - level).sqrt() * latents


def weights(config: Config, step: int, examples: list[LatentScene]) -> Tensor:
    """Weights of the loss, float (examples, 1, 16, 16).

    1 outside the boxes of things; 0 where the caption names what the picture lacks.
    """
    first, last = config.box_weight
    extra = first + (last - first) * min(1.0, step / config.settled) - 1
    true = torch.tensor([example.unpainted is None for example in examples])
    inside = torch.stack([example.inside for example in examples])
    return (1 + extra * inside) * true.view(-1, 1, 1, 1)
