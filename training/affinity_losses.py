"""What affinities are trained to say: which pairs of cells have one label."""

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt16
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.labelling.attention.affinity import pair_affinity, pair_offsets, paired
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL

_LEAST = 1e-5  # in logarithms, counts and shares of a cell, as AffinityNet has it


def cell_labels(
    labels: UInt16[np.ndarray, "height width"], stride: int
) -> UInt16[np.ndarray, "rows columns"]:
    """Give each cell of the grid the label of most of its sure pixels; of none if all are unsure.

    Args:
        labels: Class index plus one, 0 for background, 65535 for pixels that are unsure; both
            sides are multiples of the stride.
        stride: Pixels a cell. Of equally frequent labels the lowest wins.
    """
    height, width = labels.shape
    cells = labels.reshape(height // stride, stride, width // stride, stride)
    present = [label for label in np.unique(labels).tolist() if label != IGNORE_LABEL]
    if not present:
        return cells[:, 0, :, 0]
    shares = np.stack([(cells == label).mean(axis=(1, 3)) for label in present])
    found = np.array(present, np.uint16)[shares.argmax(axis=0)]
    found[shares.max(axis=0) < _LEAST] = IGNORE_LABEL
    return found


def affinity_loss(
    features: Float[Tensor, "batch features rows columns"],
    labels: Int64[Tensor, "batch rows columns"],
    radius: int,
) -> Float[Tensor, ""]:
    """Judge the affinities of all pairs of sure cells that are nearer than the radius.

    AffinityNet's loss: pairs of background, pairs of one class and pairs of two labels each have
    the mean of their own, a quarter, a quarter and half of the whole. Kinds that do not occur
    count as 0. Differences of embeddings are computed again for the gradient rather than kept,
    which would take a gigabyte for a batch of 8 crops of 448 pixels.

    Args:
        features: Embeddings of the cells.
        labels: Of the cells, 0 for background, 65535 where they are unsure.
        radius: In cells.
    """
    sums, counts = features.new_zeros(3), features.new_zeros(3)
    for offset in pair_offsets(radius):
        own, other = paired(labels, offset)
        if not own.numel():
            continue
        affinity = checkpoint(pair_affinity, features, offset, use_reentrant=False)
        alike, apart = -torch.log(affinity + _LEAST), -torch.log(1.0 + _LEAST - affinity)
        sure = (own != IGNORE_LABEL) & (other != IGNORE_LABEL)
        ground = own == BACKGROUND_LABEL
        kinds = torch.stack(
            [sure & (own == other) & ground, sure & (own == other) & ~ground, sure & (own != other)]
        )
        terms = torch.stack([alike, alike, apart])
        sums = sums + (terms * kinds).sum(dim=(1, 2, 3))
        counts = counts + kinds.sum(dim=(1, 2, 3))
    background, foreground, different = sums / (counts + _LEAST)
    return background / 4 + foreground / 4 + different / 2
