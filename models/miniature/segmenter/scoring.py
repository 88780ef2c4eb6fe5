"""How well the miniature SAM cuts out the objects of held-out scenes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import SamModel, SamProcessor

from models.miniature.scenes import DrawnScene, SceneBatch, as_pictures, collate, held_out
from models.miniature.world import CANVAS

BoxSource = Callable[[SceneBatch], Tensor]
"""Gives the boxes of a batch: corners, float (batch, things, 4), in pixels."""


def score(folder: Path, num_scenes: int, seed: int) -> dict[str, float]:
    """Score a trained folder on held-out scenes, through the ordinary processor.

    Args:
        folder: A `from_pretrained` folder.
        num_scenes: Scenes of each kind.
        seed: Of the held-out scenes.

    Returns:
        Mean IoU over objects with true boxes, in one-object scenes (`iou_one`), two-object scenes
        (`iou_two`), both (`iou`), with boxes that are off by some pixels (`iou_jittered`), in
        damaged pictures (`iou_damaged`), and of the mask of three that the network itself rates
        best (`iou_best_of_three`).
    """
    one = held_out(num_scenes, seed, num_things=1)
    two = held_out(num_scenes, seed, num_things=2)
    generator = torch.Generator().manual_seed(seed)
    metrics = {
        "iou_one": _mean_iou(folder, one),
        "iou_two": _mean_iou(folder, two),
        "iou_jittered": _mean_iou(
            folder, two, lambda batch: jittered(batch.boxes(), 0.05, generator)
        ),
        "iou_damaged": _mean_iou(folder, two, damage=seed),
        "iou_best_of_three": _mean_iou(folder, two, several=True),
    }
    metrics["iou"] = (metrics["iou_one"] + 2 * metrics["iou_two"]) / 3
    return metrics


def _mean_iou(
    folder: Path,
    scenes: Sequence[DrawnScene],
    boxes: BoxSource = SceneBatch.boxes,
    *,
    damage: int | None = None,
    several: bool = False,
) -> float:
    """Mean IoU of the visible objects of scenes.

    Args:
        folder: A `from_pretrained` folder.
        scenes: What to segment.
        boxes: Where the boxes come from; the true ones by default. An empty box counts as IoU 0.
        damage: Seed of bending and degrading the pictures first; None leaves them clean.
        several: Ask for three masks and take the one that the network rates best.
    """
    network = SamModel.from_pretrained(folder, dtype=torch.float32).eval()
    loaded = SamProcessor.from_pretrained(folder)
    batch = collate(scenes)
    if damage is not None:
        batch = batch.damaged(torch.Generator().manual_seed(damage))
    asked = boxes(batch)
    parts = [
        _segment(network, loaded, batch.images[s : s + 50], asked[s : s + 50], several=several)
        for s in range(0, len(scenes), 50)
    ]
    cut = torch.cat(parts)  # (scenes, things, 64, 64)
    cut &= (asked[..., 2:] > asked[..., :2]).all(-1)[..., None, None]  # nothing in an empty box
    truth = batch.masks > 0.5
    present = batch.class_ids >= 0
    union = (cut | truth).sum((2, 3)).clamp(min=1)
    overlap = (cut & truth).sum((2, 3)) / union  # (scenes, things)
    return float(overlap[present].mean())


def jittered(boxes: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Move every side of boxes by a random share of the box's size.

    Args:
        boxes: Corners in pixels, float (batch, things, 4).
        deviation: Standard deviation of the share.
        generator: Source of all randomness.
    """
    size = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)  # width, height, width, height
    moved = boxes + torch.randn(boxes.shape, generator=generator) * deviation * size
    return moved.clamp(0, CANVAS)


@torch.no_grad()
def _segment(
    network: SamModel, loaded: Any, images: Tensor, boxes: Tensor, *, several: bool
) -> Tensor:
    """Masks, bool (batch, things, 64, 64), of pictures in [0, 1] and boxes in pixels."""
    inputs = loaded(images=as_pictures(images), input_boxes=boxes.tolist(), return_tensors="pt")
    result = network(
        pixel_values=inputs["pixel_values"],
        input_boxes=inputs["input_boxes"].float(),
        multimask_output=several,
    )
    masks = loaded.post_process_masks(
        result.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )
    best = result.iou_scores.argmax(-1)  # (batch, things): which of one or three masks
    chosen = [
        mask[torch.arange(len(index)), index] for mask, index in zip(masks, best, strict=True)
    ]
    return torch.stack(chosen)
