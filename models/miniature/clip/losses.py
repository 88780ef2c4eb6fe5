"""CLIP's losses: contrast of pictures and captions, classes of pictures, classes of patches."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from models.miniature.clip.network import ClipWithHeads, text_embeddings
from models.miniature.scenes import SceneBatch, normalised
from models.miniature.world import CLASSES


def batch_losses(
    learner: ClipWithHeads,
    batch: SceneBatch,
    ids: Mapping[str, Tensor],
    fits: Tensor,
    scale: int,
) -> dict[str, Tensor]:
    """Losses of one batch of pictures with as many captions.

    Args:
        learner: The network and its heads.
        batch: The pictures.
        ids: The tokenised captions.
        fits: 1 where the caption (column) is true of the picture (row), float (batch, batch).
        scale: 2 to show the pictures at twice their size, 1 as they are.

    Returns:
        Scalars: `contrast`, `named` (classes of pictures), `shown` (classes of patches), and
        their weighted sum `loss`.
    """
    pixels = (
        larger(batch.images)
        if scale == 2
        else normalised(batch.images, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    )
    with torch.autocast(pixels.device.type, torch.bfloat16):
        image, patches = learner.embed(pixels)
        text = text_embeddings(learner.clip, ids)
    image, patches, text = image.float(), patches.float(), text.float()
    # pictures against captions: (batch, batch)
    cosine = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    logits = cosine * learner.clip.logit_scale.exp().clamp(max=100)
    contrast = (_contrast(logits, fits) + _contrast(logits.T, fits.T)) / 2
    present = torch.zeros(len(image), len(CLASSES) + 1, device=image.device)
    # no thing (-1) lands in the last column, which is left out below
    present.scatter_(1, batch.class_ids % (len(CLASSES) + 1), 1.0)
    named = F.binary_cross_entropy_with_logits(
        learner.image_head(image),
        present[:, :-1],
        pos_weight=torch.tensor(4.0, device=image.device),
    )
    shown = _patch_loss(learner.patch_head(patches), patch_shares(batch, patches.shape[1]))
    return {
        "loss": contrast + 2 * named + shown,
        "contrast": contrast,
        "named": named,
        "shown": shown,
    }


def _contrast(logits: Tensor, fits: Tensor) -> Tensor:
    """Cross-entropy of each row of logits (rows, columns) against all columns that fit it."""
    counts = fits.sum(1)  # (rows)
    rows = counts > 0
    share = fits[rows] / counts[rows, None]  # columns that fit weigh alike
    return F.cross_entropy(logits[rows], share)


def patch_shares(batch: SceneBatch, patches: int) -> Tensor:
    """Share of each patch's area by class, background last: float (batch, patches, classes + 1)."""
    side = round(patches**0.5)
    area = F.adaptive_avg_pool2d(batch.masks, side).flatten(2)  # (batch, things, patches)
    count = len(CLASSES)
    shares = torch.zeros(len(area), count + 1, patches, device=area.device)
    index = (batch.class_ids % (count + 1))[:, :, None].expand_as(area)
    shares.scatter_add_(1, index, area * (batch.class_ids >= 0)[:, :, None])
    shares[:, count] = 1 - shares[:, :count].sum(1)
    return shares.transpose(1, 2)


def _patch_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of patches; those on objects weigh four times as much as background.

    Both are float (batch, patches, classes + 1).
    """
    entropy = -(shares * logits.log_softmax(-1)).sum(-1)  # (batch, patches)
    weight = 1 + 3 * (1 - shares[..., -1])
    return (entropy * weight).sum() / weight.sum()


def larger(images: Tensor) -> Tensor:
    """Pictures in [0, 1] at twice their size, normalised: (batch, 3, 64, 64) to (..., 128, 128)."""
    scaled = F.interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)
    return normalised(scaled.clamp(0, 1), OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
