"""SAM of its authors' package, behind the same front as that of transformers."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from models.arithmetic import rounding_of
from models.devices import pick_device
from models.labelling.box_segmenter import BoxSegmenter, Square, runs_of
from models.labelling.original.checkpoints import load_checkpoint
from models.labelling.original.config import OriginalSegmenterConfig
from models.labelling.original.files import find_checkpoint, original_folder
from models.labelling.original.packages import original_module, require_segmenter_packages
from models.threads import in_threads

_log = logging.getLogger(__name__)


class OriginalSam(BoxSegmenter):
    """SAM of `segment_anything`.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If a package is missing, or the checkpoint is missing, damaged, incomplete, or
            of another architecture.
    """

    def __init__(self, config: OriginalSegmenterConfig) -> None:
        require_segmenter_packages()
        super().__init__(config, _Network(config))


class _Network:
    """The network in the steps of the package's `SamPredictor`, which knows one image at a time.

    Args:
        config: Checkpoint and arithmetic.
    """

    def __init__(self, config: OriginalSegmenterConfig) -> None:
        self._config = config
        self._device = pick_device(config.device)
        checkpoint = find_checkpoint(original_folder(config.model))
        package = original_module("segment_anything")
        network: Any = package.sam_model_registry[config.architecture]()
        load_checkpoint(network, checkpoint)
        self._network = network.eval().to(self._device)
        resizing = original_module("segment_anything.utils.transforms")
        self._resize: Any = resizing.ResizeLongestSide(network.image_encoder.img_size)
        _log.info("segmenter %s loaded from %s", config.model, checkpoint)

    def squares(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Square]:
        """Resize images; the network itself takes colours and padding as they are here."""
        return in_threads(self._square, images)

    def _square(self, image: UInt8[np.ndarray, "_ _ 3"]) -> Square:
        resized = self._resize.apply_image(image)
        pixels = torch.from_numpy(resized).permute(2, 0, 1)[None].to(self._device)
        height, width = image.shape[:2]
        inside = (resized.shape[0], resized.shape[1])
        return Square(self._network.preprocess(pixels), (height, width), inside)

    def encode(self, pixels: Float32[Tensor, "images 3 side side"]) -> Sequence[Tensor]:
        """Encode images."""
        with rounding_of(self._config.dtype, self._device):
            return [self._network.image_encoder(pixels)]

    def decode(
        self,
        encoded: Sequence[Tensor],
        owners: Int[np.ndarray, " boxes"],
        corners: Float32[np.ndarray, "boxes 4"],
    ) -> tuple[Float[Tensor, "boxes proposals rows columns"], Float[Tensor, "boxes proposals"]]:
        """Propose masks: the package decodes boxes of one image in a call."""
        [embeddings] = encoded
        with rounding_of(self._config.dtype, self._device):
            made = [
                self._decode(embeddings[image : image + 1], torch.from_numpy(corners[rows]))
                for image, rows in runs_of(owners)
            ]
        return torch.cat([logits for logits, _ in made]), torch.cat([ious for _, ious in made])

    def _decode(
        self, embedding: Float[Tensor, "1 _ _ _"], corners: Float32[Tensor, "boxes 4"]
    ) -> tuple[Tensor, Tensor]:
        prompts = self._network.prompt_encoder
        sparse, dense = prompts(points=None, boxes=corners.to(self._device), masks=None)
        return self._network.mask_decoder(
            image_embeddings=embedding,
            image_pe=prompts.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self._config.multimask,
        )

    def enlarge(
        self, logits: Float[Tensor, "boxes rows columns"], square: Square
    ) -> Float[Tensor, "boxes height width"]:
        """Bring masks of one image to its size."""
        return self._network.postprocess_masks(logits[:, None], square.inside, square.size)[:, 0]
