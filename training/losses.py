"""What the student is trained on: focal and dice losses of its masks, and the counterfactual loss.

Two normalisations exist. The released code (ZegCLIP's, which MagicSeg uses) averages the focal loss
over pixels, sums it over all queries of the batch and divides by the number of present classes; the
weights 100, 1 and 1 belong to it. The paper (MagicSeg, arXiv 2603.19575, section 3.3) prints means
over queries and pixels. Targets are positions of an image's name subset; anything negative is a
negative example for every query, `training.sampling.IGNORE` only as long as it is not masked.

Losses over all queries are streamed: a few queries at a time are brought to full size and their
gradient with respect to the small logits is taken at once, so that (batch, queries, height, width)
never exists. The released dice loss has full-size maps of the present classes, which are few.

In the comments below B is the batch, Q the queries of an image, (h, w) the patch grid, (H, W) the
targets' size, and R the rows of a chunk: some of the B * Q (image, query) pairs.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from training.config import LossConfig
from training.sampling import IGNORE

FOCAL_ALPHA = 0.25
"""Weight of positives in the released focal loss; negatives weigh 1 - alpha."""
FOCAL_GAMMA = 2.0
"""Focusing exponent."""

_CHUNK_VALUES = {"cpu": 2**18, "cuda": 2**26}
"""Full-size logits held at once while streaming: what stays in a CPU's cache, what keeps a GPU
busy."""


_RowLoss = Callable[[Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor]]
"""From full-size logits (R, H, W), where their classes are and which pixels count, to the loss of
each row (R,) and its derivative with respect to the logits (R, H, W)."""

Targets = Int[Tensor, "batch height width"]
LowLogits = Float[Tensor, "batch queries h w"]


def mask_losses(
    logits: LowLogits,
    targets: Targets,
    config: LossConfig,
    *,
    active: Bool[Tensor, "batch queries"] | None = None,
    present: Bool[Tensor, "batch queries"] | None = None,
    num_present: Tensor | float | None = None,
) -> dict[str, Tensor]:
    """Mask and dice losses without weights, streamed over the queries.

    `released`, as the authors coded them: focal loss with balanced positives and negatives, and the
    linear dice loss of the present classes; each a sum over the batch by their number.

    `paper`, as it prints them: the mean over queries and pixels of the cross entropy times
    (1 - p_t)^2, and a dice loss with squares in the denominator over all queries, absent ones too.
    Its printed leading minus is left out, because it would reward bad overlap, and 1 is added to
    both sides of the fraction, so that an absent class teaches its query to stay silent.

    Args:
        logits: Mask logits at the patch grid.
        targets: Position in the subset, or a negative number.
        config: Normalisation and what ignored pixels mean.
        active: Queries that count; None means all.
        present: Which queries have a pixel; on the CPU if that is known there, so that nobody waits
            for a GPU to say it. None looks at the targets.
        num_present: Divisor of the released normalisation, to be given when the batch is a part of
            a larger one; nothing counts the (image, present class) pairs of this batch.

    Returns:
        `mask` and `dice`, both scalars in float32.
    """
    batch, queries = logits.shape[:2]
    valid = targets != IGNORE if config.ignored_pixels == "mask" else None
    if present is None:
        present = presence(targets, queries)
    pixel_weights = _pixel_weights(logits, valid, active, targets[0].numel())
    if config.normalisation == "paper":
        focal = _streamed(logits, targets, valid, present, pixel_weights, _focal)
        row_weights = _row_weights(logits, active)
        dice = _streamed(logits, targets, valid, present, row_weights, _squared_dice)
        return {"mask": focal / (batch * queries), "dice": dice / (batch * queries)}
    balanced = partial(_focal, alpha=FOCAL_ALPHA)
    focal = _streamed(logits, targets, valid, present, pixel_weights, balanced)
    if num_present is None:
        num_present = present.sum().float()
    divisor = torch.as_tensor(num_present, device=logits.device).clamp(min=1)
    dice = _present_dice(logits, targets, valid, present)
    return {"mask": focal / divisor, "dice": dice / divisor}


def counterfactual_loss(
    positive: Float[Tensor, "pairs embed"],
    counterfactual: Float[Tensor, "pairs embed"],
    images: int | None = None,
) -> Float[Tensor, ""]:
    """Mean likeness of the CLS vectors of a pair, as far as it is positive (section 3.3).

    Args:
        positive: Of the images that have a twin.
        counterfactual: Of their twins.
        images: Images of the batch, those without a twin too, so that a pair counts as much as in
            a batch of pairs alone. None means that all have one.
    """
    likeness = F.cosine_similarity(positive.float(), counterfactual.float(), dim=-1).clamp(min=0)
    if images is None or images == len(positive):
        return likeness.mean()
    return likeness.sum() / images


def presence(targets: Targets, queries: int) -> Bool[Tensor, "batch queries"]:
    """Which class of its subset has a pixel in the image."""
    # Place 0 stands for every negative number, place q + 1 for query q.
    index = targets.flatten(1).long().clamp(min=-1) + 1  # (B, H * W)
    seen = torch.zeros(len(targets), queries + 1, dtype=torch.bool, device=targets.device)
    return seen.scatter_(1, index, value=True)[:, 1:]  # (B, Q)


def weighted_sum(losses: Mapping[str, Tensor], config: LossConfig) -> Tensor:
    """Put the terms together."""
    weights = {
        "mask": config.focal_weight,
        "dice": config.dice_weight,
        "counterfactual": config.counterfactual_weight,
    }
    return torch.stack([weights[name] * term for name, term in losses.items()]).sum()


def _streamed(
    logits: Tensor,
    targets: Tensor,
    valid: Tensor | None,
    present: Tensor,
    weights: Tensor,
    row_loss: _RowLoss,
) -> Tensor:
    """Weighted sum of the losses of all queries."""
    # Enlarging is a matrix product, which autocast would do in less than float32.
    with torch.autocast(logits.device.type, enabled=False):
        return _Streamed.apply(logits.float(), targets, valid, present, weights, row_loss)


class _Streamed(torch.autograd.Function):
    """Weighted sum of a loss over all queries, with the gradient taken on the way."""

    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        valid: Tensor | None,
        present: Tensor,
        weights: Tensor,
        row_loss: _RowLoss,
    ) -> Tensor:
        """Add up chunk by chunk.

        Args:
            ctx: Keeps the gradient.
            logits: Small logits, (B, Q, h, w).
            targets: Positions, (B, H, W).
            valid: Pixels that count, (B, H, W), or nothing for all.
            present: Queries that have a pixel, (B, Q), on whatever device.
            weights: What the loss of a query is multiplied by, (B, Q).
            row_loss: The loss.
        """
        queries, size = logits.shape[1], (targets.shape[1], targets.shape[2])
        enlargement = _Enlargement((logits.shape[2], logits.shape[3]), size, logits.device)
        counted = None if valid is None else valid.float()
        rows, weights = logits.flatten(0, 1), weights.flatten()  # (B * Q, h, w), (B * Q,)
        gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        losses = torch.empty_like(weights)  # (B * Q,)
        for part, shown in _chunks(targets, present):
            image, query = part // queries, part % queries  # (R,) each
            positive = targets[image] == query[:, None, None] if shown else None  # (R, H, W)
            kept = None if counted is None else counted[image]  # (R, H, W)
            losses[part], slope = row_loss(enlargement.enlarge(rows[part]), positive, kept)
            if gradient is not None:
                gradient[part] = enlargement.gather(slope) * weights[part, None, None]  # (R, h, w)
        ctx.save_for_backward(None if gradient is None else gradient.view_as(logits))
        return losses @ weights

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient that `forward` has taken."""
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None, None, None


def _focal(
    logits: Tensor, positive: Tensor | None, kept: Tensor | None, alpha: float | None = None
) -> tuple[Tensor, Tensor]:
    """Focal loss of every row and its derivative with respect to the logits.

    Args:
        logits: Full-size logits, (R, H, W); overwritten.
        positive: Where a row's class is, (R, H, W); None means nowhere.
        kept: 1 where a pixel counts and 0 elsewhere, (R, H, W), or nothing for all.
        alpha: Balance of positives, or nothing for none.
    """
    # With x the logit away from the truth, cross entropy is softplus(x) and 1 - p_t sigmoid(x).
    sign = None if positive is None else torch.where(positive, -1.0, 1.0)
    away = logits if sign is None else logits.mul_(sign)  # x
    wrong, entropy = away.sigmoid(), F.softplus(away)  # s, e
    focus = wrong**FOCAL_GAMMA  # what e is multiplied by: s^2, and the balance
    if kept is not None:
        focus *= kept
    if alpha is not None:
        focus *= 1.0 - alpha if positive is None else torch.where(positive, alpha, 1.0 - alpha)
    # d(s^2 e)/dx = s^2 (s + 2 e (1 - s)), since de/dx = s and ds/dx = s (1 - s).
    slope = torch.addcmul(wrong, entropy, 1.0 - wrong, value=FOCAL_GAMMA).mul_(focus)
    loss = entropy.mul_(focus).flatten(1).sum(dim=1)  # (R, H, W) -> (R,)
    return loss, slope if sign is None else slope.mul_(sign)


def _squared_dice(
    logits: Tensor, positive: Tensor | None, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Printed dice loss of every row, squares in the denominator, and its derivative.

    With p the probability, t the truth, O = 2 sum(p t) + 1 and S = sum(p^2) + sum(t) + 1, the loss
    is 1 - O / S. Its derivative with respect to p is (2 p O / S - 2 t) / S, and dp/dx is p (1 - p).

    Args:
        logits: Full-size logits, (R, H, W); overwritten.
        positive: Where a row's class is, (R, H, W); None means nowhere.
        kept: 1 where a pixel counts and 0 elsewhere, (R, H, W), or nothing for all.
    """
    p = logits.sigmoid_()
    falls = 1.0 - p  # (R, H, W)
    if kept is not None:
        p = p.mul_(kept)
    squares = p.square().flatten(1).sum(dim=1)  # (R,)
    if positive is None:
        share = 1.0 / (squares + 1.0)  # O / S with O = 1
        slope = p * (2.0 * share.square())[:, None, None]
    else:
        overlap = (p * positive).flatten(1).sum(dim=1)  # (R,)
        whole = squares + positive.flatten(1).sum(dim=1) + 1.0  # S
        share = (2.0 * overlap + 1.0) / whole  # O / S
        slope = (p * share[:, None, None] - positive.float()) * (2.0 / whole)[:, None, None]
    return 1.0 - share, slope.mul_(p).mul_(falls)


def _chunks(targets: Tensor, present: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """(image, query) pairs as numbers image * Q + query, a few at a time.

    Pairs without a pixel are by far the most and take less work; they come by themselves, with
    False.
    """
    chunk = max(1, _CHUNK_VALUES.get(targets.device.type, 2**18) // targets[0].numel())  # R
    for shown in (True, False):
        pairs = (present.flatten() == shown).nonzero()[:, 0].to(targets.device)  # (P,)
        for part in pairs.split(chunk):
            if len(part):
                yield part, shown


class _Enlargement:
    """Bilinear enlargement as a product with one matrix a side, and its transpose.

    The gradient is several times faster on a CPU than that of `F.interpolate`, and the same from
    run to run on a GPU.

    Args:
        short: Rows and columns of the small maps.
        long: Rows and columns of the large ones.
        device: Where the maps are.
    """

    def __init__(self, short: tuple[int, int], long: tuple[int, int], device: torch.device) -> None:
        # Enlarging each unit vector gives the matrix of the enlargement: (h, H) and (w, W).
        self._rows, self._columns = (
            F.interpolate(torch.eye(few, device=device)[None], size=many, mode="linear")[0]
            for few, many in zip(short, long, strict=True)
        )

    def enlarge(self, low: Tensor) -> Tensor:
        """Bring (..., h, w) to full size."""
        return self._rows.T @ low @ self._columns  # (H, h) (R, h, w) (w, W) -> (R, H, W)

    def gather(self, slope: Tensor) -> Tensor:
        """Bring the gradient at full size to the small map."""
        return self._rows @ slope @ self._columns.T  # (h, H) (R, H, W) (W, w) -> (R, h, w)


def _pixel_weights(
    logits: Tensor, valid: Tensor | None, active: Tensor | None, num_pixels: int
) -> Tensor:
    """What one pixel of a query counts, so that each active query is a mean over its pixels."""
    if valid is None:
        weights = logits.new_full(logits.shape[:2], 1.0 / num_pixels, dtype=torch.float32)  # (B, Q)
    else:
        counts = valid.flatten(1).sum(dim=1).clamp(min=1)  # (B,)
        weights = (1.0 / counts)[:, None].expand(logits.shape[:2]).float()  # (B, Q)
    return weights if active is None else weights * active


def _row_weights(logits: Tensor, active: Tensor | None) -> Tensor:
    """What a query counts: 1, or 0 if it is not active; (B, Q)."""
    ones = logits.new_ones(logits.shape[:2], dtype=torch.float32)
    return ones if active is None else ones * active


def _present_dice(logits: Tensor, targets: Tensor, valid: Tensor | None, present: Tensor) -> Tensor:
    """Released dice loss: linear, with 1 added to both sides, summed over present classes."""
    image, query = present.nonzero().to(targets.device).unbind(1)  # (P,) each
    if not len(image):
        return logits.float().sum() * 0.0
    low = logits[image, query][:, None].float()  # (P, 1, h, w)
    probability = _resize(low, targets.shape[1:])[:, 0].sigmoid()  # (P, H, W)
    truth = (targets[image] == query[:, None, None]).float()  # (P, H, W)
    if valid is not None:
        probability = probability * valid[image]
    overlap = (probability * truth).flatten(1).sum(dim=1)  # (P,)
    size = (probability + truth).flatten(1).sum(dim=1)  # (P,)
    return (1.0 - (2.0 * overlap + 1.0) / (size + 1.0)).sum()


def _resize(low: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    return F.interpolate(low, size=tuple(size), mode="bilinear", align_corners=False)
