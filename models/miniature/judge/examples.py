"""Degraded pictures with labels, from which the judge learns and on which it is scored."""

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from models.miniature.vae.network import decode, encode
from models.miniature.vae.pictures import pictures
from models.miniature.world import CLASSES, Scene, sample_scene


def draw_examples(
    rng: np.random.Generator, count: int, encoder: AutoencoderKL
) -> tuple[Tensor, Tensor, list[Scene]]:
    """Make up scenes and damage their pictures; a fifth of them have no thing.

    Args:
        rng: Chooses scenes and damage; the noise comes from torch's own generator.
        count: How many.
        encoder: The painter's autoencoder.

    Returns:
        The pictures, float (count, 3, 64, 64) in -1..1; the labels, float (count, classes + 1), 1
        for each class that is there, the last one for "no thing"; and the scenes.
    """
    numbers = rng.choice(3, count, p=(0.2, 0.5, 0.3)).tolist()
    scenes = [sample_scene(rng, num_things=n, hard=float(rng.random())) for n in numbers]
    labels = torch.zeros(count, len(CLASSES) + 1)
    for row, scene in zip(labels, scenes, strict=True):
        row[[thing.class_id for thing in scene.things] or [len(CLASSES)]] = 1
    images = pictures(scenes)
    kinds = torch.from_numpy(rng.integers(3, size=count))
    images[kinds == 0] = _degrade(images[kinds == 0], rng)
    chosen = images[kinds == 1]  # (chosen, 3, 64, 64)
    if len(chosen):
        with torch.no_grad():
            latents = encode(encoder, chosen.to(encoder.device)).cpu()  # (chosen, LATENTS, 16, 16)
            noise = float(rng.uniform(0, 0.3)) * torch.randn_like(latents)
            noisy = (latents + noise).to(encoder.device)
            images[kinds == 1] = decode(encoder, noisy).cpu()
    return images.clamp(-1, 1), labels, scenes


def _degrade(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur images (images, 3, 64, 64) and add noise, all with one random strength."""
    width = float(rng.uniform(0.1, 1.2))
    taps = torch.exp(-0.5 * (torch.arange(-3, 4) / width) ** 2)  # (7): a Gaussian
    taps = (taps / taps.sum()).view(1, 1, 7, 1).expand(3, 1, 7, 1)  # down, then across
    blurred = F.conv2d(images, taps, padding=(3, 0), groups=3)
    blurred = F.conv2d(blurred, taps.transpose(2, 3), padding=(0, 3), groups=3)
    return blurred + float(rng.uniform(0, 0.25)) * torch.randn_like(images)
