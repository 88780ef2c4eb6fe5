"""Room for the samples of a batch, which is used again and again.

Each sample is written straight into its place, whichever thread makes it: nothing is left to do for
the batch as a whole. On the way to a GPU the room is pinned, so that it is copied while the GPU
computes. Pinning takes longer than a copy, which is why it must be used again.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from training.augmentation import LabelledPair


@dataclass(frozen=True)
class Batch:
    """The inputs of one pass through the network, on the CPU.

    Attributes:
        image: Positive images, RGB levels.
        counterfactual: Counterfactual images of the same views, of the images that have one.
        twins: Which images these are: their places in the batch, ascending.
        targets: Position of each pixel's class in the image's names, or a negative number.
        class_ids: Vocabulary indices of the names, the image's own first.
        active: Names that may teach the image anything.
        present: Names of which the targets show at least one pixel.
    """

    image: UInt8[Tensor, "batch 3 side side"]
    counterfactual: UInt8[Tensor, "pairs 3 side side"]
    twins: Int[Tensor, " pairs"]
    targets: Int[Tensor, "batch side side"]
    class_ids: Int[Tensor, "batch m"]
    active: Bool[Tensor, "batch m"]
    present: Bool[Tensor, "batch m"]

    @property
    def num_present(self) -> int:
        """(image, class) pairs of which the targets show at least one pixel."""
        return int(self.present.sum())


class BatchRoom:
    """Memory of one batch.

    Args:
        size: Samples.
        side: Side of the views in pixels.
        names: Names an image.
        pinned: Whether it is pinned, for which there must be a GPU.
    """

    def __init__(self, size: int, side: int, names: int, *, pinned: bool = False) -> None:
        def room(*shape: int, dtype: torch.dtype) -> Any:
            return torch.empty(shape, dtype=dtype, pin_memory=pinned)

        self._images = room(2, size, side, side, 3, dtype=torch.uint8)  # the second: twins
        self._targets = room(size, side, side, dtype=torch.int16)
        self._class_ids = room(size, names, dtype=torch.int64)
        self._flags = room(2, size, names, dtype=torch.bool)  # active, present
        self._paired = np.zeros(size, np.bool_)
        parts = (self._images, self._targets, self._class_ids, self._flags)
        self._written = tuple(part.numpy() for part in parts)  # the same memory

    def targets(self, place: int) -> Int[np.ndarray, "side side"]:
        """Where the targets of a sample are to be written."""
        return self._written[1][place]

    def put(
        self,
        place: int,
        view: LabelledPair,
        class_ids: Int[np.ndarray, " m"],
        *,
        active: Bool[np.ndarray, " m"],
        present: Bool[np.ndarray, " m"],
    ) -> None:
        """Write all but the targets of a sample.

        Args:
            place: Its place in the batch.
            view: Its images.
            class_ids: Its names.
            active: Which of them may teach.
            present: Which of them its targets show.
        """
        images, _, names, flags = self._written
        images[0, place] = view.image
        self._paired[place] = view.counterfactual is not None
        if view.counterfactual is not None:
            images[1, place] = view.counterfactual
        names[place] = class_ids
        flags[0, place], flags[1, place] = active, present

    def batch(self) -> Batch:
        """The batch, once every sample is there; it lasts until the room is used again."""
        image, twin = self._images.permute(0, 1, 4, 2, 3)
        active, present = self._flags
        pairs = torch.from_numpy(self._paired.nonzero()[0])
        return Batch(
            image=image,
            counterfactual=twin if len(pairs) == len(image) else twin[pairs],
            twins=pairs,
            targets=self._targets,
            class_ids=self._class_ids,
            active=active,
            present=present,
        )
