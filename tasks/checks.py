"""Checks: the classes of a sample must not be in a counterfactual that was made later."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from models.protocols import Detector, FoundBoxes
from models.registry import Role, kind_of
from storage.codecs import decode_image
from storage.records import Reason, Rejected, Stage, TwinCheck
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.declarations import BATCHES_A_STEP, Declaration, Made, PieceWork
from tasks.detections import best_boxes, finder_of, is_finite, phrases_of, presence_of, role_of
from tasks.finiteness import drop_not_finite
from tasks.pipeline import HoldDevice
from tasks.recipe import Recipe
from tasks.rules import DetectionRules
from tasks.twins import Twin

__all__ = ["check_twins"]


def check_twins(
    twins: Sequence[Twin],
    classes: Mapping[str, tuple[int, ...]],
    vocabulary: Vocabulary,
    detector: Detector,
    rules: DetectionRules,
    hold: HoldDevice = nullcontext,
) -> list[TwinCheck | Rejected]:
    """Look for each sample's classes in its counterfactual.

    Args:
        twins: The counterfactuals.
        classes: Class ids by sample key.
        vocabulary: Gives the phrase that the detector is asked for.
        detector: Finds; makes its own batches.
        rules: What happens to a sample if something is found.
        hold: Holds the device while the detector computes.

    Returns:
        One result a counterfactual, in order: what was found, or why the sample was dropped.
    """
    phrases = [phrases_of(classes[twin.key], vocabulary) for twin in twins]
    pictures = [twin.picture for twin in twins]
    with hold():
        found = detector.detect(pictures, phrases)
    role = role_of(detector)
    return [
        _not_finite(twin.key, role, boxes)
        or _refused(twin.key, boxes, own, rules)
        or TwinCheck(key=twin.key, counterfactual_boxes=best_boxes(boxes, classes[twin.key]))
        for twin, boxes, own in zip(twins, found, phrases, strict=True)
    ]


def _not_finite(key: str, role: Role, found: FoundBoxes) -> Rejected | None:
    finite = is_finite(found)
    return None if finite else drop_not_finite(key, Stage.CHECKS, role, "boxes or scores")


def _refused(
    key: str, found: FoundBoxes, phrases: Sequence[str], rules: DetectionRules
) -> Rejected | None:
    presence = presence_of(found, phrases)
    if presence and rules.counterfactual == "reject":
        reason = Reason.CLASS_IN_COUNTERFACTUAL
        return Rejected(key=key, stage=Stage.CHECKS, reason=reason, detail=presence)
    return None


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    finder = finder_of(recipe)
    return {
        "vocabulary": load_vocabulary(recipe.profile.vocabulary).digest,
        kind_of(finder).role.value: finder.identity(),
        "rules": {"counterfactual": recipe.detections.counterfactual},
    }


def _stored_twins(work: PieceWork) -> Iterator[Twin]:
    for pair in work.pictures(Stage.TWINS):
        name = f"{pair.source}: {pair.key}.cf"
        yield Twin(pair.key, decode_image(pair.counterfactual_bytes, name=name))


def _make(work: PieceWork) -> Made:
    config, rules = finder_of(work.recipe), work.recipe.detections
    vocabulary = load_vocabulary(work.recipe.profile.vocabulary)
    classes = {sample.key: sample.class_ids for sample in work.samples}
    detector = work.machine.models.model(config, work.store.objects)

    def check(step: Sequence[Twin]) -> list[TwinCheck | Rejected]:
        return check_twins(step, classes, vocabulary, detector, rules, work.pipeline.turn)

    steps = work.pipeline.run(_stored_twins(work), BATCHES_A_STEP * config.batch_size, check)
    return Made.of_steps(steps)


DECLARATION = Declaration(
    stage=Stage.CHECKS,
    version=1,
    inputs=(Stage.TWINS,),
    role=Role.DETECTOR,
    model=finder_of,
    depends_on=_depends_on,
    make=_make,
    about="with `twins.way: later` or `inpaint` alone: no class may be found in a counterfactual "
    "that was made later",
    is_part=lambda recipe: recipe.paints_images_alone,
)
