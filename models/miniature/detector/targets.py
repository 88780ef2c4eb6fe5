"""What the detector should answer for a batch, and which prediction stands for which object."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.miniature.boxes import box_iou, centred, corners, generalised_iou
from models.miniature.detector.network import MAX_TEXT, STRIDES
from models.miniature.detector.prompts import Prompts
from models.miniature.scenes import SceneBatch
from models.miniature.world import CANVAS

_GOOD_IOU = 0.75  # from here on a box fits an object well
_FAIR_IOU = 0.5  # below, it does not fit


@dataclass(frozen=True)
class Truth:
    """What the network should answer for a batch.

    Attributes:
        boxes: Centre, width and height as shares of the picture, float (batch, things, 4).
        wanted: Whether the thing is there and asked for, bool (batch, things).
        tokens: Tokens that name the thing's class, bool (batch, things, MAX_TEXT).
        token_mask: Tokens that are not padding, bool (batch, length).
    """

    boxes: Tensor
    wanted: Tensor
    tokens: Tensor
    token_mask: Tensor

    @classmethod
    def of(cls, batch: SceneBatch, prompts: Prompts) -> "Truth":
        """The truth about these scenes and these prompts."""
        boxes = centred(batch.boxes() / CANVAS)  # (batch, things, 4)
        present = batch.class_ids >= 0  # (batch, things)
        # class of a thing against class of a token: (batch, things, length)
        tokens = (batch.class_ids[:, :, None] == prompts.asked[:, None]) & present[:, :, None]
        padded = F.pad(tokens, (0, MAX_TEXT - tokens.shape[-1]))  # (batch, things, MAX_TEXT)
        return cls(boxes, tokens.any(-1), padded, prompts.mask)


def nearest(truth: Truth, count: int) -> Tensor:
    """Which thing each of `count` encoder tokens stands for: that within whose middle it lies.

    The token nearest to a centre always stands for the thing; where a token could stand for two,
    the smaller one gets it.

    Returns:
        Long (batch, count), -1 for none.
    """
    centres = _centres(count).to(truth.boxes.device)  # (count, 2)
    # token by thing, in x and y: (batch, count, things, 2)
    offset = (centres[None, :, None] - truth.boxes[:, None, :, :2]).abs()
    inside = (offset < 0.25 * truth.boxes[:, None, :, 2:]).all(-1)  # (batch, count, things)
    distance = offset.square().sum(-1)  # (batch, count, things)
    fine = (CANVAS // STRIDES[0]) ** 2
    for level in (slice(0, fine), slice(fine, count)):
        least = distance[:, level].amin(1, keepdim=True)  # (batch, 1, things)
        inside[:, level] |= distance[:, level] <= least + 1e-9
    inside &= truth.wanted[:, None]
    area = truth.boxes[..., 2] * truth.boxes[..., 3]  # (batch, things)
    cost = torch.where(inside, area[:, None], torch.inf)
    return torch.where(inside.any(-1), cost.argmin(-1), -1)


def _centres(count: int) -> Tensor:
    """Centres of the encoder's tokens, float (count, 2) in [0, 1], finest level first."""
    sides = [CANVAS // stride for stride in STRIDES]
    if sum(side * side for side in sides) != count:
        message = f"{count} encoder tokens, expected those of square grids of {sides}"
        raise ValueError(message)
    grids = [(torch.arange(side) + 0.5) / side for side in sides]
    # rows first, x before y: (side * side, 2) for each level
    return torch.cat([torch.cartesian_prod(g, g).flip(-1) for g in grids])


@torch.no_grad()
def match(truth: Truth, logits: Tensor, boxes: Tensor) -> Tensor:
    """Give each wanted thing one prediction, cheapest pair first.

    Args:
        truth: What is there.
        logits: Float (batch, predictions, MAX_TEXT), -inf on padding.
        boxes: Float (batch, predictions, 4), as `truth.boxes`.

    Returns:
        The thing of each prediction, long (batch, predictions), -1 for none.
    """
    cost = _cost(truth, logits, boxes)  # (batch, predictions, things)
    rows = torch.arange(len(boxes), device=boxes.device)
    things = truth.boxes.shape[1]
    thing_of = torch.full(boxes.shape[:2], -1, device=boxes.device)
    for _ in range(things):
        best, place = cost.flatten(1).min(1)  # (batch) each; place counts predictions x things
        prediction, thing = place // things, place % things
        valid = best < torch.inf
        thing_of[rows[valid], prediction[valid]] = thing[valid]
        cost[rows, prediction] = torch.inf
        cost[rows, :, thing] = torch.inf
    return thing_of


def _cost(truth: Truth, logits: Tensor, boxes: Tensor) -> Tensor:
    """What it costs to let a prediction stand for a thing: float (batch, predictions, things)."""
    chance = logits.sigmoid()
    # surest token of the thing's class: (batch, predictions, things)
    right = (chance[:, :, None] * truth.tokens[:, None]).amax(-1)
    # focal loss of a positive less that of a negative
    focal = 0.25 * (1 - right) ** 2 * -(right + 1e-8).log()
    focal = focal - 0.75 * right**2 * -(1 - right + 1e-8).log()
    distance = (boxes[:, :, None] - truth.boxes[:, None]).abs().sum(-1)
    cost = 2 * focal + 5 * distance - 2 * generalised_iou(*_pairs(truth, boxes))
    return cost.masked_fill(~truth.wanted[:, None], torch.inf)


def _pairs(truth: Truth, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Corners of every prediction and of every thing: (batch, predictions, things, 4) twice."""
    shape = (*boxes.shape[:2], truth.boxes.shape[1], 4)
    return corners(boxes)[:, :, None].expand(shape), corners(truth.boxes)[:, None].expand(shape)


@torch.no_grad()
def share(truth: Truth, boxes: Tensor, thing_of: Tensor) -> tuple[Tensor, Tensor]:
    """Let every prediction that fits a thing well stand for it, beside the one that was matched.

    Several sure boxes of one object do no harm, as the engine keeps the surest of those that
    overlap; one that must be picked out of several equals is unsure of itself.

    Args:
        truth: What is there.
        boxes: Predictions, float (batch, predictions, 4), as `truth.boxes`.
        thing_of: What `match` found.

    Returns:
        The things with those of IoU 0.75 or more added, long (batch, predictions), and the
        predictions that fit neither well nor badly (from IoU 0.5 on), bool (batch, predictions).
    """
    overlap = box_iou(*_pairs(truth, boxes)).masked_fill(~truth.wanted[:, None], 0.0)
    best, thing = overlap.max(-1)  # (batch, predictions) each
    thing_of = torch.where((thing_of < 0) & (best >= _GOOD_IOU), thing, thing_of)
    return thing_of, (thing_of < 0) & (best >= _FAIR_IOU)
