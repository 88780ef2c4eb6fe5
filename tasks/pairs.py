"""Pairs: every prompt and its counterfactual become two images that share their noise."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, Field

from models.protocols import PaintedPair, PairPainter, PairRequest
from storage.records import Prompt, Reason, Rejected, Stage


class PairRules(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which pairs of images are good enough."""

    min_deviation: float = Field(default=2.0, ge=0, le=128)
    """An image is blank if no colour channel's standard deviation over the pixels (0..255) reaches
    this; a black frame has 0."""


@dataclass(frozen=True)
class PaintedSample:
    """The pixels of one sample.

    Attributes:
        key: Sample key.
        image: Positive, RGB.
        counterfactual: Counterfactual, RGB, of the same size.
    """

    key: str
    image: UInt8[np.ndarray, "height width 3"]
    counterfactual: UInt8[np.ndarray, "height width 3"]


def paint_pairs(
    prompts: Sequence[Prompt], seeds: Mapping[str, int], painter: PairPainter, rules: PairRules
) -> list[PaintedSample | Rejected]:
    """Paint the pair of every prompt.

    Args:
        prompts: What to paint.
        seeds: Seed of the initial noise by sample key.
        painter: Paints; makes its own batches.
        rules: What passes.

    Returns:
        One result a prompt, in order: the pair, or why it was dropped.
    """
    requests = [
        PairRequest(prompt.text, prompt.counterfactual_text, seeds[prompt.key])
        for prompt in prompts
    ]
    painted = painter.paint(requests)
    return [
        _checked(prompt.key, pair, rules) for prompt, pair in zip(prompts, painted, strict=True)
    ]


def _checked(key: str, pair: PaintedPair, rules: PairRules) -> PaintedSample | Rejected:
    if pair.unsafe:  # asked first: the checker blackens what it flags
        return Rejected(
            key=key, stage=Stage.PAIRS, reason=Reason.UNSAFE, detail="flagged by the safety checker"
        )
    blank = list(_blank(pair, rules))
    if blank:
        detail = ", ".join(blank) + f"; expected at least {rules.min_deviation:g}"
        return Rejected(key=key, stage=Stage.PAIRS, reason=Reason.BLANK_IMAGE, detail=detail)
    return PaintedSample(key, pair.image, pair.counterfactual)


def _blank(pair: PaintedPair, rules: PairRules) -> Iterator[str]:
    for name, image in (("image", pair.image), ("counterfactual", pair.counterfactual)):
        deviation = float(image.std(axis=(0, 1)).max())
        if deviation < rules.min_deviation:
            yield f"{name} has standard deviation {deviation:.2f}"
