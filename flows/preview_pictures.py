"""The pictures of a preview: what the stages would make of some texts, without a dataset."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from models.labellers import cutting_part
from storage.objects import ObjectStore
from storage.records import Detection, MaskSample, PlannedSample, Prompt, Rejected, Stage
from storage.vocabulary import load_vocabulary
from tasks.checks import check_twins
from tasks.detections import detect_objects, finder_of
from tasks.masks import cut_masks, take_masks
from tasks.pairs import PaintedSample, paint_images, paint_pairs, require_image_painter
from tasks.pipeline import HoldDevice
from tasks.recipe import Recipe
from tasks.resident import ResidentModels
from tasks.twins import PaintedScene, Twin, paint_over


class PreviewPainter:
    """Paints samples as the stages do, up to their counterfactuals.

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
            pairs = paint_pairs(prompts, seeds, painter, recipe.pairs, self._of(Stage.PAIRS))
            return {each.key: each for each in pairs}
        painter = require_image_painter(painter, recipe)
        images = paint_images(prompts, seeds, painter, recipe.pairs, self._of(Stage.PAIRS))
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
        hold = self._of(Stage.TWINS)
        results = paint_over(scenes, inpainter, recipe.twins, recipe.pairs, hold)
        twins = [each for each in results if isinstance(each, Twin)]
        refused |= {each.key: each for each in results if isinstance(each, Rejected)}
        whole = {each.key: _whole(painted[each.key], each) for each in twins}
        return {**refused, **whole, **self._seen(twins, planned)}

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

    def _masks(
        self, painted: Mapping[str, PaintedSample], planned: Mapping[str, PlannedSample]
    ) -> list[MaskSample | Rejected]:
        recipe = self._recipe
        found = detect_objects(
            list(painted.values()),
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
            sizes = {key: each.image.shape[:2] for key, each in painted.items()}
            return refused + [take_masks(each, sizes[each.key], recipe.masks) for each in boxes]
        images = list(painted.values())
        hold = self._of(Stage.MASKS)
        return refused + cut_masks(images, boxes, self._model(cutter), recipe.masks, hold)

    def _of(self, stage: Stage) -> HoldDevice:
        return partial(self._hold, stage)

    def _model(self, config: Any) -> Any:
        return self._models.model(config, self._objects)


def _classes(planned: Mapping[str, PlannedSample]) -> dict[str, tuple[int, ...]]:
    return {key: sample.class_ids for key, sample in planned.items()}


def _whole(image: PaintedSample, twin: Twin) -> PaintedSample:
    return PaintedSample(twin.key, image.image, twin.picture)
