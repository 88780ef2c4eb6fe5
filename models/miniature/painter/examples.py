"""What the painter learns from: latents of drawn scenes, and captions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from models.miniature import captions
from models.miniature.loop import step_rng
from models.miniature.painter.config import Config
from models.miniature.vae.network import encode
from models.miniature.vae.pictures import inside, pictures
from models.miniature.world import Scene, sample_scene

_REPEATS = 4


@dataclass(frozen=True)
class LatentScene:
    """One scene as the denoiser sees it.

    Attributes:
        scene: What was drawn.
        absent: Whether its things were left out, and the caption says so.
        unpainted: The thing that is not drawn though the caption names it, None where there is
            none.
        latent: Float (LATENTS, 16, 16).
        inside: 1 in the cells of things, drawn or left out, else 0; float (1, 16, 16).
    """

    scene: Scene
    absent: bool
    unpainted: int | None
    latent: Tensor
    inside: Tensor


class Examples:
    """Examples made from fresh scenes, a chunk ahead; each is used four times with other noise.

    Args:
        config: Sizes, shares and seed.
        encoder: The trained autoencoder.
    """

    def __init__(self, config: Config, encoder: AutoencoderKL) -> None:
        self.config, self.encoder = config, encoder
        self._chunk, self._examples = -1, []

    def batch(self, step: int) -> list[LatentScene]:
        """The examples of one step."""
        span = self.config.chunk * _REPEATS // self.config.batch
        if step // span != self._chunk:
            self._chunk = step // span
            self._examples = list(self._draw(self._chunk, self._chunk * span))
        first = (step % span) * self.config.batch
        order = [index for part in range(_REPEATS) for index in self._shuffled(10 + part)]
        return [self._examples[index] for index in order[first : first + self.config.batch]]

    def _scene(self, rng: np.random.Generator, pairs: float, hard: float) -> Scene:
        if rng.random() < pairs:
            return sample_scene(rng, num_things=2, hard=min(hard, self.config.pairs_hard))
        return sample_scene(rng, hard=hard)

    def _shuffled(self, stream: int) -> list[int]:
        rng = step_rng(self.config.seed, self._chunk, stream)
        return rng.permutation(self.config.chunk).tolist()

    def _draw(self, chunk: int, step: int) -> Iterator[LatentScene]:
        rng = step_rng(self.config.seed, chunk, 1)
        pairs, hard = _difficulty(self.config, step)
        for _ in range(self.config.chunk // 64):
            scenes = [self._scene(rng, pairs, hard) for _ in range(64)]
            absent = rng.random(64) < self.config.twins
            unpainted = self._unpainted(rng, scenes, absent, step)
            drawn = [_without(*parts) for parts in zip(scenes, unpainted, strict=True)]
            images = pictures(drawn, things=(~absent).tolist())
            with torch.no_grad():
                # (64, 3, 64, 64) to (64, LATENTS, 16, 16)
                latents = encode(self.encoder, images.to(self.encoder.device)).cpu()
            cells = [inside(scene, cell=4) for scene in scenes]
            for parts in zip(scenes, absent.tolist(), unpainted, latents, cells, strict=True):
                yield LatentScene(*parts)

    def _unpainted(
        self, rng: np.random.Generator, scenes: list[Scene], absent: NDArray[np.bool_], step: int
    ) -> list[int | None]:
        """Choose which things are not drawn though they are named; none before attention learns."""
        if step < self.config.attention_from:
            return [None] * len(scenes)
        chosen = (rng.random(len(scenes)) < self.config.unpainted) & ~absent
        things = [int(rng.integers(len(scene.things))) for scene in scenes]
        return [one if none else None for one, none in zip(things, chosen.tolist(), strict=True)]


def _without(scene: Scene, unpainted: int | None) -> Scene:
    """The scene without one of its things."""
    if unpainted is None:
        return scene
    kept = scene.things[:unpainted] + scene.things[unpainted + 1 :]
    return replace(scene, things=kept)


def _difficulty(config: Config, step: int) -> tuple[float, float]:
    """The share of pairs and the difficulty of scenes at a step."""
    ramp = (step - config.hard_from) / (config.settled - config.hard_from)
    pairs = config.pairs if step >= config.pairs_from else 0.0
    return pairs, config.hard * min(1.0, max(0.0, ramp))


def write_captions(
    examples: list[LatentScene], rng: np.random.Generator, empty: float
) -> list[str]:
    """Write a caption for each example; that of the twin where the things are left out.

    Args:
        examples: What to describe.
        rng: Chooses the captions.
        empty: Share of the examples that get an empty caption.
    """
    texts = []
    for example in examples:
        text, twin, _ = captions.caption(example.scene, rng)
        texts.append("" if rng.random() < empty else twin if example.absent else text)
    return texts
