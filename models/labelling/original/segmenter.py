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
from models.labelling.original.packages import importing_original, require_segmenter_packages
from models.loading import LOADING
from models.protocols import CutMasks

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
        with LOADING, importing_original():
            from segment_anything import SamPredictor, sam_model_registry
        network: Any = sam_model_registry[config.architecture]()
        load_checkpoint(network, checkpoint)
        network.mask_threshold = config.mask_threshold
        self._predictor: Any = SamPredictor(network.eval().to(self.device))
        _log.info("segmenter %s loaded from %s", config.model, checkpoint)

    def segment(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    ) -> list[CutMasks]:
        """Cut one mask for each box."""
        return [self._cut(image, own) for image, own in zip(images, boxes, strict=True)]

    def _cut(
        self, image: UInt8[np.ndarray, "_ _ 3"], boxes: Float32[np.ndarray, "_ 4"]
    ) -> CutMasks:
        size = image.shape[:2]
        corners = torch.as_tensor(boxes, device=self.device)
        with rounding_of(self.config.dtype, self.device):
            self._predictor.set_image(image)
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
