"""What the student is trained on: focal and dice losses of its masks, and the counterfactual loss.

Two normalisations exist. The released code (ZegCLIP's, which MagicSeg uses) averages the focal loss
over pixels, sums it over all queries of the batch and divides by the number of present classes; the
weights 100, 1 and 1 belong to it. The paper (MagicSeg, arXiv 2603.19575, section 3.3) prints means
over queries and pixels. Targets are positions of an image's name subset; anything negative is a
negative example for every query, `training.sampling.IGNORE` only as long as it is not masked.

The focal loss is streamed: a few queries at a time are brought to full size and their gradient with
respect to the small logits is taken at once, so that (batch, queries, height, width) never exists.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, Field
from torch import Tensor
from torch.nn import functional as F

from training.sampling import BACKGROUND, IGNORE

FOCAL_ALPHA = 0.25
"""Weight of positives in the released focal loss; negatives weigh 1 - alpha."""
FOCAL_GAMMA = 2.0
"""Focusing exponent."""

_CHUNK_VALUES = {"cpu": 2**18, "cuda": 2**26}
"""Full-size logits held at once while streaming: what stays in a CPU's cache, what keeps a GPU
busy."""


class LossConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which losses, and how much of each."""

    normalisation: Literal["released", "paper"] = "released"
    """`released`: focal sum over queries by present classes; `paper`: means over everything."""
    ignored_pixels: Literal["negative", "mask"] = "mask"
    """Pixels of unknown class and padding: `negative` for all names as released, or left out."""
    focal_weight: float = Field(default=100.0, ge=0)
    """Weight of the focal loss."""
    dice_weight: float = Field(default=1.0, ge=0)
    """Weight of the dice loss."""
    counterfactual_weight: float = Field(default=1.0, ge=0)
    """Weight of the counterfactual loss; at 0 the counterfactual images are not even encoded."""


Targets = Int[Tensor, "batch height width"]
LowLogits = Float[Tensor, "batch queries h w"]


def released_losses(
    logits: LowLogits, label: Targets, ignore_index: int = 255
) -> dict[str, Tensor]:
    """Mask and dice losses as the authors coded them, without weights.

    Args:
        logits: Mask logits of any size; they are resized to the label's.
        label: Position of the pixel's class among the queries; `ignore_index` is a negative for
            every query, which is how background is learned.
        ignore_index: Value of ignored pixels.

    Returns:
        `mask` (focal) and `dice`, each a sum over the batch by the number of present classes.
    """
    targets = torch.where(label == ignore_index, BACKGROUND, label)
    return mask_losses(logits, targets, LossConfig(ignored_pixels="negative"))


def paper_losses(logits: LowLogits, label: Targets, ignore_index: int = 255) -> dict[str, Tensor]:
    """Mask and dice losses as the paper prints them, without weights.

    The focal loss is the mean over queries and pixels of the cross entropy times (1 - p_t)^2, with
    no balance of positives and negatives. The dice loss has squares in the denominator and runs
    over all queries, absent ones too. Its printed leading minus is left out, because it would
    reward bad overlap, and 1 is added to both sides of the fraction, so that an absent class
    teaches its query to stay silent.

    Args:
        logits: Mask logits of any size; they are resized to the label's.
        label: Position of the pixel's class among the queries.
        ignore_index: Value of ignored pixels, which are negatives for every query.
    """
    targets = torch.where(label == ignore_index, BACKGROUND, label)
    config = LossConfig(normalisation="paper", ignored_pixels="negative")
    return mask_losses(logits, targets, config)


def mask_losses(
    logits: LowLogits,
    targets: Targets,
    config: LossConfig,
    *,
    active: Bool[Tensor, "batch queries"] | None = None,
    num_present: Tensor | float | None = None,
) -> dict[str, Tensor]:
    """Mask and dice losses without weights, streamed over the queries.

    Args:
        logits: Mask logits at the patch grid.
        targets: Position in the subset, or a negative number.
        config: Normalisation and what ignored pixels mean.
        active: Queries that count; nothing means all.
        num_present: Divisor of the released normalisation, to be given when the batch is a part of
            a larger one; nothing counts the (image, present class) pairs of this batch.

    Returns:
        `mask` and `dice`, both scalars in float32.
    """
    batch, queries = logits.shape[:2]
    valid = targets != IGNORE if config.ignored_pixels == "mask" else None
    weights = _query_weights(logits, valid, active, targets[0].numel())
    released = config.normalisation == "released"
    alpha = FOCAL_ALPHA if released else None
    # Enlarging is a matrix product, which autocast would do in less than float32.
    with torch.autocast(logits.device.type, enabled=False):
        focal = _StreamedFocal.apply(logits.float(), targets, valid, weights, alpha)
    if not released:
        dice = _squared_dice(logits, targets, valid, active)
        return {"mask": focal / (batch * queries), "dice": dice}
    if num_present is None:
        num_present = count_present(targets, queries)
    divisor = torch.as_tensor(num_present, device=logits.device).clamp(min=1)
    dice = _present_dice(logits, targets, valid)
    return {"mask": focal / divisor, "dice": dice / divisor}


def counterfactual_loss(
    positive: Float[Tensor, "batch embed"], counterfactual: Float[Tensor, "batch embed"]
) -> Float[Tensor, ""]:
    """Mean likeness of the CLS vectors of a pair, as far as it is positive (section 3.3)."""
    return F.cosine_similarity(positive.float(), counterfactual.float(), dim=-1).clamp(min=0).mean()


def count_present(targets: Targets, queries: int) -> Tensor:
    """How many (image, class) pairs of a batch have at least one pixel."""
    return _presence(targets, queries).sum().float()


def weighted_sum(losses: Mapping[str, Tensor], config: LossConfig) -> Tensor:
    """Put the terms together."""
    weights = {
        "mask": config.focal_weight,
        "dice": config.dice_weight,
        "counterfactual": config.counterfactual_weight,
    }
    return torch.stack([weights[name] * term for name, term in losses.items()]).sum()


class _StreamedFocal(torch.autograd.Function):
    """Sum over queries of the weighted mean focal loss, with the gradient taken on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        valid: Tensor | None,
        weights: Tensor,
        alpha: float | None,
    ) -> Tensor:
        """Add up chunk by chunk.

        Args:
            ctx: Keeps the gradient.
            logits: Small logits, (batch, queries, h, w).
            targets: Positions, (batch, height, width).
            valid: Pixels that count, or nothing for all.
            weights: What one pixel of a query counts, (batch, queries).
            alpha: Balance of positives, or nothing for none.
        """
        size = (targets.shape[1], targets.shape[2])
        stretch = _Stretch((logits.shape[2], logits.shape[3]), size, logits.device)
        counted = None if valid is None else valid.float()
        rows, weights = logits.flatten(0, 1), weights.flatten()
        gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        total = logits.new_zeros(())
        for part, shown in _chunks(targets, logits.shape[1]):
            image, query = part // logits.shape[1], part % logits.shape[1]
            positive = targets[image] == query[:, None, None] if shown else None
            kept = None if counted is None else counted[image]
            loss, slope = _focal(stretch.enlarge(rows[part]), positive, kept, alpha)
            total += loss.flatten(1).sum(dim=1) @ weights[part]
            if gradient is not None:
                gradient[part] = stretch.gather(slope) * weights[part, None, None]
        ctx.save_for_backward(None if gradient is None else gradient.view_as(logits))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient that `forward` has taken."""
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None, None


def _chunks(targets: Tensor, queries: int) -> Iterator[tuple[Tensor, bool]]:
    """(image, query) pairs as numbers image * queries + query, a few at a time.

    Pairs without a pixel are by far the most and take less work; they come by themselves, with
    False.
    """
    chunk = max(1, _CHUNK_VALUES.get(targets.device.type, 2**18) // targets[0].numel())
    present = _presence(targets, queries).flatten()
    for shown in (True, False):
        for part in (present == shown).nonzero()[:, 0].split(chunk):
            if len(part):
                yield part, shown


def _focal(
    logits: Tensor, positive: Tensor | None, kept: Tensor | None, alpha: float | None
) -> tuple[Tensor, Tensor]:
    """Focal loss of every pixel and its derivative with respect to the logit.

    Args:
        logits: Full-size logits, (rows, height, width); overwritten.
        positive: Where a row's class is, of the same shape; nothing means nowhere.
        kept: 1 where a pixel counts and 0 elsewhere, of the same shape, or nothing for all.
        alpha: Balance of positives, or nothing for none.
    """
    # With x the logit away from the truth, cross entropy is softplus(x) and 1 - p_t sigmoid(x).
    sign = None if positive is None else torch.where(positive, -1.0, 1.0)
    away = logits if sign is None else logits.mul_(sign)
    wrong, entropy = away.sigmoid(), F.softplus(away)
    focus = wrong**FOCAL_GAMMA
    if kept is not None:
        focus *= kept
    if alpha is not None:
        focus *= 1.0 - alpha if positive is None else torch.where(positive, alpha, 1.0 - alpha)
    slope = torch.addcmul(wrong, entropy, 1.0 - wrong, value=FOCAL_GAMMA).mul_(focus)
    return entropy.mul_(focus), slope if sign is None else slope.mul_(sign)


class _Stretch:
    """Bilinear enlargement as a product with one matrix a side, and its transpose.

    The gradient is several times faster on a CPU than that of `F.interpolate`, and the same from
    run to run on a GPU.

    Args:
        short: Rows and columns of the small maps.
        long: Rows and columns of the large ones.
        device: Where the maps are.
    """

    def __init__(self, short: tuple[int, int], long: tuple[int, int], device: torch.device) -> None:
        self._rows, self._columns = (
            F.interpolate(torch.eye(few, device=device)[None], size=many, mode="linear")[0]
            for few, many in zip(short, long, strict=True)
        )

    def enlarge(self, low: Tensor) -> Tensor:
        """Bring (..., h, w) to full size."""
        return self._rows.T @ low @ self._columns

    def gather(self, slope: Tensor) -> Tensor:
        """Bring the gradient at full size to the small map."""
        return self._rows @ slope @ self._columns.T


def _query_weights(
    logits: Tensor, valid: Tensor | None, active: Tensor | None, num_pixels: int
) -> Tensor:
    """What one pixel of a query counts, so that each active query is a mean over its pixels."""
    if valid is None:
        weights = logits.new_full(logits.shape[:2], 1.0 / num_pixels, dtype=torch.float32)
    else:
        counts = valid.flatten(1).sum(dim=1).clamp(min=1)
        weights = (1.0 / counts)[:, None].expand(logits.shape[:2]).float()
    return weights if active is None else weights * active


def _presence(targets: Tensor, queries: int) -> Tensor:
    """Which class of its subset has a pixel in the image; (batch, queries)."""
    index = targets.flatten(1).long().clamp(min=-1) + 1
    seen = torch.zeros(len(targets), queries + 1, dtype=torch.bool, device=targets.device)
    return seen.scatter_(1, index, value=True)[:, 1:]


def _present_dice(logits: Tensor, targets: Tensor, valid: Tensor | None) -> Tensor:
    """Released dice loss: linear, with 1 added to both sides, summed over present classes."""
    rows, positions = _presence(targets, logits.shape[1]).nonzero(as_tuple=True)
    if not len(rows):
        return logits.float().sum() * 0.0
    probability = _resize(logits[rows, positions][:, None].float(), targets.shape[1:])[:, 0]
    probability = probability.sigmoid()
    truth = (targets[rows] == positions[:, None, None]).float()
    if valid is not None:
        probability = probability * valid[rows]
    overlap = (probability * truth).flatten(1).sum(dim=1)
    size = (probability + truth).flatten(1).sum(dim=1)
    return (1.0 - (2.0 * overlap + 1.0) / (size + 1.0)).sum()


def _squared_dice(
    logits: Tensor, targets: Tensor, valid: Tensor | None, active: Tensor | None
) -> Tensor:
    """Printed dice loss: squared denominator, mean over all queries; inactive ones give nothing."""
    losses = []
    for i in range(len(logits)):
        probability = _resize(logits[i][None].float(), targets.shape[1:])[0].sigmoid()
        positions = torch.arange(logits.shape[1], device=logits.device)
        truth = (targets[i] == positions[:, None, None]).float()
        if valid is not None:
            probability = probability * valid[i]
        overlap = (probability * truth).flatten(1).sum(dim=1)
        size = (probability.square() + truth).flatten(1).sum(dim=1)
        losses.append(1.0 - (2.0 * overlap + 1.0) / (size + 1.0))
    losses = torch.stack(losses)
    return losses.mean() if active is None else (losses * active).mean()


def _resize(low: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    return F.interpolate(low, size=tuple(size), mode="bilinear", align_corners=False)
