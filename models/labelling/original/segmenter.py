"""SAM of its authors' package, prompted with boxes."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from models.arithmetic import rounding_of
from models.devices import pick_device
from models.labelling.original.checkpoints import load_checkpoint
from models.labelling.original.config import OriginalSegmenterConfig
from models.labelling.original.files import find_checkpoint, original_folder
from models.labelling.original.packages import original_module, require_segmenter_packages
from models.protocols import CutMasks
from storage.errors import InputError

_log = logging.getLogger(__name__)


class OriginalSam:
    """SAM of `segment_anything`: an image is encoded once, and its boxes are decoded together.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If a package is missing, or the checkpoint is missing, damaged, incomplete, or
            of another architecture.
    """

    def __init__(self, config: OriginalSegmenterConfig) -> None:
        require_segmenter_packages()
        self.config = config
        self.device = pick_device(config.device)
        checkpoint = find_checkpoint(original_folder(config.model))
        package = original_module("segment_anything")
        network: Any = package.sam_model_registry[config.architecture]()
        load_checkpoint(network, checkpoint)
        network.mask_threshold = config.mask_threshold
        self._predictor: Any = package.SamPredictor(network.eval().to(self.device))
        _log.info("segmenter %s loaded from %s", config.model, checkpoint)

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
        _require_boxes(images, boxes)
        return [self._cut(image, own) for image, own in zip(images, boxes, strict=True)]

    def _cut(
        self, image: UInt8[np.ndarray, "_ _ 3"], boxes: Float32[np.ndarray, "_ 4"]
    ) -> CutMasks:
        size = self.config.boxes_at_once
        with rounding_of(self.config.dtype, self.device):
            self._predictor.set_image(image)
            parts = [
                self._cut_some(boxes[first : first + size], image.shape[:2])
                for first in range(0, len(boxes), size)
            ]
        self._predictor.reset_image()
        return CutMasks(
            np.concatenate([part.masks for part in parts]),
            np.concatenate([part.predicted_ious for part in parts]),
            finite=all(part.finite for part in parts),
        )

    def _cut_some(self, boxes: Float32[np.ndarray, "_ 4"], size: tuple[int, ...]) -> CutMasks:
        corners = torch.as_tensor(boxes, device=self.device)
        masks, ious, logits = self._predictor.predict_torch(
            None,
            None,
            self._predictor.transform.apply_boxes_torch(corners, size),
            multimask_output=self.config.multimask,
        )
        best_ious, best = ious.max(dim=1)
        rows = torch.arange(len(best), device=best.device)
        finite = logits[rows, best].isfinite().all() & best_ious.isfinite().all()
        return CutMasks(
            masks[rows, best].cpu().numpy(), best_ious.cpu().numpy(), finite=bool(finite)
        )


def _require_boxes(images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> None:
    if len(images) != len(boxes):
        message = f"{len(images)} images came with boxes of {len(boxes)}, expected as many"
        raise InputError(message)
    for index, own in enumerate(boxes):
        if len(own) == 0:
            message = f"image {index} has no box, expected at least one to cut along"
            raise InputError(message)
