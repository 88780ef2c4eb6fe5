"""The pictures of a preview: what the stages would make of some texts, without a dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.labellers import cutting_part
from storage.objects import ObjectStore
from storage.records import Detection, MaskSample, PlannedSample, Prompt, Rejected
from storage.vocabulary import load_vocabulary
from tasks.detections import detect_objects, finder_of
from tasks.masks import cut_masks, take_masks
from tasks.pairs import PaintedSample, paint_images, paint_pairs, require_image_painter
from tasks.recipe import Recipe
from tasks.resident import ResidentModels
from tasks.twins import PaintedScene, Twin, paint_over


class PreviewPainter:
    """Paints samples as the stages do, up to their counterfactuals.

    Args:
        recipe: How samples are made.
        models: The resident models.
        objects: A dataset; models of paid services keep their ledger there.
    """

    def __init__(self, recipe: Recipe, models: ResidentModels, objects: ObjectStore) -> None:
        self._recipe = recipe
        self._models = models
        self._objects = objects

    def paint(
        self, prompts: Sequence[Prompt], planned: Mapping[str, PlannedSample]
    ) -> dict[str, PaintedSample | Rejected]:
        """Paint samples.

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
        painter = self._model(recipe.profile.painter)
        if not recipe.paints_over:
            pairs = paint_pairs(prompts, seeds, painter, recipe.pairs)
            return {each.key: each for each in pairs}
        painter = require_image_painter(painter, recipe)
        images = paint_images(prompts, seeds, painter, recipe.pairs)
        painted = {each.key: each for each in images if isinstance(each, PaintedSample)}
        refused = {each.key: each for each in images if isinstance(each, Rejected)}
        masks = self._masks(painted, planned)
        refused |= {each.key: each for each in masks if isinstance(each, Rejected)}
        texts = {prompt.key: prompt.counterfactual_text for prompt in prompts}
        scenes = [
            PaintedScene(each.key, painted[each.key].image, each, texts[each.key], seeds[each.key])
            for each in masks
            if isinstance(each, MaskSample)
        ]
        inpainter = self._model(recipe.profile.inpainting)
        twins = paint_over(scenes, inpainter, recipe.twins, recipe.pairs)
        return {**refused, **{each.key: _whole(painted[each.key], each) for each in twins}}

    def _masks(
        self, painted: Mapping[str, PaintedSample], planned: Mapping[str, PlannedSample]
    ) -> list[MaskSample | Rejected]:
        recipe = self._recipe
        found = detect_objects(
            list(painted.values()),
            {key: sample.class_ids for key, sample in planned.items()},
            load_vocabulary(recipe.profile.vocabulary),
            self._model(finder_of(recipe)),
            recipe.detections,
        )
        refused = [each for each in found if isinstance(each, Rejected)]
        boxes = [each for each in found if isinstance(each, Detection)]
        cutter = cutting_part(recipe.profile.labeller)
        if cutter is None:
            sizes = {key: each.image.shape[:2] for key, each in painted.items()}
            return refused + [take_masks(each, sizes[each.key], recipe.masks) for each in boxes]
        images = list(painted.values())
        return refused + cut_masks(images, boxes, self._model(cutter), recipe.masks)

    def _model(self, config: Any) -> Any:
        return self._models.model(config, self._objects)


def _whole(image: PaintedSample, twin: Twin | Rejected) -> PaintedSample | Rejected:
    return (
        twin if isinstance(twin, Rejected) else PaintedSample(twin.key, image.image, twin.picture)
    )
