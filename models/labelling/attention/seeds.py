"""Seeds of a class with the edges of the image, as DiffuMask gives them to its AffinityNet."""

import numpy as np
from jaxtyping import Float32

from models.labelling.attention.dense_crf import DenseCrf, two_label_energies
from models.labelling.attention.thresholds import SeedLevels, Seeds

SEED_CERTAINTY = 0.7
"""Of a pixel's label before the field, as DiffuMask has it."""


def field_seeds(
    class_map: Float32[np.ndarray, "height width"],
    levels: SeedLevels,
    field: DenseCrf,
    *,
    certainty: float = SEED_CERTAINTY,
) -> Seeds:
    """Refine the map's foreground under both thresholds, and take the pixels on which they agree.

    The release turns the field's probabilities round before it compares them, which would make
    background of what is foreground; this follows the paper.

    Args:
        class_map: Of one class, in [0, 1].
        levels: Its thresholds.
        field: Of the image, with `SEED_CRF`.
        certainty: Of a pixel's label before the field, among the published 21.

    Raises:
        InputError: If map and image differ in size.
    """
    energies = [
        two_label_energies(class_map > level, certainty)
        for level in (levels.strict, levels.generous)
    ]
    strict, generous = field.infer(np.stack(energies))[:, 1] > 0.5
    return Seeds(strict & generous, ~strict & ~generous)
