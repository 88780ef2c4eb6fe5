"""Pairs: every prompt and its counterfactual become two images that share their noise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from models.protocols import PaintedPair, PairPainter, PairRequest
from models.registry import Role
from storage.codecs import encode_image
from storage.pairs import EncodedPair
from storage.records import Prompt, Reason, Rejected, Stage
from storage.rows import split_rows
from tasks.declarations import Declaration, Made, PieceWork
from tasks.finiteness import drop_not_finite
from tasks.recipe import Recipe
from tasks.rules import PairRules

__all__ = ["PaintedSample", "paint_pairs"]

_EVERY = 8
"""Of this many rows one is looked at first."""


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
    if not pair.finite:  # asked before all else: such pixels mean nothing
        return drop_not_finite(key, Stage.PAIRS, Role.PAINTER, "pixels")
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
        # Some rows' own spread can only be part of the whole one, and settles it for a photograph.
        if _deviation(image[::_EVERY], of_pixels=_pixels(image)) >= rules.min_deviation:
            continue
        deviation = _deviation(image, of_pixels=_pixels(image))
        if deviation < rules.min_deviation:
            yield f"{name} has standard deviation {deviation:.2f}"


def _deviation(image: UInt8[np.ndarray, "height width 3"], *, of_pixels: int) -> float:
    """Largest standard deviation of a channel, from how often each level occurs.

    Args:
        image: RGB.
        of_pixels: What the squared distances to the mean are divided by.
    """
    counts = np.array(Image.fromarray(image).histogram()).reshape(3, 256)
    levels = np.arange(256)
    means = counts @ levels / _pixels(image)
    squares = (counts * (levels - means[:, None]) ** 2).sum(axis=1)
    return math.sqrt(squares.max() / of_pixels)


def _pixels(image: UInt8[np.ndarray, "height width 3"]) -> int:
    return image.shape[0] * image.shape[1]


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    return {
        "painter": recipe.profile.painter.identity(),
        "rules": recipe.pairs.identity(),
        "image_format": recipe.profile.image_format,
    }


def _make(work: PieceWork) -> Made:
    """Paint the pairs of a piece; images are encoded while the next ones are painted."""
    texts, _ = split_rows(work.rows(Stage.PROMPTS).values(), Prompt)
    seeds = {sample.key: sample.seed for sample in work.samples}
    profile = work.recipe.profile
    painter = work.machine.models.model(profile.painter, work.store.objects)
    with ThreadPoolExecutor(1, "encoder") as encoder:
        steps = [
            encoder.submit(
                _encoded,
                paint_pairs(step, seeds, painter, work.recipe.pairs),
                profile.image_format,
            )
            for step in work.in_steps(texts, profile.painter.batch_size)
        ]
        results = [result for step in steps for result in step.result()]
    return Made.of_pairs(
        [result for result in results if isinstance(result, EncodedPair)],
        [result for result in results if isinstance(result, Rejected)],
    )


def _encoded(
    results: Sequence[PaintedSample | Rejected], image_format: Literal["jpg", "png"]
) -> list[EncodedPair | Rejected]:
    return [
        result
        if isinstance(result, Rejected)
        else EncodedPair(
            result.key,
            encode_image(result.image, image_format),
            encode_image(result.counterfactual, image_format),
        )
        for result in results
    ]


DECLARATION = Declaration(
    stage=Stage.PAIRS,
    version=1,
    inputs=(Stage.PROMPTS,),
    role=Role.PAINTER,
    model=lambda recipe: recipe.profile.painter,
    depends_on=_depends_on,
    make=_make,
    about="both texts are painted from one initial noise",
)
