"""Segmenters that are prompted with boxes: what is the same in front of every such network.

An image is encoded once. Its boxes are decoded in chunks, which go across images: a decoder holds
some 44 MB for each box, and a detector may find a box in every corner. So memory does not grow with
the boxes, but for a bit a pixel of each mask.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from models.labelling.config import BoxSegmenterConfig
from models.masks import PackedMasks
from models.protocols import CutMasks
from storage.errors import InputError


@dataclass(frozen=True)
class Square:
    """An image as a network takes it.

    Attributes:
        pixels: Prepared, with an axis for the images of a batch.
        size: Height and width of the image given.
        inside: Height and width of the image in the square; the rest is padding.
    """

    pixels: Float32[Tensor, "1 3 side side"]
    size: tuple[int, int]
    inside: tuple[int, int]

    def corners(self, boxes: Float32[np.ndarray, "boxes 4"]) -> Float32[np.ndarray, "boxes 4"]:
        """The corners of boxes of the image given, in pixels of the square."""
        (height, width), (high, wide) = self.size, self.inside
        return (boxes.astype(np.float64) * ([wide / width, high / height] * 2)).astype(np.float32)


@runtime_checkable
class BoxBackend(Protocol):
    """A network that cuts along boxes; which proposal is taken, and above what, is not its part."""

    def squares(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Square]:
        """Prepare images, each by itself."""
        ...

    def encode(self, pixels: Float32[Tensor, "images 3 side side"]) -> Sequence[Tensor]:
        """Encode images; what comes out has an axis for them in front."""
        ...

    def decode(
        self,
        encoded: Sequence[Tensor],
        owners: Int[np.ndarray, " boxes"],
        corners: Float32[np.ndarray, "boxes 4"],
    ) -> tuple[Float[Tensor, "boxes proposals rows columns"], Float[Tensor, "boxes proposals"]]:
        """Propose masks, each with its predicted IoU, for boxes of images in ascending order.

        Args:
            encoded: What `encode` returned.
            owners: For each box the index of its image.
            corners: In pixels of the square.
        """
        ...

    def enlarge(
        self, logits: Float[Tensor, "boxes rows columns"], square: Square
    ) -> Float[Tensor, "boxes height width"]:
        """Bring masks of one image to its size."""
        ...


class BoxSegmenter:
    """Cuts one mask for each box.

    Args:
        config: Thresholds, and how much is computed at once.
        backend: The network.
    """

    def __init__(self, config: BoxSegmenterConfig, backend: BoxBackend) -> None:
        self.config = config
        self.backend = backend

    def segment(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    ) -> list[CutMasks]:
        """Cut one mask for each box.

        Args:
            images: RGB; sizes may differ.
            boxes: For each image at least one box, xyxy in its pixels.

        Returns:
            Masks at the size of the image given, in the order of the boxes.

        Raises:
            InputError: If an image has no box, or the two lists differ in length.
        """
        if len(images) != len(boxes):
            message = f"{len(images)} images came with boxes of {len(boxes)}, expected as many"
            raise InputError(message)
        for index, own in enumerate(boxes):
            if len(own) == 0:
                message = f"image {index} has no box, expected at least one to cut along"
                raise InputError(message)
        return list(chain.from_iterable(self._cuts(images, boxes)))

    def _cuts(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    ) -> Iterator[list[CutMasks]]:
        size = self.config.batch_size
        for first in range(0, len(images), size):
            part = slice(first, first + size)
            yield self._cut_batch(images[part], boxes[part])

    @torch.inference_mode()
    def _cut_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    ) -> list[CutMasks]:
        squares = self.backend.squares(images)
        encoded = self.backend.encode(torch.cat([square.pixels for square in squares]))
        owners = np.repeat(np.arange(len(boxes)), [len(own) for own in boxes])
        corners = np.concatenate(
            [square.corners(own) for square, own in zip(squares, boxes, strict=True)]
        )
        parts: list[list[CutMasks]] = [[] for _ in images]
        for first in range(0, len(owners), self.config.boxes_at_once):
            chunk = slice(first, first + self.config.boxes_at_once)
            logits, ious = _best(*self.backend.decode(encoded, owners[chunk], corners[chunk]))
            for owner, rows in runs_of(owners[chunk]):
                parts[owner].append(self._read(logits[rows], ious[rows], squares[owner]))
        return [_joined(own) for own in parts]

    def _read(
        self,
        logits: Float32[Tensor, "boxes rows columns"],
        ious: Float32[Tensor, " boxes"],
        square: Square,
    ) -> CutMasks:
        masks = self.backend.enlarge(logits, square) > self.config.mask_threshold
        finite = logits.isfinite().all() & ious.isfinite().all()
        packed = PackedMasks.of(masks.cpu().numpy())
        return CutMasks(packed, ious.cpu().numpy(), finite=bool(finite))


def enlarged(
    logits: Float[Tensor, "boxes _ _"], size: tuple[int, int]
) -> Float[Tensor, "boxes _ _"]:
    """Masks at another size, by bilinear interpolation."""
    return F.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def runs_of(owners: Int[np.ndarray, " boxes"]) -> Iterator[tuple[int, slice]]:
    """Each image that has boxes, with the place of its boxes among all of them."""
    images, starts = np.unique(owners, return_index=True)
    for image, first, last in zip(images, starts, [*starts[1:], len(owners)], strict=True):
        yield int(image), slice(int(first), int(last))


def _best(
    logits: Float[Tensor, "boxes proposals rows columns"], ious: Float[Tensor, "boxes proposals"]
) -> tuple[Float32[Tensor, "boxes rows columns"], Float32[Tensor, " boxes"]]:
    """Take each box's proposal with the highest predicted IoU."""
    best_ious, best = ious.float().max(dim=1)
    rows = torch.arange(len(best), device=best.device)
    return logits[rows, best].float(), best_ious


def _joined(parts: Sequence[CutMasks]) -> CutMasks:
    """What was cut out of one image in several chunks."""
    return CutMasks(
        PackedMasks.joined([part.masks for part in parts if isinstance(part.masks, PackedMasks)]),
        np.concatenate([part.predicted_ious for part in parts]),
        finite=all(part.finite for part in parts),
    )
