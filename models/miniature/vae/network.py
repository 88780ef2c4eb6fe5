"""The autoencoder of the miniature painter: pictures to latents and back."""

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

LATENTS = 8
"""Channels of the latents; with the usual 4, small things blur beyond recognition."""


def untrained_network() -> AutoencoderKL:
    """The architecture of Stable Diffusion's autoencoder with a factor of 4 and narrow layers."""
    geometry: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (16, 32, 64),
        "layers_per_block": 1,
        "latent_channels": LATENTS,
        "norm_num_groups": 8,
        "sample_size": 64,
        "mid_block_add_attention": False,
        "scaling_factor": 1.0,
    }
    return AutoencoderKL(in_channels=3, out_channels=3, **geometry)


def posterior(vae: AutoencoderKL, images: Tensor) -> DiagonalGaussianDistribution:
    """The distribution of the latents of images (images, 3, 64, 64) in -1..1."""
    output: Any = vae.encode(images)
    return output.latent_dist


def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """The likeliest latents (images, LATENTS, 16, 16) of images (images, 3, 64, 64) in -1..1."""
    return posterior(vae, images).mode()


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """The images (images, 3, 64, 64), around -1..1, of latents (images, LATENTS, 16, 16)."""
    decoder: Any = vae
    return decoder.decode(latents).sample
