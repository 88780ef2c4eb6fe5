"""Pairs that the painter is asked for, what it paints, and what the judge sees in them.

The painter is asked through the same code as in a generation run. The judge is independent: the
detector that labels the pictures has no say in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.miniature import captions
from models.miniature.judge import network as judge
from models.miniature.world import CLASSES, sample_scene
from models.painting.painters import DiffusionPairPainter
from models.profiles import load_profile
from models.protocols import PaintedPair, PairRequest


@dataclass(frozen=True)
class Order:
    """A pair to paint and the classes that its first picture must show.

    Attributes:
        class_ids: One or two classes.
        request: Both texts and the seed.
    """

    class_ids: tuple[int, ...]
    request: PairRequest


@dataclass(frozen=True)
class Painted:
    """Pairs and what the judge sees in them.

    Attributes:
        orders: What was asked for.
        pairs: What was painted.
        positive: The judge's probabilities for the positives, shape (pairs, classes + 1).
        negative: The same for the counterfactuals.
    """

    orders: Sequence[Order]
    pairs: Sequence[PaintedPair]
    positive: NDArray[np.float32]
    negative: NDArray[np.float32]


def orders(per_class: int, pairs: int, seed: int) -> list[Order]:
    """Make up texts in the painter's words.

    Args:
        per_class: Texts about each class alone.
        pairs: Texts about two random classes.
        seed: Of texts and pictures.
    """
    rng = np.random.default_rng((seed, 5))
    wanted = [(class_id,) for class_id in range(len(CLASSES)) for _ in range(per_class)]
    wanted += [tuple(rng.choice(len(CLASSES), 2, replace=False).tolist()) for _ in range(pairs)]
    result = []
    for number, class_ids in enumerate(wanted):
        scene = sample_scene(rng, num_things=len(class_ids), class_ids=class_ids)
        text, twin, _ = captions.caption(scene, rng, bare=False)
        shown = tuple(thing.class_id for thing in scene.things)
        result.append(Order(shown, PairRequest(text, twin, seed * 100_000 + number)))
    return result


def paint(weights: Path, wanted: Sequence[Order]) -> Painted:
    """Paint pairs and judge them.

    Args:
        weights: Folder that holds `painter` and `judge`.
        wanted: The pairs.
    """
    settings = load_profile("miniature").painter
    painter = DiffusionPairPainter(settings.model_copy(update={"model": str(weights / "painter")}))
    pairs = painter.paint([order.request for order in wanted])
    network = judge.load(weights / "judge")
    return Painted(
        wanted,
        pairs,
        network.probabilities(np.stack([pair.image for pair in pairs])),
        network.probabilities(np.stack([pair.counterfactual for pair in pairs])),
    )


def contact_sheet(painted: Painted, columns: int = 8, rows: int = 8) -> Image.Image:
    """Lay out positives with their counterfactuals beside them, spread evenly over all pairs."""
    chosen = np.linspace(0, len(painted.pairs) - 1, columns * rows).round().astype(int)
    tiles = [
        np.concatenate([painted.pairs[i].image, painted.pairs[i].counterfactual], axis=1)
        for i in chosen
    ]
    lines = [np.concatenate(tiles[i * columns : (i + 1) * columns], axis=1) for i in range(rows)]
    return Image.fromarray(np.concatenate(lines))
