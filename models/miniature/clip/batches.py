"""Which scenes CLIP sees together: every class several times, all on one background."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.miniature.scenes import DrawnScene, draw
from models.miniature.world import BACKGROUNDS, CLASSES, sample_scene

_SLOTS = 20
_PERIOD = 1500


@dataclass(frozen=True)
class Sizes:
    """How many scenes of each kind are in a batch.

    Attributes:
        per_class: One-object scenes of each class, at least 1.
        pairs: Two-object scenes.
        empties: Scenes that are shown without their object.
    """

    per_class: int
    pairs: int
    empties: int

    def divided(self, divisor: int) -> "Sizes":
        """The sizes of a batch that has so many times fewer scenes."""
        return Sizes(
            max(1, self.per_class // divisor), self.pairs // divisor, self.empties // divisor
        )


class ScenePool:
    """Drawn scenes by class and background, in numbered slots.

    Drawing is slow, so the scene in a slot is used again; a fresh one takes its place every 1,500
    steps, in each slot at another step.

    Args:
        seed: Of the scenes.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn: dict[tuple[int, ...], tuple[int, DrawnScene]] = {}

    def scene(self, step: int, background: int, classes: Sequence[int], slot: int) -> DrawnScene:
        """The scene that is in a slot at a step.

        Args:
            step: Number of the training step.
            background: Index into `BACKGROUNDS`.
            classes: The classes of its objects, one or two.
            slot: Number of the slot among those of the same classes and background.
        """
        generation = (step + slot * _PERIOD // _SLOTS) // _PERIOD
        key = (background, slot, *classes)
        if key not in self._drawn or self._drawn[key][0] != generation:
            rng = np.random.default_rng((self._seed, 3, *key, generation))
            scene = sample_scene(
                rng,
                num_things=len(classes),
                hard=float(rng.random()),
                class_ids=classes,
                background=BACKGROUNDS[background],
            )
            self._drawn[key] = (generation, draw(scene))
        return self._drawn[key][1]

    def batch(
        self, step: int, sizes: Sizes, rng: np.random.Generator
    ) -> tuple[list[DrawnScene], list[bool]]:
        """Choose scenes on one background, and say which are shown without their objects.

        Args:
            step: Number of the training step.
            sizes: How many scenes of each kind.
            rng: Source of all choices.
        """
        background = int(rng.integers(len(BACKGROUNDS)))
        asked = _class_sets(sizes, rng)
        slots = rng.integers(0, _SLOTS, len(asked))
        drawn = [
            # two-object scenes share few slots: there are three times as many kinds of them
            self.scene(step, background, classes, int(slot) // (1 if len(classes) == 1 else 4))
            for classes, slot in zip(asked, slots, strict=True)
        ]
        return drawn, [False] * (len(drawn) - sizes.empties) + [True] * sizes.empties


def _class_sets(sizes: Sizes, rng: np.random.Generator) -> list[list[int]]:
    """The classes of each scene of a batch: one object, two objects, then those left out."""
    classes = range(len(CLASSES))
    ones = [[c] for c in classes for _ in range(sizes.per_class)]
    # pairs of neighbours in one fixed list, so that few enough of them are drawn again and again
    pairs = [[c, (c + gap) % len(CLASSES)] for c in classes for gap in (1, 3, 5)]
    chosen = rng.choice(len(pairs), sizes.pairs, replace=False)
    twos = [pairs[int(number)] for number in chosen]
    empties = [[int(rng.integers(len(CLASSES)))] for _ in range(sizes.empties)]
    return ones + twos + empties
