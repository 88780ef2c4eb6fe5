"""Segmenters: SAM, prompted with boxes."""

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from models.devices import pick_device
from models.labelling.config import SegmenterConfig
from models.networks import load_network
from models.processors import load_image_processor
from models.protocols import CutMasks
from models.weights import resolve_weights
from storage.errors import InputError

_log = logging.getLogger(__name__)

_DECODER_EPSILON = 1e-5  # of the LayerNorms in the two-way transformer of segment-anything


class Sam:
    """SAM of `transformers`: an image is encoded once, all of its boxes are decoded in one call.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If the checkpoint is missing, incomplete, or of another architecture.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        from transformers import SamModel, SamProcessor

        self.config = config
        self.device = pick_device(config.device)
        weights = resolve_weights(config.model, config.revision)
        network = load_network(SamModel, weights, model_type="sam", dtype=config.dtype)
        _normalise_as_trained(network)
        self._network = network.to(self.device)
        self._processor: Any = SamProcessor(load_image_processor(weights, "SamImageProcessor"))
        _log.info("segmenter %s loaded from %s", config.model, weights.source)

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
        inputs = self._processor(
            images=[Image.fromarray(image) for image in images],
            input_boxes=_as_many(boxes),
            return_tensors="pt",
        )
        outputs = self._network(
            pixel_values=inputs["pixel_values"].to(self.device, self._network.dtype),
            input_boxes=inputs["input_boxes"].to(self.device, self._network.dtype),
            multimask_output=self.config.multimask,
        )
        logits, ious = _best(outputs.pred_masks.float(), outputs.iou_scores.float())
        masks = self._processor.post_process_masks(
            # The processor takes rows of masks: the last axis but two is the mask's own.
            [own[: len(box), None] for own, box in zip(logits, boxes, strict=True)],
            inputs["original_sizes"],
            inputs["reshaped_input_sizes"],
            mask_threshold=self.config.mask_threshold,
        )
        finite = (logits.isfinite().all(dim=(2, 3)) & ious.isfinite()).cpu().numpy()
        return [
            CutMasks(
                mask[:, 0].cpu().numpy(),
                own[: len(mask)].cpu().numpy(),
                finite=bool(good[: len(mask)].all()),
            )
            for mask, own, good in zip(masks, ious, finite, strict=True)
        ]


def _normalise_as_trained(network: Any) -> None:
    """Give the decoder the small number with which SAM was trained; transformers has another."""
    for module in network.mask_decoder.transformer.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = _DECODER_EPSILON


def _as_many(boxes: Sequence[Float32[np.ndarray, "_ 4"]]) -> list[list[list[float]]]:
    """Repeat each image's last box until all have as many: the decoder takes a full array."""
    most = max(len(own) for own in boxes)
    return [
        np.concatenate([own, np.repeat(own[-1:], most - len(own), axis=0)]).astype(float).tolist()
        for own in boxes
    ]


def _best(
    logits: Float[Tensor, "images boxes proposals rows columns"],
    ious: Float[Tensor, "images boxes proposals"],
) -> tuple[Float[Tensor, "images boxes rows columns"], Float[Tensor, "images boxes"]]:
    """Take each box's proposal with the highest predicted IoU."""
    best_ious, best = ious.max(dim=2)
    index = best[:, :, None, None, None].expand(-1, -1, 1, *logits.shape[3:])
    return logits.gather(2, index)[:, :, 0], best_ious
