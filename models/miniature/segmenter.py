"""Training of the miniature SAM on drawn scenes: boxes in, masks out.

The architecture is that of `transformers`, in a tiny geometry. Most scenes hold two objects,
because a segmenter that only ever saw one learns to ignore its box.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import (
    SamConfig,
    SamImageProcessorPil,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from models.miniature.loop import Training
from models.miniature.optimisation import Course, LossOfStep, Schedule, save_half, teach
from models.miniature.scenes import (
    DrawnScene,
    SceneBatch,
    SceneStream,
    collate,
    held_out,
    normalised,
)
from models.miniature.world import CANVAS

_PATCH = 4
_WIDTH = 128
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

BoxSource = Callable[[SceneBatch], Tensor]
"""Gives the boxes of a batch: float (batch, things, 4), pixels."""


@dataclass(frozen=True)
class Config(Training):
    """Hyper-parameters of the segmenter's training, beside those of every training.

    Attributes:
        batch: scenes in a step.
        learning_rate: highest learning rate.
        flat: share of the steps after which the rate falls.
        two_share: share of the scenes with two objects.
        jitter: standard deviation of the error of a box side, as a share of the box's size.
        multi_share: share of the steps that train the head of three masks.
    """

    steps: int = 1000
    batch: int = 16
    learning_rate: float = 1e-3
    flat: float = 0.75
    two_share: float = 0.75
    jitter: float = 0.05
    multi_share: float = 0.3


def processor() -> SamProcessor:
    """Image and prompt processor for scenes of the world."""
    side = {"height": CANVAS, "width": CANVAS}
    images = SamImageProcessorPil(
        size={"longest_edge": CANVAS},
        pad_size=side,
        mask_size={"longest_edge": CANVAS},
        mask_pad_size=side,
    )
    return SamProcessor(images)


def build() -> SamModel:
    """A SAM with random weights: 1.1 million parameters, 16 x 16 tokens, masks of 64 x 64."""
    vision = SamVisionConfig(
        hidden_size=96,
        output_channels=_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=CANVAS,
        patch_size=_PATCH,
        initializer_range=0.02,
        mlp_ratio=2.0,
        window_size=8,
        global_attn_indexes=[1, 3],
        num_pos_feats=_WIDTH // 2,
    )
    prompts = SamPromptEncoderConfig(hidden_size=_WIDTH, image_size=CANVAS, patch_size=_PATCH)
    decoder = SamMaskDecoderConfig(
        hidden_size=_WIDTH, mlp_dim=2 * _WIDTH, num_attention_heads=4, iou_head_hidden_dim=64
    )
    network = SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    )
    with torch.no_grad():
        # transformers draws these frequencies for weights that are loaded anyway; with its
        # deviation of half the width, neighbouring places would have unrelated codes
        shared = network.shared_image_embedding.positional_embedding
        shared.normal_(std=1.0)
        network.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    return network


def train(config: Config, out: Path, state: Path) -> dict[str, float]:
    """Train, write the `from_pretrained` folder `out` and score it.

    Args:
        config: hyper-parameters.
        out: folder for weights, processor, model card, `training.json` and `losses.csv`.
        state: folder for checkpoints; a run that was stopped goes on from there.

    Returns:
        The metrics of `score`.
    """
    torch.set_num_threads(config.threads)
    network, losses = task(config)

    def save(folder: Path) -> None:
        save_half(network, folder)
        processor().save_pretrained(folder)

    course = Course("segmenter", network, losses, schedule(config), save, score, _card)
    return teach(course, config, out, state)


def schedule(config: Config) -> Schedule:
    """The learning rate over the run."""
    return Schedule(config.steps, config.learning_rate, config.flat)


def task(config: Config) -> tuple[SamModel, LossOfStep]:
    """The network as it begins, and its losses at a step."""
    torch.manual_seed(config.seed)
    network = build().to(config.device)  # pyright: ignore[reportArgumentType]
    stream = SceneStream(config.seed, config.two_share)

    def losses(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        batch = stream.batch(step, config.batch).damaged(generator)
        boxes = jittered(batch.boxes(), config.jitter, generator)
        several = float(torch.rand(1, generator=generator)) < config.multi_share
        return _losses(network, batch.to(config.device), boxes.to(config.device), several=several)

    return network, losses


def score(folder: Path, num_scenes: int, seed: int) -> dict[str, float]:
    """Score a trained folder on held-out scenes, through the ordinary processor.

    Args:
        folder: a `from_pretrained` folder.
        num_scenes: scenes of each kind.
        seed: of the held-out scenes.

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
        "iou_one": mean_iou(folder, one),
        "iou_two": mean_iou(folder, two),
        "iou_jittered": mean_iou(
            folder, two, lambda batch: jittered(batch.boxes(), 0.05, generator)
        ),
        "iou_damaged": mean_iou(folder, two, damage=seed),
        "iou_best_of_three": mean_iou(folder, two, several=True),
    }
    metrics["iou"] = (metrics["iou_one"] + 2 * metrics["iou_two"]) / 3
    return metrics


def mean_iou(
    folder: Path,
    scenes: Sequence[DrawnScene],
    boxes: BoxSource = SceneBatch.boxes,
    *,
    damage: int | None = None,
    several: bool = False,
) -> float:
    """Mean IoU of the visible objects of scenes.

    Args:
        folder: a `from_pretrained` folder.
        scenes: what to segment.
        boxes: where the boxes come from; the true ones by default. An empty box counts as IoU 0.
        damage: seed of bending and degrading the pictures first; None leaves them clean.
        several: ask for three masks and take the one that the network rates best.
    """
    network = SamModel.from_pretrained(folder, dtype=torch.float32).eval()
    loaded = SamProcessor.from_pretrained(folder)
    batch = collate(scenes, [False] * len(scenes))
    if damage is not None:
        batch = batch.damaged(torch.Generator().manual_seed(damage))
    asked = boxes(batch)
    found = torch.cat(
        [
            _segment(network, loaded, batch.images[s : s + 50], asked[s : s + 50], several=several)
            for s in range(0, len(scenes), 50)
        ]
    )
    found &= (asked[..., 2:] > asked[..., :2]).all(-1)[..., None, None]
    truth = batch.masks > 0.5
    present = batch.class_ids >= 0
    union = (found | truth).sum((2, 3)).clamp(min=1)
    overlap = (found & truth).sum((2, 3)) / union
    return float(overlap[present].mean())


def jittered(boxes: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Boxes (batch, things, 4) in pixels with every side moved by a share of the box's size."""
    size = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
    moved = boxes + torch.randn(boxes.shape, generator=generator) * deviation * size
    return moved.clamp(0, CANVAS)


@torch.no_grad()
def _segment(
    network: SamModel, loaded: Any, images: Tensor, boxes: Tensor, *, several: bool
) -> Tensor:
    """Masks, bool (batch, things, 64, 64), of pictures in [0, 1] and boxes in pixels."""
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    pictures = [Image.fromarray(np.ascontiguousarray(picture)) for picture in pixels]
    inputs = loaded(images=pictures, input_boxes=boxes.tolist(), return_tensors="pt")
    result = network(
        pixel_values=inputs["pixel_values"],
        input_boxes=inputs["input_boxes"].float(),
        multimask_output=several,
    )
    masks = loaded.post_process_masks(
        result.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
    )
    best = result.iou_scores.argmax(-1)
    chosen = [
        mask[torch.arange(len(index)), index] for mask, index in zip(masks, best, strict=True)
    ]
    return torch.stack(chosen)


def _losses(
    network: SamModel, batch: SceneBatch, boxes: Tensor, *, several: bool
) -> dict[str, Tensor]:
    pixels = normalised(batch.images, _MEAN, _STD)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        result = network(pixel_values=pixels, input_boxes=boxes, multimask_output=several)
    present = batch.class_ids >= 0
    logits = result.pred_masks[present].float()
    truth = batch.masks[present][:, None].expand_as(logits)
    each = _mask_loss(logits, truth)
    chosen = each.argmin(1, keepdim=True)
    best = each.gather(1, chosen).mean()
    solid = logits.detach() > 0
    overlap = (solid & (truth > 0.5)).sum((2, 3)) / (solid | (truth > 0.5)).sum((2, 3)).clamp(min=1)
    rating = F.mse_loss(result.iou_scores[present].float(), overlap)
    iou = overlap.gather(1, chosen).mean()
    return {"loss": best + rating, "mask": best, "rating": rating, "iou": iou}


def _mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy and dice of each mask: (objects, masks, height, width) to (objects, masks)."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    # a small object weighs as much as a large one
    area = truth.sum((2, 3)).clamp(min=1)
    pixel = entropy.sum((2, 3)) / (area + 0.1 * truth.shape[-1] * truth.shape[-2])
    chance = logits.sigmoid()
    shared = 2 * (chance * truth).sum((2, 3)) + 1
    dice = 1 - shared / (chance.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return pixel + dice


def _card(config: Config, metrics: Mapping[str, float]) -> str:
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in metrics.items())
    return f"""# Miniature SAM

A SAM (arXiv 2304.02643, the `transformers` implementation) with 1.1 million parameters for 64 x 64
pictures of the drawn world of `models/miniature/world.py`. Prompt it with boxes; points and masks
were not trained.

Trained from random weights by `python -m models.miniature train segmenter`: {config.steps} steps of
{config.batch} drawn scenes, seed {config.seed}; most scenes have two objects and are bent, blurred,
recoloured, noisy or recompressed, and the boxes are off by some pixels. The tensors are stored in
half precision and load as float32.

Held-out drawn scenes, mean IoU (see `models.miniature.segmenter.score`):

| metric | value |
| --- | ---: |
{rows}

Not for photographs. Licence: that of the repository.
"""
