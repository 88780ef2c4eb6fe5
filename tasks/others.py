"""Others: where the recipe says so, images are looked through for objects that nobody asked for.

A generated image may show objects of the vocabulary's other classes, which training would take for
background, and their classes for absent ones: the first limitation that MagicSeg (arXiv 2603.19575)
names. Here the labeller is asked for classes that an image may show, and what it finds is kept
beside the sample's own objects.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt16

from models.labellers import cutting_part
from models.protocols import FoundObjects
from models.registry import Role, kind_of
from storage.codecs import decode_rle, encode_rle
from storage.records import (
    BACKGROUND_LABEL,
    IGNORE_LABEL,
    Instance,
    MaskSample,
    Others,
    Prompt,
    Rejected,
    Stage,
)
from storage.rows import split_rows
from storage.vocabulary import load_vocabulary
from tasks.declarations import BATCHES_A_STEP, Declaration, Made, PieceWork
from tasks.detections import finder_of, role_of, stored_images
from tasks.finiteness import are_finite, drop_not_finite
from tasks.other_finder import OtherFinder, Question
from tasks.pipeline import HoldDevice
from tasks.recipe import Recipe
from tasks.rules import OtherRules

__all__ = ["SearchedScene", "find_others", "lay_others"]

_PIXEL_DIGITS = 2
_SCORE_DIGITS = 4


@dataclass(frozen=True, eq=False)
class SearchedScene:
    """An image with what is known of it.

    Attributes:
        key: Sample key.
        image: RGB, as it is stored.
        text: What it was painted from.
        class_ids: The classes that were asked for.
        masks: Their objects.
    """

    key: str
    image: UInt8[np.ndarray, "height width 3"]
    text: str
    class_ids: tuple[int, ...]
    masks: MaskSample

    @cached_property
    def own(self) -> Bool[np.ndarray, "height width"]:
        """Pixels of the objects that were asked for."""
        size = self.masks.height, self.masks.width
        covered = np.zeros(size, np.bool_)
        for instance in self.masks.instances:
            covered |= decode_rle(instance.rle, *size, name=self.key)
        return covered


def find_others(
    scenes: Sequence[SearchedScene],
    finder: OtherFinder,
    rules: OtherRules,
    hold: HoldDevice = nullcontext,
) -> list[Others | Rejected]:
    """Look for objects of classes that nobody asked for.

    Args:
        scenes: The images.
        finder: The models.
        rules: What is looked for, and which objects count.
        hold: Holds the device while a network computes.

    Returns:
        One result a scene, in order: what was found, or that some number is none. Pixels are
        rounded to hundredths and scores to four digits.
    """
    likeness = finder.likeness([scene.image for scene in scenes], hold)
    lost: dict[str, Rejected] = {}
    questions: dict[str, Question] = {}
    for index, scene in enumerate(scenes):
        alike = None if likeness is None else likeness[index]
        if alike is not None and not are_finite(alike):
            lost[scene.key] = drop_not_finite(scene.key, Stage.OTHERS, Role.SCOUT, "vectors")
            continue
        named = finder.named(scene.text) if rules.mentioned else frozenset[int]()
        questions[scene.key] = _question(scene.class_ids, named, alike, rules.nearest)
    asked = [scene for scene in scenes if scene.key in questions and questions[scene.key].others]
    found = finder.look(
        [scene.image for scene in asked],
        [questions[scene.key] for scene in asked],
        rules.min_score,
        hold,
    )
    objects = {scene.key: each for scene, each in zip(asked, found, strict=True)}
    role = role_of(finder.detector)
    return [
        lost.get(scene.key)
        or _judged(scene, questions[scene.key], objects.get(scene.key), rules, role)
        for scene in scenes
    ]


def _question(
    own: tuple[int, ...],
    named: frozenset[int],
    alike: Float32[np.ndarray, " classes"] | None,
    nearest: int,
) -> Question:
    """What to ask an image for: the classes that its text names, and the likeliest others."""
    known = named.difference(own)
    if alike is None:
        return Question(own, tuple(sorted(known)))
    # Rounded, so that the last bits of the arithmetic do not reach the records.
    order: list[int] = np.argsort(-alike.round(_SCORE_DIGITS), kind="stable").tolist()
    likeliest = [class_id for class_id in order if class_id not in known.union(own)][:nearest]
    return Question(own, tuple(sorted({*known, *likeliest})))


def _judged(
    scene: SearchedScene,
    question: Question,
    found: FoundObjects | None,
    rules: OtherRules,
    role: Role,
) -> Others | Rejected:
    """What passes of what was found; None means that nothing was asked."""
    if found is None:
        return Others(key=scene.key, asked=question.others, instances=())
    if not found.boxes.finite:
        return drop_not_finite(scene.key, Stage.OTHERS, role, "boxes or scores")
    if not (found.cuts.finite and are_finite(found.cuts.predicted_ious)):
        return drop_not_finite(scene.key, Stage.OTHERS, Role.SEGMENTER, "masks")
    instances = [
        instance
        for row in range(len(found.boxes.scores))
        if (instance := _instance(scene, question, found, row, rules)) is not None
    ]
    best_first = sorted(instances, key=lambda each: (-each.score, each.class_id, each.xyxy))
    return Others(key=scene.key, asked=question.others, instances=tuple(best_first))


def _instance(
    scene: SearchedScene, question: Question, found: FoundObjects, row: int, rules: OtherRules
) -> Instance | None:
    """One object, or nothing if it does not pass."""
    boxes, mask = found.boxes, np.asarray(found.cuts.masks[row])
    area = int(np.count_nonzero(mask))
    free = int(np.count_nonzero(mask & ~scene.own))
    share = free / mask.size
    lies_on_own = area - free > rules.max_overlap * area
    if not area or lies_on_own or not rules.min_area <= share <= rules.max_area:
        return None
    left, top, right, bottom = boxes.xyxy[row].astype(float).round(_PIXEL_DIGITS).tolist()
    return Instance(
        class_id=question.others[int(boxes.phrases[row])],
        score=round(float(boxes.scores[row]), _SCORE_DIGITS),
        predicted_iou=round(float(found.cuts.predicted_ious[row]), _SCORE_DIGITS),
        xyxy=(left, top, right, bottom),
        area=area,
        rle=encode_rle(mask),
    )


def lay_others(
    labels: UInt16[np.ndarray, "height width"], instances: Sequence[Instance], rules: OtherRules
) -> UInt16[np.ndarray, "height width"]:
    """Lay objects that nobody asked for under the labels of a sample: its own win everywhere.

    Args:
        labels: ``class_id + 1``; 0 is background, 65535 is ignored.
        instances: The objects, best score first.
        rules: Whether their pixels are ignored, or labelled by their classes. Where several claim
            one object (`max_overlap`), the first names it; what is left of the others is ignored.
    """
    laid = labels.copy()
    for instance in instances:
        mask = decode_rle(instance.rle, *labels.shape)
        taken = (laid != labels) & (laid != IGNORE_LABEL)  # labelled by a better one
        claims = int(np.count_nonzero(mask & taken))
        is_other_name = claims > rules.max_overlap * instance.area
        label = instance.class_id + 1
        if rules.way == "ignore" or is_other_name:
            label = IGNORE_LABEL
        free = (labels == BACKGROUND_LABEL) & ~taken
        np.copyto(laid, np.uint16(label), where=mask & free)
    return laid


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    cutter = cutting_part(recipe.profile.labeller)
    models = [finder_of(recipe), *([cutter] if cutter is not None else [])]
    if recipe.others.nearest:
        models.append(recipe.profile.scouting)
    return {
        "vocabulary": load_vocabulary(recipe.profile.vocabulary).digest,
        **{kind_of(config).role.value: config.identity() for config in models},
        "rules": recipe.others.identity(),
    }


def _make(work: PieceWork) -> Made:
    models, rules = work.machine.models, work.recipe.others
    finder = finder_for(work.recipe, lambda config: models.model(config, work.store.objects))

    def look(step: Sequence[SearchedScene]) -> list[Others | Rejected]:
        return find_others(step, finder, rules, work.pipeline.turn)

    size = BATCHES_A_STEP * finder_of(work.recipe).batch_size
    return Made.of_steps(work.pipeline.run(_scenes(work), size, look))


def finder_for(recipe: Recipe, load: Callable[[Any], Any]) -> OtherFinder:
    """The models that look through the images of a recipe.

    Args:
        recipe: One that looks for others.
        load: Gives the model of a configuration.
    """
    cutter = cutting_part(recipe.profile.labeller)
    return OtherFinder(
        load_vocabulary(recipe.profile.vocabulary),
        load(finder_of(recipe)),
        None if cutter is None else load(cutter),
        load(recipe.profile.scouting) if recipe.others.nearest else None,
    )


def _scenes(work: PieceWork) -> Iterator[SearchedScene]:
    prompts, _ = split_rows(work.rows(Stage.PROMPTS).values(), Prompt)
    masks, _ = split_rows(work.rows(Stage.MASKS).values(), MaskSample)
    texts: Mapping[str, str] = {each.key: each.text for each in prompts}
    own: Mapping[str, MaskSample] = {each.key: each for each in masks}
    classes = {sample.key: sample.class_ids for sample in work.samples}
    for stored in stored_images(work, twins=False):
        key = stored.key
        yield SearchedScene(key, stored.image, texts[key], classes[key], own[key])


DECLARATION = Declaration(
    stage=Stage.OTHERS,
    version=1,
    inputs=(Stage.PROMPTS, Stage.PAIRS, Stage.MASKS, Stage.CHECKS),
    role=Role.DETECTOR,
    model=finder_of,
    depends_on=_depends_on,
    make=_make,
    about="with `others.way: ignore` or `labels` alone: the image is looked through for objects of "
    "classes that nobody asked for",
    is_part=lambda recipe: recipe.looks_for_others,
    unread=lambda _recipe: {Stage.CHECKS},
)
