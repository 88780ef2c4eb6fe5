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

from models.arithmetic import rounding_of
from models.devices import pick_device
from models.labelling.config import SegmenterConfig
from models.networks import load_network
from models.processors import load_image_processor
from models.protocols import CutMasks
from models.threads import in_threads
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
        self._dtype = network.dtype
        _place_in_float32(network, self._dtype)
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

    def _inputs(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], boxes: list[list[list[float]]]
    ) -> dict[str, Tensor]:
        """Prepare images, each by itself; all come out as squares of one size."""

        def prepare(image: np.ndarray, own: list[list[float]]) -> Any:
            picture = Image.fromarray(image)
            return self._processor(images=[picture], input_boxes=[own], return_tensors="pt")

        pairs = list(zip(images, boxes, strict=True))
        prepared = in_threads(lambda pair: prepare(*pair), pairs)
        return {name: torch.cat([one[name] for one in prepared]) for name in prepared[0]}

    @torch.inference_mode()
    def _cut_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    ) -> list[CutMasks]:
        inputs = self._inputs(images, _as_many(boxes))
        with rounding_of(self.config.dtype, self.device):
            outputs = self._network(
                pixel_values=inputs["pixel_values"].to(self.device, self._dtype),
                input_boxes=inputs["input_boxes"].to(self.device, torch.float32),
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


def _place_in_float32(network: Any, kind: torch.dtype) -> None:
    """Turn places into waves in float32 whatever the rest computes in.

    In half precision a corner of a box would be known to within a pixel or four of 1,024.
    """
    if kind == torch.float32:
        return
    # One module, or two that share their weights.
    for module in {network.shared_image_embedding, network.prompt_encoder.shared_embedding}:
        module.float()
        module.register_forward_hook(lambda _module, _places, waves: waves.to(kind))


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
