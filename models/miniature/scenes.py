"""Drawn scenes as tensors: an endless, repeatable stream for training, fixed ones for scoring."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.miniature import world
from models.miniature.degradation import degrade, reconstruct, warp
from models.miniature.world import Scene

MAX_THINGS = 2
"""Most objects in one scene."""

MIN_VISIBLE = 24
"""Pixels of an object that must be visible for it to count as present."""

HELD_OUT_SCENES = 0x5C0BE
"""First part of the seeds of scoring scenes; no training uses it."""


@dataclass(frozen=True)
class DrawnScene:
    """One rendered scene.

    Attributes:
        scene: What was drawn.
        picture: Drawn pixels, uint8 (64, 64, 3).
        twin: The same without its objects, uint8 (64, 64, 3).
        masks: Visible pixels of each thing, bool (things, 64, 64).
    """

    scene: Scene
    picture: NDArray[np.uint8]
    twin: NDArray[np.uint8]
    masks: NDArray[np.bool_]

    @property
    def class_ids(self) -> list[int]:
        """Class of each thing, -1 where too little of it is visible."""
        visible = self.masks.sum((1, 2)) >= MIN_VISIBLE
        return [
            thing.class_id if seen else -1
            for thing, seen in zip(self.scene.things, visible, strict=True)
        ]


@dataclass(frozen=True)
class SceneBatch:
    """Scenes as tensors.

    Attributes:
        images: Float (batch, 3, 64, 64) in [0, 1].
        masks: Float (batch, MAX_THINGS, 64, 64), 0 or 1.
        class_ids: Long (batch, MAX_THINGS), -1 where there is no object.
        scenes: What was drawn; an object-free twin keeps the scene that it was made from.
    """

    images: Tensor
    masks: Tensor
    class_ids: Tensor
    scenes: tuple[Scene, ...]

    def damaged(
        self, generator: torch.Generator, autoencoder: AutoencoderKL | None = None
    ) -> "SceneBatch":
        """Bend and degrade the pictures, some of them through the painter's autoencoder.

        Objects that are bent out of sight are taken off the list.
        """
        images, masks = warp(self.images, self.masks, generator)  # shapes unchanged
        if autoencoder is not None:
            images = reconstruct(images, autoencoder, generator)
        seen = masks.sum((2, 3)) >= MIN_VISIBLE  # (batch, MAX_THINGS)
        class_ids = torch.where(seen, self.class_ids, -1)
        return SceneBatch(degrade(images, generator), masks, class_ids, self.scenes)

    def to(self, device: str) -> "SceneBatch":
        """The same batch with its tensors on a device."""
        return SceneBatch(
            self.images.to(device), self.masks.to(device), self.class_ids.to(device), self.scenes
        )

    def boxes(self) -> Tensor:
        """Left, top, right and bottom of each mask in pixels, far edges exclusive.

        Returns:
            Float (batch, MAX_THINGS, 4); 0 where there is no object.
        """
        columns, rows = self.masks.amax(2) > 0, self.masks.amax(3) > 0  # (batch, MAX_THINGS, 64)
        left, right = _extent(columns)  # (batch, MAX_THINGS) each
        top, bottom = _extent(rows)
        return torch.stack((left, top, right, bottom), -1)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true place on the last axis, 0 and 0 where there is none."""
    size = occupied.shape[-1]
    any_true = occupied.any(-1)
    first = occupied.float().argmax(-1)
    last = size - occupied.flip(-1).float().argmax(-1)
    return (first * any_true).float(), (last * any_true).float()


def draw(scene: Scene) -> DrawnScene:
    """Render a scene, its object-free twin and its masks."""
    return DrawnScene(
        scene, world.render(scene), world.render(scene, things=False), world.masks(scene)
    )


def normalised(images: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """Take each channel's mean off pictures in [0, 1] and divide by its deviation.

    Args:
        images: Float (batch, 3, height, width).
        mean: Of red, green and blue.
        deviation: Of red, green and blue.
    """
    offset, unit = (torch.tensor(row, device=images.device) for row in (mean, deviation))
    return (images - offset.view(3, 1, 1)) / unit.view(3, 1, 1)


def as_pictures(images: Tensor) -> list[Image.Image]:
    """Pictures for an ordinary processor, from floats (batch, 3, height, width) in [0, 1]."""
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return [Image.fromarray(np.ascontiguousarray(picture)) for picture in pixels]


def collate(drawn: Sequence[DrawnScene], bare: Sequence[bool] | None = None) -> SceneBatch:
    """Stack drawn scenes.

    Args:
        drawn: The scenes.
        bare: Which of them are replaced by their object-free twins; none by default.
    """
    bare = [False] * len(drawn) if bare is None else bare
    pictures = [item.twin if none else item.picture for item, none in zip(drawn, bare, strict=True)]
    # (batch, 64, 64, 3) to (batch, 3, 64, 64)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    masks = torch.zeros(len(drawn), MAX_THINGS, *images.shape[-2:])
    class_ids = torch.full((len(drawn), MAX_THINGS), -1)
    for row, (item, none) in enumerate(zip(drawn, bare, strict=True)):
        if none:
            continue
        for column, class_id in enumerate(item.class_ids):
            if class_id >= 0:
                masks[row, column] = torch.from_numpy(item.masks[column])
                class_ids[row, column] = class_id
    return SceneBatch(images, masks, class_ids, tuple(item.scene for item in drawn))


class SceneStream:
    """Random scenes of a training run: a window that moves over an endless list.

    Drawing costs as much as a training step of these models, so each scene of the list is used
    several times while the window passes over it, damaged differently each time.

    Args:
        seed: Of the list of scenes and of all choices from it.
        two_share: Share of the scenes with two objects.
        window: Scenes that are in use at a time.
        fresh: Scenes by which the window moves with each step.
    """

    def __init__(self, seed: int, two_share: float, window: int = 3072, fresh: int = 6) -> None:
        self._seed = seed
        self._two_share = two_share
        self._window = window
        self._fresh = fresh
        self._drawn: dict[int, DrawnScene] = {}

    def batch(self, step: int, size: int, *, empty_share: float = 0.0) -> SceneBatch:
        """The scenes of one step: a pure function of the seed, the step and the sizes.

        Args:
            step: Number of the training step, from 0.
            size: Scenes in the batch.
            empty_share: Share of the scenes that are shown without their objects.
        """
        start = step * self._fresh
        for number in [number for number in self._drawn if number < start]:
            del self._drawn[number]
        rng = np.random.default_rng((self._seed, 2, step))
        numbers = start + rng.integers(0, self._window, size)
        bare = rng.random(size) < empty_share
        return collate([self._scene(int(number)) for number in numbers], bare.tolist())

    def _scene(self, number: int) -> DrawnScene:
        if number not in self._drawn:
            rng = np.random.default_rng((self._seed, 1, number))
            things = 2 if rng.random() < self._two_share else 1
            scene = world.sample_scene(rng, num_things=things, hard=float(rng.random()))
            self._drawn[number] = draw(scene)
        return self._drawn[number]


def held_out(
    count: int, seed: int, *, num_things: int, hard: float | None = None
) -> list[DrawnScene]:
    """Draw scenes for scoring, from seeds that no training uses.

    Args:
        count: How many.
        seed: Of the choice.
        num_things: Objects in each scene, 1 or 2.
        hard: Difficulty from 0 (large, near the centre) to 1; None draws another for each scene.
    """
    scenes = []
    for number in range(count):
        rng = np.random.default_rng((HELD_OUT_SCENES, seed, num_things, number))
        level = float(rng.random()) if hard is None else hard
        scenes.append(draw(world.sample_scene(rng, num_things=num_things, hard=level)))
    return scenes
