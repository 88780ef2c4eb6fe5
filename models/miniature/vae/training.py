"""Training of the autoencoder on drawn scenes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from models.miniature.degradation import load_autoencoder
from models.miniature.loop import Training, step_rng
from models.miniature.miniatures import Miniature, Task
from models.miniature.vae.network import LATENTS, decode, encode, posterior, untrained_network
from models.miniature.vae.pictures import any_scene, inside, pictures
from models.miniature.world import Scene

HELD_OUT_PICTURES = 10_000_019
"""First part of the seeds of the scenes that autoencoder and judge are scored on."""


@dataclass(frozen=True)
class Config(Training):
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


def task(config: Config) -> Task:
    """A fresh autoencoder and the step that trains it.

    What is saved has the scale of the latents folded into the weights, in half precision: the
    painter and all that learn from its pictures see one network.
    """
    torch.manual_seed(config.seed)
    vae = untrained_network().to(config.device)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.learning_rate, betas=(0.9, 0.98))

    def step(index: int) -> dict[str, float]:
        optimizer.param_groups[0]["lr"] = config.learning_rate * _rate(index, config.steps)
        rng = step_rng(config.seed, index)
        scenes = [any_scene(rng) for _ in range(config.batch)]
        images = pictures(scenes).to(config.device)  # (batch, 3, 64, 64)
        weight = _weight(scenes, config.thing_weight).to(config.device)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=config.bf16):
            latents = posterior(vae, images)  # a Gaussian of (batch, LATENTS, 16, 16)
            decoded = decode(vae, latents.sample())  # (batch, 3, 64, 64)
        kl = latents.kl().mean()
        error = decoded.float() - images
        mse = (weight * error.square()).mean()
        loss = (weight * error.abs()).mean() + mse + config.kl_weight * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        return {"loss": loss.item(), "mse": mse.item(), "kl": kl.item()}

    def save(folder: Path) -> None:
        vae.to("cpu").eval()  # pyright: ignore[reportArgumentType]
        whiten(vae, config.seed)
        vae.half().save_pretrained(folder)

    return Task({"vae": vae, "optimizer": optimizer}, step, save)


def _rate(index: int, steps: int) -> float:
    """Share of the peak learning rate: a rise, then a cosine to 1 %."""
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
    rng = step_rng(seed, 0, stream=1)
    images = pictures([any_scene(rng) for _ in range(512)])
    latents = torch.cat([encode(vae, part) for part in images.split(64)])  # (512, LATENTS, 16, 16)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))  # (LATENTS) each
    before = cast("nn.Conv2d", vae.quant_conv)
    after = cast("nn.Conv2d", vae.post_quant_conv)
    channels = len(mean)
    offset, shift = cast("Tensor", before.bias), cast("Tensor", after.bias)
    # the first half of the channels are means, the second half logarithms of variances
    before.weight[:channels] /= deviation[:, None, None, None]
    offset[:channels] = (offset[:channels] - mean) / deviation
    offset[channels:] -= 2 * deviation.log()
    # decoding undoes it: W (d z + m) + b = (W d) z + (W m + b), weights (LATENTS, LATENTS, 1, 1)
    shift += (after.weight[:, :, 0, 0] * mean).sum(1)
    after.weight *= deviation[None, :, None, None]


@torch.no_grad()
def psnr(vae: AutoencoderKL, count: int = 200) -> float:
    """Mean peak signal-to-noise ratio in dB of reconstructed held-out scenes."""
    rng = np.random.default_rng((HELD_OUT_PICTURES, 0))
    images = pictures([any_scene(rng) for _ in range(count)])
    decoded = [decode(vae, encode(vae, p)) for p in images.split(50)]
    # (count, 3, 64, 64) to (count); the range 0..1 has a peak of 1
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


MINIATURE = Miniature(
    "vae",
    Config,
    task=lambda config, *_: task(config),
    measure=lambda folder, _: {"psnr": psnr(load_autoencoder(folder))},
    card=_card,
    save_every=500,
)
"""The painter's autoencoder; its metric `psnr` is that of held-out scenes, in dB."""
