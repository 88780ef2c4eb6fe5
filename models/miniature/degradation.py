"""Random damage to drawings, so that models trained on them also work on generated pictures."""

import io
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from PIL import Image
from torch import Tensor

PAINTER_AUTOENCODER = "models/miniature/weights/painter/vae"
"""Folder of the painter's autoencoder, as seen from the root of the repository."""

CLEAN_SHARE = 0.2
"""Share of the pictures that stay as drawn."""

RECONSTRUCTED_SHARE = 0.3
"""Share of the pictures that the painter's autoencoder has encoded and decoded."""


def load_autoencoder(folder: str | Path, device: str = "cpu") -> AutoencoderKL:
    """Load the painter's autoencoder in float32; its file holds half-precision numbers."""
    autoencoder = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    return autoencoder.to(device).eval()  # pyright: ignore[reportArgumentType]


def warp(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bend pictures and masks by the same smooth random field, as an imprecise painter would.

    Args:
        images: Float (batch, 3, height, width) in [0, 1].
        masks: Float (batch, things, height, width), 0 or 1.
        generator: Source of all randomness.

    Returns:
        The bent pictures and masks, shapes unchanged; shifts are at most some 3 pixels of 64.
    """
    count, _, height, width = images.shape
    amplitude = torch.rand(count, 1, 1, 1, generator=generator) * 0.045
    coarse = torch.randn(count, 2, 5, 5, generator=generator) * amplitude
    # shifts in x and y, as shares of half the side: (batch, 2, height, width)
    field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    identity = torch.eye(2, 3).expand(count, 2, 3)
    grid = F.affine_grid(identity, [count, 1, height, width], align_corners=False)
    grid = grid + field.permute(0, 2, 3, 1)  # (batch, height, width, 2), -1..1
    bent = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    bent_masks = F.grid_sample(masks, grid, mode="nearest", align_corners=False)
    return bent.clamp(0, 1), bent_masks


@torch.no_grad()
def reconstruct(images: Tensor, autoencoder: AutoencoderKL, generator: torch.Generator) -> Tensor:
    """Encode and decode some pictures, with errors in the latents as a sampler makes them.

    Args:
        images: Float (batch, 3, height, width) in [0, 1].
        autoencoder: The painter's; its latents have deviation 1.
        generator: Source of all randomness.

    Returns:
        The pictures, about `RECONSTRUCTED_SHARE` of them as the autoencoder gives them back.
    """
    chosen = torch.rand(len(images), generator=generator) < RECONSTRUCTED_SHARE
    result = images.clone()
    if chosen.any():
        shown = (images[chosen] * 2 - 1).to(autoencoder.device)
        encoded = cast("AutoencoderKLOutput", autoencoder.encode(shown))
        # (chosen, channels, height / 4, width / 4); all noise is drawn on the CPU
        latents = encoded.latent_dist.mode().cpu()
        level = 0.3 * torch.rand(len(latents), 1, 1, 1, generator=generator)
        latents = latents + level * torch.randn(latents.shape, generator=generator)
        decoded = cast("DecoderOutput", autoencoder.decode(latents.to(autoencoder.device))).sample
        result[chosen] = (decoded.cpu() / 2 + 0.5).clamp(0, 1)
    return result


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, resample, recolour, add noise to and recompress most of a batch of pictures.

    Args:
        images: Float (batch, 3, height, width) in [0, 1].
        generator: Source of all randomness.

    Returns:
        Pictures of the same shape and range; about `CLEAN_SHARE` of them are untouched.
    """
    damaged = _lose_detail(images, generator)
    damaged = _shift_colours(damaged, generator)
    damaged = _add_noise(damaged, generator)
    damaged = _recompress(damaged, generator)
    clean = torch.rand(len(images), 1, 1, 1, generator=generator) < CLEAN_SHARE
    return torch.where(clean, images, damaged)


def _lose_detail(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mix each picture with a smaller copy of itself, scaled up again."""
    height, width = images.shape[-2:]
    divisor = 1.6 + 1.6 * float(torch.rand(1, generator=generator))
    small = F.interpolate(
        images, (round(height / divisor), round(width / divisor)), mode="bilinear", antialias=True
    )
    soft = F.interpolate(small, (height, width), mode="bicubic", antialias=True)
    share = torch.rand(len(images), 1, 1, 1, generator=generator)
    return (images + (soft - images) * share).clamp(0, 1)


def _shift_colours(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change saturation, gain, offset and contrast a little, each picture in its own way."""
    count = len(images)
    grey = images.mean(1, keepdim=True)
    saturation = 0.75 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
    gain = 0.88 + 0.24 * torch.rand(count, 3, 1, 1, generator=generator)
    offset = 0.12 * torch.rand(count, 3, 1, 1, generator=generator) - 0.06
    gamma = 0.85 + 0.35 * torch.rand(count, 1, 1, 1, generator=generator)
    coloured = (grey + (images - grey) * saturation) * gain + offset
    return coloured.clamp(1e-4, 1) ** gamma


def _add_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise from pixel to pixel, and noise in blotches of about 4 pixels."""
    count, channels, height, width = images.shape
    fine = torch.randn(images.shape, generator=generator)
    coarse = torch.randn(count, channels, height // 4, width // 4, generator=generator)
    blotches = F.interpolate(coarse, (height, width), mode="bilinear")
    levels = torch.rand(2, count, 1, 1, 1, generator=generator)  # fine, coarse; one a picture
    return (images + 0.05 * levels[0] * fine + 0.06 * levels[1] * blotches).clamp(0, 1)


def _recompress(images: Tensor, generator: torch.Generator) -> Tensor:
    """Send a quarter of the pictures through JPEG at qualities 40 to 95."""
    chosen = (torch.rand(len(images), generator=generator) < 0.25).nonzero().flatten().tolist()
    result = images.clone()
    for index in chosen:
        quality = int(torch.randint(40, 96, (1,), generator=generator))
        pixels = (images[index].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        decoded = np.asarray(Image.open(buffer), dtype=np.float32) / 255
        result[index] = torch.from_numpy(decoded).permute(2, 0, 1)
    return result
