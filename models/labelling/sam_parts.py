"""What the networks of the SAM family have in common: their norms, and how they know places."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.compiling import compiled_for_batches
from models.labelling.box_segmenter import Square, enlarged
from models.preparation import ImagePreparation
from models.weights import Weights

_DECODER_EPSILON = 1e-5  # of the LayerNorms in the two-way transformer of segment-anything


class PaddedSquares:
    """Images in squares as SAM takes them: the longer edge fills the square, the rest is padding.

    Args:
        weights: The checkpoint, with the file of its image processor.
        device: Where the network computes.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self._images = ImagePreparation(weights, "SamImageProcessor", device)

    def squares(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Square]:
        """Prepare images, each by itself."""
        return _squares(self._images, images)

    def enlarge(
        self, logits: Float[Tensor, "boxes rows columns"], square: Square
    ) -> Float[Tensor, "boxes height width"]:
        """Bring masks to the square, and what is not padding to the size of the image."""
        high, wide = square.inside
        whole = enlarged(logits, (square.pixels.shape[2], square.pixels.shape[3]))
        return enlarged(whole[:, :high, :wide], square.size)


class StretchedSquares:
    """Images in squares as SAM 2 takes them: both edges fill the square.

    Args:
        weights: The checkpoint, with the file of its image processor.
        device: Where the network computes.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        # The class that the file names needs torchvision; this one reads the same file, and does
        # the same with Pillow.
        self._images = ImagePreparation(weights, "ViTImageProcessor", device)

    def squares(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Square]:
        """Prepare images, each by itself."""
        return _squares(self._images, images)

    def enlarge(
        self, logits: Float[Tensor, "boxes rows columns"], square: Square
    ) -> Float[Tensor, "boxes height width"]:
        """Bring masks to the size of the image at once."""
        return enlarged(logits, square.size)


def compile_tower(encoder: Any, batch_size: int | None) -> None:
    """Let an image encoder be compiled when the first batch of images is full.

    Args:
        encoder: That of SAM or SAM-HQ in transformers; images are squares of one size.
        batch_size: Images of a full batch; None to compile nothing.
    """
    if batch_size is None:
        return
    name = "the segmenter's image tower"
    run = compiled_for_batches(encoder.forward, name, batch_size=batch_size)

    def forward(pixel_values: Float[Tensor, "images 3 side side"], **options: Any) -> Any:
        return run(pixel_values, **options)

    encoder.forward = forward


def place_in_float32(network: Any, kind: torch.dtype) -> None:
    """Turn places into waves in float32 whatever the rest computes in.

    In half precision a corner of a box would be known to within a pixel or four of 1,024.
    """
    if kind == torch.float32:
        return
    # One module, or two that share their weights.
    for module in {network.shared_image_embedding, network.prompt_encoder.shared_embedding}:
        module.float()
        module.register_forward_hook(lambda _module, _places, waves: waves.to(kind))


def normalise_as_trained(network: Any) -> None:
    """Give the decoder the small number with which SAM was trained; transformers has another."""
    for module in network.mask_decoder.transformer.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = _DECODER_EPSILON


def of_owners(encoded: Sequence[Tensor], owners: np.ndarray) -> list[Tensor]:
    """For each box what its image was encoded to."""
    rows = torch.from_numpy(owners).to(encoded[0].device)
    return [own[rows] for own in encoded]


def _squares(preparation: ImagePreparation, images: Sequence[np.ndarray]) -> list[Square]:
    return [
        Square(prepared.pixels, (image.shape[0], image.shape[1]), prepared.inside)
        for image, prepared in zip(images, preparation.prepare(images), strict=True)
    ]
