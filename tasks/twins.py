"""Twins: where the recipe says so, a counterfactual is its image with the objects painted over."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from models.protocols import Inpainter, InpaintRequest, PaintedImage
from models.registry import Role
from storage.codecs import decode_rle, encode_image
from storage.pairs import EncodedPair
from storage.records import MaskSample, Prompt, Rejected, Stage
from storage.rows import split_rows
from tasks.declarations import Declaration, Made, PieceWork
from tasks.detections import stored_images
from tasks.pairs import PaintedPictures, PaintedSample, refuse_pictures
from tasks.recipe import Recipe
from tasks.regions import blend, soft_region
from tasks.rules import PairRules, TwinRules

__all__ = ["PaintedScene", "Twin", "paint_over"]


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
    """A counterfactual that was painted over its image.

    Attributes:
        key: Sample key.
        picture: RGB.
    """

    key: str
    picture: UInt8[np.ndarray, "height width 3"]


def paint_over(
    scenes: Sequence[PaintedScene], inpainter: Inpainter, rules: TwinRules, passing: PairRules
) -> list[Twin | Rejected]:
    """Paint the objects of every scene over.

    Args:
        scenes: What to paint.
        inpainter: Paints; makes its own batches.
        rules: How far beyond its objects a scene changes.
        passing: Which pictures pass.

    Returns:
        One result a scene, in order: its counterfactual, which is the image itself outside the
        region around the objects, bit for bit; or why there is none.
    """
    weights = [_region(scene, rules) for scene in scenes]
    painted = inpainter.inpaint(
        [
            InpaintRequest(scene.image, weight > 0, scene.text, scene.seed)
            for scene, weight in zip(scenes, weights, strict=True)
        ]
    )
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
    judged = PaintedPictures({"counterfactual": twin}, unsafe=painted.unsafe, finite=painted.finite)
    return refuse_pictures(scene.key, Stage.TWINS, judged, passing) or Twin(scene.key, twin)


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    return {
        "inpainter": recipe.profile.inpainting.identity(),
        "rules": recipe.twins.identity(),
        "passing": recipe.pairs.identity(),
        "image_format": recipe.profile.image_format,
    }


def _make(work: PieceWork) -> Made:
    """Paint the objects of a piece over; pictures are encoded while the next ones are painted."""
    recipe, config = work.recipe, work.recipe.profile.inpainting
    inpainter = work.machine.models.model(config, work.store.objects)
    scenes = _Scenes(work)
    with ThreadPoolExecutor(1, "encoder") as encoder:
        steps = [
            encoder.submit(
                _encoded,
                paint_over(list(map(scenes.of, step)), inpainter, recipe.twins, recipe.pairs),
                recipe.profile.image_format,
            )
            for step in work.in_steps(stored_images(work), config.batch_size)
        ]
        results = [result for step in steps for result in step.result()]
    return Made.of_pairs(
        [result for result in results if isinstance(result, EncodedPair)],
        [result for result in results if isinstance(result, Rejected)],
    )


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
    model=lambda recipe: recipe.profile.inpainting,
    depends_on=_depends_on,
    make=_make,
    about="with `twins.way: inpaint` alone: the objects are painted over by the counterfactual "
    "text",
    is_part=lambda recipe: recipe.paints_over,
)
