"""The detector's losses.

They are our own: those of `transformers` give the proposal heads of the encoder no gradient, and
their label maps are wrong in batches of several prompts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GroundingDinoForObjectDetection
from transformers.models.grounding_dino.modeling_grounding_dino import (
    GroundingDinoObjectDetectionOutput,
)
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from models.miniature.boxes import corners, generalised_iou
from models.miniature.detector.network import MAX_TEXT
from models.miniature.detector.prompts import Prompts
from models.miniature.detector.targets import Truth, match, nearest, share
from models.miniature.scenes import SceneBatch, normalised


def batch_losses(
    network: GroundingDinoForObjectDetection, batch: SceneBatch, prompts: Prompts, stage: int
) -> dict[str, Tensor]:
    """Losses of the encoder, and of the decoder from stage 1 on.

    Args:
        network: The detector.
        batch: The pictures and what they show.
        prompts: What is asked for.
        stage: 0 trains the encoder alone, 1 the decoder too; in stage 2 every box that fits an
            object well stands for it.

    Returns:
        Scalars: `encoder`, `decoder`, and their sum `loss`.
    """
    pixels = normalised(batch.images, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    with torch.autocast(pixels.device.type, torch.bfloat16):
        result = network(
            pixel_values=pixels, input_ids=prompts.ids, attention_mask=prompts.mask.long()
        )
    truth = Truth.of(batch, prompts)
    logits = result.enc_outputs_class.float()  # (batch, image tokens, MAX_TEXT)
    boxes = result.enc_outputs_coord_logits.float().sigmoid()  # (batch, image tokens, 4)
    encoder = _loss(truth, logits, boxes, nearest(truth, logits.shape[1]))
    decoder = torch.zeros((), device=logits.device)
    if stage:
        decoder = _decoder_loss(network, result, truth, refine=stage == 2)
    return {"encoder": encoder, "decoder": decoder, "loss": encoder + decoder}


def _decoder_loss(
    network: GroundingDinoForObjectDetection,
    result: GroundingDinoObjectDetectionOutput,
    truth: Truth,
    *,
    refine: bool,
) -> Tensor:
    """Mean over the decoder's layers of the loss after matching."""
    hidden, later = result.intermediate_hidden_states, result.intermediate_reference_points
    text = result.encoder_last_hidden_state_text
    assert hidden is not None and later is not None and text is not None  # noqa: PT018, S101
    # where each layer starts from: (batch, predictions, 4)
    references = [result.init_reference_points, *later.unbind(1)]
    layers = []
    for layer, states in enumerate(hidden.float().unbind(1)):  # (batch, predictions, width)
        logits = network.class_embed[layer](states, text.float(), truth.token_mask)
        offset = network.bbox_embed[layer](states)  # (batch, predictions, 4), before the sigmoid
        boxes = (offset + torch.special.logit(references[layer].float(), eps=1e-5)).sigmoid()
        thing_of, ignored = match(truth, logits, boxes), None
        if refine:
            thing_of, ignored = share(truth, boxes, thing_of)
        layers.append(_loss(truth, logits, boxes, thing_of, ignored))
    return torch.stack(layers).mean()


def _loss(
    truth: Truth, logits: Tensor, boxes: Tensor, thing_of: Tensor, ignored: Tensor | None = None
) -> Tensor:
    """Focal loss of all predictions, L1 and GIoU of those that stand for a thing.

    Args:
        truth: What is there.
        logits: Float (batch, predictions, MAX_TEXT), -inf on padding.
        boxes: Float (batch, predictions, 4), as `truth.boxes`.
        thing_of: The thing that a prediction stands for, long (batch, predictions), -1 for none.
        ignored: Predictions whose classes do not count, bool (batch, predictions).
    """
    stands = thing_of >= 0
    index = thing_of.clamp(min=0)[:, :, None]  # (batch, predictions, 1)
    targets = truth.tokens.gather(1, index.expand(-1, -1, MAX_TEXT))
    targets = (targets & stands[:, :, None]).float()  # (batch, predictions, MAX_TEXT)
    real = F.pad(truth.token_mask, (0, MAX_TEXT - truth.token_mask.shape[1]))[:, None]
    real = real.expand(logits.shape)  # (batch, predictions, MAX_TEXT)
    if ignored is not None:
        real = real & ~ignored[:, :, None]
    count = stands.sum().clamp(min=1)
    classes = (_focal(logits.masked_fill(~real, 0.0), targets) * real).sum() / count
    goals = truth.boxes.gather(1, index.expand(-1, -1, 4))[stands]  # (standing, 4)
    close = (boxes[stands] - goals).abs().sum() / count
    overlap = (1 - generalised_iou(corners(boxes[stands]), corners(goals))).sum() / count
    return 2 * classes + 5 * close + 2 * overlap


def _focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (arXiv 1708.02002) of each logit; targets are 0 or 1, shapes alike."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    chance = logits.sigmoid()
    wrong = chance * (1 - targets) + (1 - chance) * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * wrong**gamma * entropy
