"""An endless, repeatable stream of drawn scenes for training, and fixed ones for scoring."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from models.miniature import world
from models.miniature.degradation import degrade, reconstruct, warp
from models.miniature.world import Scene

MAX_THINGS = 2
"""Most objects in one scene."""

MIN_VISIBLE = 24
"""Pixels of an object that must be visible for it to count as present."""

HELD_OUT = 0x5C0BE
"""Domain of the seeds of scoring scenes: no training stream uses it."""


@dataclass(frozen=True)
class DrawnScene:
    """One rendered scene.

    Attributes:
        scene: what was drawn.
        picture: uint8 (64, 64, 3).
        twin: the same without its objects, uint8 (64, 64, 3).
        masks: visible pixels of each thing, bool (things, 64, 64).
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
        images: float (batch, 3, 64, 64) in [0, 1].
        masks: float (batch, MAX_THINGS, 64, 64), 0 or 1.
        class_ids: long (batch, MAX_THINGS), -1 where there is no object.
        scenes: what was drawn; an object-free twin keeps the scene that it was made from.
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
        images, masks = warp(self.images, self.masks, generator)
        if autoencoder is not None:
            images = reconstruct(images, autoencoder, generator)
        seen = masks.sum((2, 3)) >= MIN_VISIBLE
        class_ids = torch.where(seen, self.class_ids, -1)
        return SceneBatch(degrade(images, generator), masks, class_ids, self.scenes)

    def to(self, device: str) -> "SceneBatch":
        """The same batch with its tensors on a device."""
        return SceneBatch(
            self.images.to(device), self.masks.to(device), self.class_ids.to(device), self.scenes
        )

    def boxes(self) -> Tensor:
        """Corners of each mask's box, float (batch, MAX_THINGS, 4) in pixels; 0 without object."""
        columns, rows = self.masks.amax(2) > 0, self.masks.amax(3) > 0
        left, right = _extent(columns)
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
    """Pictures in [0, 1] with a channel's mean taken off, in units of its deviation."""
    offset, unit = (torch.tensor(row, device=images.device) for row in (mean, deviation))
    return (images - offset.view(3, 1, 1)) / unit.view(3, 1, 1)


def collate(drawn: Sequence[DrawnScene], emptied: Sequence[bool]) -> SceneBatch:
    """Stack rendered scenes; where `emptied` is true, the object-free twin takes the place."""
    pictures = [
        item.twin if bare else item.picture for item, bare in zip(drawn, emptied, strict=True)
    ]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    masks = torch.zeros(len(drawn), MAX_THINGS, *images.shape[-2:])
    class_ids = torch.full((len(drawn), MAX_THINGS), -1)
    for row, (item, bare) in enumerate(zip(drawn, emptied, strict=True)):
        if bare:
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
        seed: of the list of scenes and of all choices from it.
        two_share: share of the scenes with two objects.
        window: scenes that are in use at a time.
        fresh: scenes by which the window moves with each step.
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
            step: number of the training step, from 0.
            size: scenes in the batch.
            empty_share: share of the scenes that are shown without their objects.
        """
        start = step * self._fresh
        for number in [number for number in self._drawn if number < start]:
            del self._drawn[number]
        rng = np.random.default_rng((self._seed, 2, step))
        numbers = start + rng.integers(0, self._window, size)
        emptied = rng.random(size) < empty_share
        return collate([self._scene(int(number)) for number in numbers], emptied.tolist())

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
    """Scenes for scoring, from seeds that no training run uses.

    Args:
        count: how many.
        seed: of the choice.
        num_things: objects in each scene, 1 or 2.
        hard: difficulty from 0 (large, near the centre) to 1; None draws it anew for each scene.
    """
    scenes = []
    for number in range(count):
        rng = np.random.default_rng((HELD_OUT, seed, num_things, number))
        level = float(rng.random()) if hard is None else hard
        scenes.append(draw(world.sample_scene(rng, num_things=num_things, hard=level)))
    return scenes
