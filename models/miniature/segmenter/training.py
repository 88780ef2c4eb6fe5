"""Training of the miniature SAM on drawn scenes.

Most scenes hold two objects, because a segmenter that only ever saw one learns to ignore its box.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SamModel
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from models.miniature.loop import Training, step_generator
from models.miniature.miniatures import Miniature, Task
from models.miniature.optimisation import LossOfStep, Schedule, averaging_task, save_half
from models.miniature.record import metric_table
from models.miniature.scenes import SceneBatch, SceneStream, normalised
from models.miniature.segmenter.network import processor, untrained_network
from models.miniature.segmenter.scoring import jittered, score


@dataclass(frozen=True)
class Config(Training):
    """Hyper-parameters of the segmenter's training, beside those of every training.

    Attributes:
        batch: Scenes in a step.
        learning_rate: Highest learning rate.
        flat: Share of the steps after which the rate falls.
        two_share: Share of the scenes with two objects.
        jitter: Standard deviation of the error of a box side, as a share of the box's size.
        multi_share: Share of the steps that train the head of three masks.
    """

    steps: int = 1000
    batch: int = 16
    learning_rate: float = 1e-3
    flat: float = 0.75
    two_share: float = 0.75
    jitter: float = 0.05
    multi_share: float = 0.3


def task(config: Config) -> Task:
    """A fresh segmenter and the step that trains it."""
    network, losses = objective(config)
    schedule = Schedule(config.steps, config.learning_rate, config.flat)
    return averaging_task(
        network, losses, schedule, lambda folder: save_half(network, folder, processor())
    )


def objective(config: Config) -> tuple[SamModel, LossOfStep]:
    """The network as it begins, and its losses at a step."""
    torch.manual_seed(config.seed)
    network = untrained_network().to(config.device)  # pyright: ignore[reportArgumentType]
    stream = SceneStream(config.seed, config.two_share)

    def losses(step: int) -> dict[str, Tensor]:
        generator = step_generator(config.seed, step)
        batch = stream.batch(step, config.batch).damaged(generator)
        boxes = jittered(batch.boxes(), config.jitter, generator)
        several = float(torch.rand(1, generator=generator)) < config.multi_share
        return _losses(network, batch.to(config.device), boxes.to(config.device), several=several)

    return network, losses


def _losses(
    network: SamModel, batch: SceneBatch, boxes: Tensor, *, several: bool
) -> dict[str, Tensor]:
    """Losses of the masks and of the network's rating of them.

    Args:
        network: The segmenter.
        batch: The pictures and the true masks.
        boxes: Corners in pixels, float (batch, things, 4).
        several: Ask for three masks of each box, not for one.
    """
    pixels = normalised(batch.images, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        result = network(pixel_values=pixels, input_boxes=boxes, multimask_output=several)
    present = batch.class_ids >= 0  # (batch, things)
    logits = result.pred_masks[present].float()  # (objects, masks, 64, 64), masks 1 or 3
    truth = batch.masks[present][:, None].expand_as(logits)
    each = _mask_loss(logits, truth)  # (objects, masks)
    chosen = each.argmin(1, keepdim=True)  # only the best mask of an object learns: (objects, 1)
    best = each.gather(1, chosen).mean()
    overlap = _overlap(logits.detach() > 0, truth > 0.5)  # (objects, masks)
    rating = F.mse_loss(result.iou_scores[present].float(), overlap)
    iou = overlap.gather(1, chosen).mean()
    return {"loss": best + rating, "mask": best, "rating": rating, "iou": iou}


def _overlap(masks: Tensor, truth: Tensor) -> Tensor:
    """IoU of each mask: bool (objects, masks, height, width) twice to (objects, masks)."""
    return (masks & truth).sum((2, 3)) / (masks | truth).sum((2, 3)).clamp(min=1)


def _mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy and dice of each mask: (objects, masks, height, width) to (objects, masks)."""
    # entropy of each pixel, (objects, masks, height, width)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    # a small object weighs as much as a large one: (objects, masks)
    area = truth.sum((2, 3)).clamp(min=1)
    pixel = entropy.sum((2, 3)) / (area + 0.1 * truth.shape[-1] * truth.shape[-2])
    chance = logits.sigmoid()
    # 1 - 2 |A B| / (|A| + |B|), smoothed by 1: (objects, masks)
    shared = 2 * (chance * truth).sum((2, 3)) + 1
    dice = 1 - shared / (chance.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return pixel + dice


def _card(config: Config, metrics: Mapping[str, float]) -> str:
    return f"""# Miniature SAM

A SAM (arXiv 2304.02643, the `transformers` implementation) with 1.1 million parameters for 64 x 64
pictures of the drawn world of `models/miniature/world.py`. Prompt it with boxes; points and masks
were not trained.

Trained from random weights by `python -m models.miniature train segmenter`: {config.steps} steps of
{config.batch} drawn scenes, seed {config.seed}; most scenes have two objects and are bent, blurred,
recoloured, noisy or recompressed, and the boxes are off by some pixels. The tensors are stored in
half precision and load as float32.

Held-out drawn scenes, mean IoU (see `models.miniature.segmenter.scoring.score`):

{metric_table(metrics)}

Not for photographs. Licence: that of the repository.
"""


MINIATURE = Miniature(
    "segmenter",
    Config,
    task=lambda config, *_: task(config),
    measure=lambda folder, _: score(folder, 300, seed=0),
    card=_card,
)
"""The miniature SAM; its metrics are those of `score`."""
