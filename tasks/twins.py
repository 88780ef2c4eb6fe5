"""Twins: where the recipe says so, counterfactuals are made once their images have passed.

They are painted like the images, from the same noise, or are the images with the objects painted
over.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from models.protocols import (
    ImagePainter,
    ImageRequest,
    Inpainter,
    InpaintRequest,
    PaintedImage,
)
from models.registry import Role
from storage.codecs import decode_rle, encode_image
from storage.pairs import EncodedPair
from storage.records import MaskSample, Prompt, Rejected, Stage
from storage.rows import split_rows
from tasks.declarations import Declaration, Made, PieceWork
from tasks.detections import stored_images
from tasks.pairs import PaintedPictures, PaintedSample, refuse_pictures, require_image_painter
from tasks.pipeline import HoldDevice
from tasks.recipe import Recipe
from tasks.regions import blend, soft_region
from tasks.rules import PairRules, TwinRules

__all__ = ["PaintedScene", "Twin", "paint_over", "paint_twins"]


@dataclass(frozen=True)
class PaintedScene:
    """An image whose objects are to be painted over.

    Attributes:
        key: Sample key.
        image: RGB, as it is stored.
        masks: Its objects.
        text: What the counterfactual shows.
        seed: Seed of the noise.
    """

    key: str
    image: UInt8[np.ndarray, "height width 3"]
    masks: MaskSample
    text: str
    seed: int


@dataclass(frozen=True)
class Twin:
    """A counterfactual that was made later than its image.

    Attributes:
        key: Sample key.
        picture: RGB.
    """

    key: str
    picture: UInt8[np.ndarray, "height width 3"]


def paint_twins(
    prompts: Sequence[Prompt],
    seeds: Mapping[str, int],
    painter: ImagePainter,
    passing: PairRules,
    hold: HoldDevice = nullcontext,
) -> list[Twin | Rejected]:
    """Paint the counterfactual of every prompt: the one that its pair would have.

    Args:
        prompts: What to paint.
        seeds: Seed of the initial noise by sample key.
        painter: Paints; makes its own batches.
        passing: Which pictures pass.
        hold: Holds the device while the painter computes.

    Returns:
        One result a prompt, in order: its counterfactual, or why there is none.
    """
    requests = [
        ImageRequest(prompt.counterfactual_text, seeds[prompt.key], is_twin=True)
        for prompt in prompts
    ]
    with hold():
        painted = painter.paint_images(requests)
    return [
        _judged(prompt.key, each.image, each, passing, Role.PAINTER)
        for prompt, each in zip(prompts, painted, strict=True)
    ]


def paint_over(
    scenes: Sequence[PaintedScene],
    inpainter: Inpainter,
    rules: TwinRules,
    passing: PairRules,
    hold: HoldDevice = nullcontext,
) -> list[Twin | Rejected]:
    """Paint the objects of every scene over.

    Args:
        scenes: What to paint.
        inpainter: Paints; makes its own batches.
        rules: How far beyond its objects a scene changes.
        passing: Which pictures pass.
        hold: Holds the device while the inpainter computes.

    Returns:
        One result a scene, in order: its counterfactual, which is the image itself outside the
        region around the objects, bit for bit; or why there is none.
    """
    weights = [_region(scene, rules) for scene in scenes]
    requests = [
        InpaintRequest(scene.image, weight > 0, scene.text, scene.seed)
        for scene, weight in zip(scenes, weights, strict=True)
    ]
    with hold():
        painted = inpainter.inpaint(requests)
    return [
        _twin(scene, picture, weight, passing)
        for scene, picture, weight in zip(scenes, painted, weights, strict=True)
    ]


def _region(scene: PaintedScene, rules: TwinRules) -> Float32[np.ndarray, "height width"]:
    side = min(scene.image.shape[:2])
    grow, feather = round(rules.grow * side), round(rules.feather * side)
    return soft_region(_objects(scene), grow, feather)


def _objects(scene: PaintedScene) -> Bool[np.ndarray, "height width"]:
    size = scene.masks.height, scene.masks.width
    objects = np.zeros(size, np.bool_)
    for instance in scene.masks.instances:
        objects |= decode_rle(instance.rle, *size, name=scene.key)
    return objects


def _twin(
    scene: PaintedScene,
    painted: PaintedImage,
    weights: Float32[np.ndarray, "height width"],
    passing: PairRules,
) -> Twin | Rejected:
    twin = blend(scene.image, painted.image, weights)
    return _judged(scene.key, twin, painted, passing, Role.INPAINTER)


def _judged(
    key: str,
    picture: UInt8[np.ndarray, "height width 3"],
    painted: PaintedImage,
    passing: PairRules,
    role: Role,
) -> Twin | Rejected:
    pictures = {"counterfactual": picture}
    judged = PaintedPictures(pictures, unsafe=painted.unsafe, finite=painted.finite)
    return refuse_pictures(key, Stage.TWINS, judged, passing, role) or Twin(key, picture)


def _model(recipe: Recipe) -> Any:
    return recipe.profile.inpainting if recipe.paints_over else recipe.profile.painter


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    own = {"painter": recipe.profile.painter.identity()}
    if recipe.paints_over:
        inpainter = recipe.profile.inpainting.identity()
        own = {"inpainter": inpainter, "rules": recipe.twins.identity()}
    return {
        **own,
        "passing": recipe.pairs.identity(),
        "image_format": recipe.profile.image_format,
    }


def _make(work: PieceWork) -> Made:
    """Make the counterfactuals of a piece; they are encoded while the next ones are painted."""
    steps = _paint_over(work) if work.recipe.paints_over else _paint_later(work)
    results = [result for step in steps for result in step]
    return Made.of_pairs(
        [result for result in results if isinstance(result, EncodedPair)],
        [result for result in results if isinstance(result, Rejected)],
    )


def _paint_over(work: PieceWork) -> list[list[EncodedPair | Rejected]]:
    recipe, config = work.recipe, work.recipe.profile.inpainting
    inpainter = work.machine.models.model(config, work.store.objects)
    scenes = _Scenes(work)

    def paint(step: Sequence[PaintedSample]) -> list[EncodedPair | Rejected]:
        own, hold = list(map(scenes.of, step)), work.pipeline.turn
        twins = paint_over(own, inpainter, recipe.twins, recipe.pairs, hold)
        return _encoded(twins, recipe.profile.image_format)

    return work.pipeline.run(stored_images(work, twins=False), config.batch_size, paint)


def _paint_later(work: PieceWork) -> list[list[EncodedPair | Rejected]]:
    recipe, config = work.recipe, work.recipe.profile.painter
    painter = require_image_painter(work.machine.models.model(config, work.store.objects), recipe)
    texts, _ = split_rows(work.rows(Stage.PROMPTS).values(), Prompt)
    seeds = {sample.key: sample.seed for sample in work.samples}

    def paint(step: Sequence[Prompt]) -> list[EncodedPair | Rejected]:
        twins = paint_twins(step, seeds, painter, recipe.pairs, work.pipeline.turn)
        return _encoded(twins, recipe.profile.image_format)

    return work.pipeline.run(texts, 2 * config.batch_size, paint)


class _Scenes:
    """What is known of the samples of a piece.

    Args:
        work: The piece.
    """

    def __init__(self, work: PieceWork) -> None:
        texts, _ = split_rows(work.rows(Stage.PROMPTS).values(), Prompt)
        masks, _ = split_rows(work.rows(Stage.MASKS).values(), MaskSample)
        self._texts: Mapping[str, str] = {each.key: each.counterfactual_text for each in texts}
        self._masks: Mapping[str, MaskSample] = {each.key: each for each in masks}
        self._seeds: Mapping[str, int] = {each.key: each.seed for each in work.samples}

    def of(self, stored: PaintedSample) -> PaintedScene:
        """The scene of a stored image."""
        key = stored.key
        return PaintedScene(key, stored.image, self._masks[key], self._texts[key], self._seeds[key])


def _encoded(
    results: Sequence[Twin | Rejected], image_format: Literal["jpg", "png"]
) -> list[EncodedPair | Rejected]:
    """The counterfactuals alone: the images are stored already."""
    return [
        result
        if isinstance(result, Rejected)
        else EncodedPair(result.key, b"", encode_image(result.picture, image_format))
        for result in results
    ]


DECLARATION = Declaration(
    stage=Stage.TWINS,
    version=1,
    inputs=(Stage.PROMPTS, Stage.PAIRS, Stage.MASKS),
    role=Role.INPAINTER,
    model=_model,
    depends_on=_depends_on,
    make=_make,
    about="with `twins.way: inpaint` the objects are painted over by the counterfactual text; with "
    "`later` the painter paints the counterfactual of each image that passed",
    is_part=lambda recipe: recipe.paints_images_alone,
    unread=lambda recipe: set() if recipe.paints_over else {Stage.PAIRS, Stage.MASKS},
)
