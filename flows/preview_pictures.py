"""The pictures of a preview: what the stages would make of some texts, without a dataset."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8

from evaluation.reports.sheets import overlay
from models.labellers import cutting_part
from storage.objects import ObjectStore
from storage.records import (
    Detection,
    Instance,
    MaskSample,
    Others,
    PlannedSample,
    Prompt,
    Rejected,
    Stage,
)
from storage.vocabulary import load_vocabulary
from tasks.checks import check_twins
from tasks.detections import detect_objects, finder_of
from tasks.masks import cut_masks, label_map, take_masks
from tasks.others import SearchedScene, find_others, finder_for, lay_others
from tasks.pairs import PaintedSample, paint_images, paint_pairs, require_image_painter
from tasks.pipeline import HoldDevice
from tasks.recipe import Recipe
from tasks.resident import ResidentModels
from tasks.twins import PaintedScene, Twin, paint_over


@dataclass(frozen=True)
class PreviewedSample:
    """A painted sample, and what was found in it if that was looked for.

    Attributes:
        painted: Its pictures.
        refused: Why it is dropped after all: it was painted, but its own objects were not found.
        overlay: The image with masks over it; None if it was not looked through.
        others: Objects that nobody asked for, best score first.
    """

    painted: PaintedSample
    refused: Rejected | None = None
    overlay: UInt8[np.ndarray, "height width 3"] | None = None
    others: tuple[Instance, ...] = ()


class PreviewPainter:
    """Paints samples as the stages do, up to their counterfactuals; looks for hidden objects, too.

    Those that are painted over their images are checked too: what finds the objects is there by
    then, and says best whether they are gone.

    Args:
        recipe: How samples are made.
        models: The resident models.
        objects: A dataset; models of paid services keep their ledger there.
        hold: Holds the device of a stage while its model computes.
    """

    def __init__(
        self,
        recipe: Recipe,
        models: ResidentModels,
        objects: ObjectStore,
        hold: Callable[[Stage], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self._recipe = recipe
        self._models = models
        self._objects = objects
        self._hold = hold

    def paint(
        self, prompts: Sequence[Prompt], planned: Mapping[str, PlannedSample]
    ) -> dict[str, PreviewedSample | Rejected]:
        """Paint samples, and look them through if the recipe does.

        Args:
            prompts: Their texts.
            planned: What the plan says of them, by sample key.

        Returns:
            The pictures, or why there are none, by sample key.

        Raises:
            InputError: If weights are missing, or the painter cannot paint what is asked for.
        """
        recipe = self._recipe
        seeds = {key: sample.seed for key, sample in planned.items()}
        masks: list[MaskSample | Rejected] = []
        if recipe.paints_over:
            pictures, masks = self._painted_over(prompts, planned, seeds)
        else:
            painter = self._model(recipe.profile.painter)
            pictures = paint_pairs(prompts, seeds, painter, recipe.pairs, self._of(Stage.PAIRS))
            if recipe.looks_for_others:
                masks = self._masks([self._looked_at(each) for each in _good(pictures)], planned)
        painted = {each.key: PreviewedSample(each) for each in _good(pictures)}
        refused = {each.key: each for each in pictures if isinstance(each, Rejected)}
        if not recipe.looks_for_others:
            return {**refused, **painted}
        found = self._others(painted, masks, prompts, planned)
        return {**refused, **painted, **found}

    def _painted_over(
        self,
        prompts: Sequence[Prompt],
        planned: Mapping[str, PlannedSample],
        seeds: Mapping[str, int],
    ) -> tuple[list[PaintedSample | Rejected], list[MaskSample | Rejected]]:
        """Samples whose counterfactuals are their images with the objects painted over."""
        recipe = self._recipe
        painter = require_image_painter(self._model(recipe.profile.painter), recipe)
        images = paint_images(prompts, seeds, painter, recipe.pairs, self._of(Stage.PAIRS))
        painted = {each.key: each for each in _good(images)}
        masks = self._masks(list(painted.values()), planned)
        texts = {prompt.key: prompt.counterfactual_text for prompt in prompts}
        scenes = [
            PaintedScene(each.key, painted[each.key].image, each, texts[each.key], seeds[each.key])
            for each in masks
            if isinstance(each, MaskSample)
        ]
        inpainter = self._model(recipe.profile.inpainting)
        hold = self._of(Stage.TWINS)
        results = paint_over(scenes, inpainter, recipe.twins, recipe.pairs, hold)
        twins = [each for each in results if isinstance(each, Twin)]
        seen = self._seen(twins, planned)
        refused = [each for each in (*images, *masks, *results) if isinstance(each, Rejected)]
        whole = [_whole(painted[each.key], each) for each in twins if each.key not in seen]
        return [*refused, *seen.values(), *whole], masks

    def _seen(
        self, twins: Sequence[Twin], planned: Mapping[str, PlannedSample]
    ) -> dict[str, Rejected]:
        """What is dropped because its counterfactual still shows a class."""
        recipe = self._recipe
        checked = check_twins(
            twins,
            _classes(planned),
            load_vocabulary(recipe.profile.vocabulary),
            self._model(finder_of(recipe)),
            recipe.detections,
            self._of(Stage.CHECKS),
        )
        return {each.key: each for each in checked if isinstance(each, Rejected)}

    def _looked_at(self, pair: PaintedSample) -> PaintedSample:
        """What the detector sees of a pair: the image alone, if its twin is painted later."""
        return replace(pair, counterfactual=None) if self._recipe.paints_images_alone else pair

    def _others(
        self,
        painted: Mapping[str, PreviewedSample],
        masks: Sequence[MaskSample | Rejected],
        prompts: Sequence[Prompt],
        planned: Mapping[str, PlannedSample],
    ) -> dict[str, PreviewedSample]:
        """Samples that were looked through, or why they are dropped before that."""
        recipe = self._recipe
        texts = {prompt.key: prompt.text for prompt in prompts}
        own = {e.key: e for e in masks if isinstance(e, MaskSample) and e.key in painted}
        scenes = [
            SearchedScene(key, painted[key].painted.image, texts[key], planned[key].class_ids, each)
            for key, each in own.items()
        ]
        finder = finder_for(recipe, self._model)
        looked = find_others(scenes, finder, recipe.others, self._of(Stage.OTHERS))
        lost = [each for each in (*masks, *looked) if isinstance(each, Rejected)]
        found = {e.key: replace(painted[e.key], refused=e) for e in lost if e.key in painted}
        for each in looked:
            if isinstance(each, Others):
                sample, others = painted[each.key], each.instances
                labels = lay_others(label_map(own[each.key]), others, recipe.others)
                shown = overlay(sample.painted.image, labels, others)
                found[each.key] = replace(sample, overlay=shown, others=others)
        return found

    def _masks(
        self, images: Sequence[PaintedSample], planned: Mapping[str, PlannedSample]
    ) -> list[MaskSample | Rejected]:
        recipe = self._recipe
        found = detect_objects(
            images,
            _classes(planned),
            load_vocabulary(recipe.profile.vocabulary),
            self._model(finder_of(recipe)),
            recipe.detections,
            self._of(Stage.DETECTIONS),
        )
        refused = [each for each in found if isinstance(each, Rejected)]
        boxes = [each for each in found if isinstance(each, Detection)]
        cutter = cutting_part(recipe.profile.labeller)
        if cutter is None:
            sizes = {each.key: each.image.shape[:2] for each in images}
            return refused + [take_masks(each, sizes[each.key], recipe.masks) for each in boxes]
        hold = self._of(Stage.MASKS)
        return refused + cut_masks(images, boxes, self._model(cutter), recipe.masks, hold)

    def _of(self, stage: Stage) -> HoldDevice:
        return partial(self._hold, stage)

    def _model(self, config: Any) -> Any:
        return self._models.model(config, self._objects)


def _classes(planned: Mapping[str, PlannedSample]) -> dict[str, tuple[int, ...]]:
    return {key: sample.class_ids for key, sample in planned.items()}


def _good(results: Iterable[PaintedSample | Rejected]) -> list[PaintedSample]:
    return [each for each in results if isinstance(each, PaintedSample)]


def _whole(image: PaintedSample, twin: Twin) -> PaintedSample:
    return PaintedSample(twin.key, image.image, twin.picture)
