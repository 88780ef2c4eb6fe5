"""An independent judge of generated pictures: which classes of the world does a picture show?

It learns from drawn scenes, degraded in the ways in which generated pictures are worse. It scores
the painter and takes no part in the pipeline, so that no model marks its own work.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional as F

from models.miniature import loop, vae
from models.miniature.degradation import load_autoencoder
from models.miniature.world import CLASSES, Scene, sample_scene

_HELD_OUT = 10_000_019

FOUND = 0.5
"""A class counts as found from this probability on."""


@dataclass(frozen=True)
class Config(loop.Training):
    """How the judge is trained, beside what every training is told.

    Attributes:
        batch: Scenes a step.
        learning_rate: Peak of a one-cycle schedule.
    """

    seed: int = 3
    steps: int = 1500
    batch: int = 48
    learning_rate: float = 3e-3


class Judge(nn.Module):
    """A small convolutional network with one output for each class and one for "no thing"."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after)]
            layers += [nn.SiLU(), nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after)]
            layers += [nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1], len(CLASSES) + 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (images, classes + 1) for images in -1..1 of shape (images, 3, 64, 64)."""
        maps = self.features(images)
        return self.head(torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1))

    @torch.no_grad()
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (images, classes + 1) for uint8 images of shape (images, 64, 64, 3)."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        return torch.cat([self(part) for part in pixels.split(64)]).sigmoid().numpy()


def load(folder: Path) -> Judge:
    """Load a trained judge."""
    judge = Judge()
    load_model(judge, folder / "model.safetensors")
    return judge.eval()


def train(config: Config, out: Path, state: Path) -> dict[str, float]:
    """Train and save.

    Args:
        config: Lengths and seed.
        out: Folder for `model.safetensors`; the folder `painter` beside it holds the autoencoder
            that degrades a third of the pictures.
        state: Folder for checkpoints.

    Returns:
        `accuracy`: share of degraded held-out scenes of one thing in which it has the highest
        probability; `exact`: share of all held-out scenes with exactly the right classes found.
    """
    torch.set_num_threads(config.threads)
    parts, step = task(config, out)
    run = loop.Run("judge", state, config.steps, config.seed)
    spent = loop.fit(run, parts, step)
    out.mkdir(parents=True, exist_ok=True)
    save_model(parts["judge"].eval(), str(out / "model.safetensors"))
    metrics = score(out, 600, seed=0)
    loop.record(out, loop.Outcome(config, metrics, spent, _card(config, metrics)), run)
    return metrics


def task(config: Config, folder: Path) -> tuple[dict[str, Any], loop.Step]:
    """A fresh judge with its optimizer and schedule, and the step that trains it.

    Args:
        config: Lengths and seed.
        folder: Where the judge belongs, beside the painter.
    """
    encoder = load_autoencoder(folder.parent / "painter" / "vae", config.device)
    torch.manual_seed(config.seed)
    judge = Judge().to(config.device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=config.learning_rate, weight_decay=1e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps
    )

    def step(index: int) -> dict[str, float]:
        rng = loop.step_rng(config.seed, index)
        images, labels, _ = _examples(rng, config.batch, encoder)
        images, labels = images.to(config.device), labels.to(config.device)
        loss = F.binary_cross_entropy_with_logits(judge(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        return {"loss": loss.item()}

    return {"judge": judge, "optimizer": optimizer, "cycle": cycle}, step


@torch.no_grad()
def score(folder: Path, num_scenes: int, seed: int) -> dict[str, float]:
    """Score a saved judge on held-out scenes, degraded as in training.

    Args:
        folder: Folder of `model.safetensors`, beside that of the painter.
        num_scenes: How many scenes.
        seed: Which scenes.

    Returns:
        The metrics of `train`.
    """
    judge = load(folder)
    encoder = load_autoencoder(folder.parent / "painter" / "vae")
    torch.manual_seed(seed)
    rng = np.random.default_rng((_HELD_OUT, seed))
    images, labels, scenes = _examples(rng, num_scenes, encoder)
    found = torch.cat([judge(part) for part in images.split(64)]).sigmoid()
    exact = ((found >= FOUND) == (labels >= FOUND)).all(1).float().mean()
    single = [i for i, scene in enumerate(scenes) if labels[i].sum() == 1 and scene.things]
    right = (found[single].argmax(1) == labels[single].argmax(1)).float().mean()
    return {"accuracy": float(right), "exact": float(exact)}


def _examples(
    rng: np.random.Generator, count: int, encoder: AutoencoderKL
) -> tuple[Tensor, Tensor, list[Scene]]:
    """Degraded pictures, their labels, and the scenes; a fifth of the pictures have no thing."""
    numbers = rng.choice(3, count, p=(0.2, 0.5, 0.3)).tolist()
    scenes = [sample_scene(rng, num_things=n, hard=float(rng.random())) for n in numbers]
    labels = torch.zeros(count, len(CLASSES) + 1)
    for row, scene in zip(labels, scenes, strict=True):
        row[[thing.class_id for thing in scene.things] or [len(CLASSES)]] = 1
    images = vae.pictures(scenes)
    kinds = torch.from_numpy(rng.integers(3, size=count))
    images[kinds == 0] = degrade(images[kinds == 0], rng)
    chosen = images[kinds == 1]
    if len(chosen):
        with torch.no_grad():
            latents = vae.encode(encoder, chosen.to(encoder.device)).cpu()
            noise = float(rng.uniform(0, 0.3)) * torch.randn_like(latents)
            noisy = (latents + noise).to(encoder.device)
            images[kinds == 1] = vae.decode(encoder, noisy).cpu()
    return images.clamp(-1, 1), labels, scenes


def degrade(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur and noise of random strength; the same for all images of the call."""
    width = float(rng.uniform(0.1, 1.2))
    taps = torch.exp(-0.5 * (torch.arange(-3, 4) / width) ** 2)
    taps = (taps / taps.sum()).view(1, 1, 7, 1).expand(3, 1, 7, 1)
    blurred = F.conv2d(images, taps, padding=(3, 0), groups=3)
    blurred = F.conv2d(blurred, taps.transpose(2, 3), padding=(0, 3), groups=3)
    return blurred + float(rng.uniform(0, 0.25)) * torch.randn_like(images)


def _card(config: Config, metrics: dict[str, float]) -> str:
    return f"""# Judge of the miniature painter

A small convolutional network that says which of the {len(CLASSES)} classes of the drawn world a
64 x 64 picture shows, or that it shows none. It exists to score generated pictures
(`docs/miniature.md`) and takes no part in the pipeline.

Trained by `python -m models.miniature train judge`: {config.steps} steps of {config.batch} drawn
scenes, seed {config.seed}, a third of them blurred and noisy, a third through the painter's
autoencoder. Held-out scenes, degraded in the same ways: right first choice with one thing
{metrics["accuracy"]:.3f}, exactly the right classes {metrics["exact"]:.3f}.

Licence: that of the repository.
"""
