"""Training of the autoencoder, the first part of the miniature painter."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from models.miniature import loop
from models.miniature.degradation import load_autoencoder
from models.miniature.world import CANVAS, Scene, boxes, render, sample_scene

logger = logging.getLogger(__name__)

LATENTS = 8
"""Channels of the latents: with the usual 4, small things blur beyond recognition."""


@dataclass(frozen=True)
class Config(loop.Training):
    """How the autoencoder is trained, beside what every training is told.

    Attributes:
        batch: Scenes a step.
        learning_rate: Peak; falls to 1 % along a cosine.
        kl_weight: Weight of the divergence of the latents from a normal distribution.
        thing_weight: Weight of the pixels inside the boxes of things; 1 elsewhere.
        bf16: Compute in bfloat16 where that is safe.
    """

    seed: int = 1
    steps: int = 2200
    batch: int = 16
    learning_rate: float = 2e-3
    kl_weight: float = 1e-6
    thing_weight: float = 3.0
    bf16: bool = True


def build() -> AutoencoderKL:
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


def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """The likeliest latents, shape (images, LATENTS, 16, 16), of images in -1..1."""
    return _posterior(vae, images).mode()


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images around -1..1 of shape (images, 3, 64, 64)."""
    decoder: Any = vae
    return decoder.decode(latents).sample


def _posterior(vae: AutoencoderKL, images: Tensor) -> DiagonalGaussianDistribution:
    output: Any = vae.encode(images)
    return output.latent_dist


def pictures(scenes: list[Scene], things: Sequence[bool] | None = None) -> Tensor:
    """Rendered scenes in -1..1, shape (scenes, 3, 64, 64); `things`: which show them."""
    shown = [True] * len(scenes) if things is None else things
    stack = np.stack([render(s, things=bool(t)) for s, t in zip(scenes, shown, strict=True)])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1


def inside(scene: Scene, cell: int = 1) -> Tensor:
    """1 where a cell of `cell` x `cell` pixels touches a thing's box, else 0; shape (1, h, w)."""
    cells = torch.zeros(1, CANVAS // cell, CANVAS // cell)
    for left, top, right, bottom in (boxes(scene) / cell).tolist():
        cells[0, int(top) : math.ceil(bottom), int(left) : math.ceil(right)] = 1
    return cells


def any_scene(rng: np.random.Generator) -> Scene:
    """A scene of any difficulty with 0, 1 or 2 things."""
    count = int(rng.choice(3, p=(0.1, 0.55, 0.35)))
    return sample_scene(rng, num_things=count, hard=float(rng.choice((0.0, 0.5, 1.0))))


def train(config: Config, out: Path, state: Path) -> dict[str, float]:
    """Train, fold the scale of the latents into the weights, save.

    Args:
        config: Length and seed.
        out: Folder for the weights (`from_pretrained`).
        state: Folder for checkpoints.

    Returns:
        `psnr` of held-out scenes in dB.
    """
    torch.set_num_threads(config.threads)
    vae, optimizer, step = task(config)
    run = loop.Run("vae", state, config.steps, config.seed)
    spent = loop.fit(run, {"vae": vae, "optimizer": optimizer}, step)
    vae.to("cpu").eval()  # pyright: ignore[reportArgumentType]
    whiten(vae, config.seed)
    # in half precision at once: the painter and all that learn from its pictures see one network
    vae.half().save_pretrained(out)
    metrics = {"psnr": psnr(load_autoencoder(out))}
    loop.record(out, loop.Outcome(config, metrics, spent, _card(config, metrics)), run)
    return metrics


def task(config: Config) -> tuple[AutoencoderKL, torch.optim.Optimizer, loop.Step]:
    """A fresh autoencoder, its optimizer, and the step that trains it."""
    torch.manual_seed(config.seed)
    vae = build().to(config.device)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.learning_rate, betas=(0.9, 0.98))

    def step(index: int) -> dict[str, float]:
        optimizer.param_groups[0]["lr"] = config.learning_rate * _rate(index, config.steps)
        rng = loop.step_rng(config.seed, index)
        scenes = [any_scene(rng) for _ in range(config.batch)]
        images = pictures(scenes).to(config.device)
        weight = _weight(scenes, config.thing_weight).to(config.device)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=config.bf16):
            posterior = _posterior(vae, images)
            decoded = decode(vae, posterior.sample())
        decoded = decoded.float()
        kl = posterior.kl().mean()
        error = decoded - images
        mse = (weight * error.square()).mean()
        loss = (weight * error.abs()).mean() + mse + config.kl_weight * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        return {"loss": loss.item(), "mse": mse.item(), "kl": kl.item()}

    return vae, optimizer, step


def _rate(index: int, steps: int) -> float:
    """Warm-up, then a cosine to 1 %: the share of the peak learning rate."""
    fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * index / steps))
    return min(1.0, (index + 1) / 50) * fall


def _weight(scenes: list[Scene], thing_weight: float) -> Tensor:
    """Weights of mean 1, shape (scenes, 1, 64, 64), that are larger inside the boxes of things."""
    weight = 1 + (thing_weight - 1) * torch.stack([inside(scene) for scene in scenes])
    return weight / weight.mean()


@torch.no_grad()
def whiten(vae: AutoencoderKL, seed: int) -> None:
    """Fold mean 0 and deviation 1 per latent channel into the convolutions around the latents.

    The diffusion model then needs no scaling factor.
    """
    rng = loop.step_rng(seed, 0, stream=1)
    images = pictures([any_scene(rng) for _ in range(512)])
    latents = torch.cat([encode(vae, part) for part in images.split(64)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    before = cast("nn.Conv2d", vae.quant_conv)
    after = cast("nn.Conv2d", vae.post_quant_conv)
    channels = len(mean)
    offset, shift = cast("Tensor", before.bias), cast("Tensor", after.bias)
    before.weight[:channels] /= deviation[:, None, None, None]
    offset[:channels] = (offset[:channels] - mean) / deviation
    offset[channels:] -= 2 * deviation.log()
    shift += (after.weight[:, :, 0, 0] * mean).sum(1)
    after.weight *= deviation[None, :, None, None]


@torch.no_grad()
def psnr(vae: AutoencoderKL, count: int = 200) -> float:
    """Mean peak signal-to-noise ratio in dB of reconstructed held-out scenes."""
    rng = np.random.default_rng((10_000_019, 0))
    images = pictures([any_scene(rng) for _ in range(count)])
    decoded = [decode(vae, encode(vae, p)) for p in images.split(50)]
    error = ((torch.cat(decoded).clamp(-1, 1) - images) / 2).pow(2).mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


def _card(config: Config, metrics: Mapping[str, float]) -> str:
    return f"""# Autoencoder of the miniature painter

An `AutoencoderKL` of `diffusers` for 64 x 64 pictures of the drawn world of
`models/miniature/world.py`: {LATENTS} latent channels of 16 x 16, mean 0 and deviation 1, so that
no scaling factor is needed.

Trained from random weights on {config.steps} x {config.batch} fresh drawings. Held-out scenes come
back with {metrics["psnr"]:.1f} dB on average. The tensors are stored in half precision.

Licence: that of the repository.
"""
