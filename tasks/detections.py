"""Detections: the classes of a sample must be in its image and not in its counterfactual.

Where the counterfactual is painted later, it is checked later (`tasks.checks`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from jaxtyping import Bool

from models.attention_maps import unpack_maps
from models.labellers import finding_part
from models.protocols import (
    AttentionLabeller,
    CutMasks,
    Detector,
    FoundBoxes,
    FoundObjects,
    Labeller,
    RecordedScene,
)
from models.registry import Role, kind_of
from storage.codecs import decode_image, encode_rle
from storage.errors import DataError
from storage.records import Box, BoxMask, Detection, Reason, Rejected, Stage
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.declarations import BATCHES_A_STEP, Declaration, Made, PieceWork
from tasks.finiteness import are_finite, drop_not_finite
from tasks.pairs import PaintedSample
from tasks.pipeline import HoldDevice
from tasks.recipe import Recipe
from tasks.rules import DetectionRules

__all__ = ["detect_objects"]

_PIXEL_DIGITS = 2
_SCORE_DIGITS = 4
_NO_MASKS = CutMasks(np.zeros((0, 0, 0), np.bool_), np.zeros(0, np.float32))

AnyFinder = Detector | AttentionLabeller
"""What finds classes: in a picture, or in where its painter looked."""


def detect_objects(
    pairs: Sequence[PaintedSample],
    classes: Mapping[str, tuple[int, ...]],
    vocabulary: Vocabulary,
    detector: AnyFinder,
    rules: DetectionRules,
    hold: HoldDevice = nullcontext,
) -> list[Detection | Rejected]:
    """Find each sample's classes in its image, and look for them in its counterfactual.

    Counterfactuals are looked at only where the image passes.

    Args:
        pairs: The images; counterfactuals that are not there are not looked at.
        classes: Class ids by sample key.
        vocabulary: Gives the phrase that the detector is asked for.
        detector: Finds; makes its own batches. What a labeller cuts out in the same pass is kept
            beside the boxes.
        rules: What passes.
        hold: Holds the device while the detector computes.

    Returns:
        One result a pair, in order: boxes of the classes that were found, best score first, or why
        the sample was dropped. Pixels are rounded to hundredths and scores to four digits, so that
        the last bits of the arithmetic do not reach the records.
    """
    phrases = [phrases_of(classes[pair.key], vocabulary) for pair in pairs]
    role = role_of(detector)
    with hold():
        found = _find(detector, pairs, phrases)
    passed = [
        index
        for index, each in enumerate(found)
        if is_finite(each.boxes) and _refused(each.boxes, phrases[index], rules) is None
    ]
    with hold():
        shadow_of = _find_shadows({index: pairs[index] for index in passed}, phrases, detector)
    results: list[Detection | Rejected] = []
    for index, (pair, each) in enumerate(zip(pairs, found, strict=True)):
        shadow = shadow_of.get(index)
        dropped = _not_finite(pair.key, role, each, shadow)
        dropped = dropped or _refusal(pair.key, each.boxes, shadow, phrases[index], rules)
        results.append(dropped or _detection(pair.key, each, shadow, classes[pair.key]))
    return results


def role_of(finder: AnyFinder) -> Role:
    """Whose work finding is."""
    alone = isinstance(finder, Detector) and not isinstance(finder, Labeller)
    return Role.DETECTOR if alone else Role.LABELLER


def _find_shadows(
    pairs: Mapping[int, PaintedSample], phrases: Sequence[tuple[str, ...]], detector: AnyFinder
) -> dict[int, FoundBoxes]:
    """What is found in the counterfactuals, by place; nothing of those that are painted later."""
    if isinstance(detector, AttentionLabeller):
        twins = [recorded_scene(pair, phrases[index]) for index, pair in pairs.items()]
        return dict(zip(pairs, detector.find_in_twins(twins), strict=True))
    shown = {
        index: pair.counterfactual
        for index, pair in pairs.items()
        if pair.counterfactual is not None
    }
    found = detector.detect(list(shown.values()), [phrases[index] for index in shown])
    return dict(zip(shown, found, strict=True))


def _find(
    detector: AnyFinder, pairs: Sequence[PaintedSample], phrases: Sequence[tuple[str, ...]]
) -> list[FoundObjects]:
    """The boxes in each image, and what was cut out along them, which may be nothing."""
    if isinstance(detector, AttentionLabeller):
        return detector.label_scenes(list(map(recorded_scene, pairs, phrases)))
    images = [pair.image for pair in pairs]
    if isinstance(detector, Labeller):
        return detector.label(images, phrases)
    return [FoundObjects(boxes, _NO_MASKS) for boxes in detector.detect(images, phrases)]


def recorded_scene(pair: PaintedSample, names: tuple[str, ...]) -> RecordedScene:
    """An image with what was recorded of its painting.

    Args:
        pair: The image.
        names: Its classes.

    Raises:
        DataError: If nothing was recorded.
    """
    if pair.maps is None:
        message = (
            f"{pair.key} has no attention maps, expected those of its painter; verify the dataset"
        )
        raise DataError(message)
    return RecordedScene(pair.image, pair.maps, names)


def _detection(
    key: str, found: FoundObjects, shadow: FoundBoxes | None, class_ids: Sequence[int]
) -> Detection:
    boxes, cut = _boxes(found.boxes, class_ids), found.cuts
    order = _best_first(boxes)
    masks = [
        BoxMask(rle=encode_rle(mask), predicted_iou=round(float(iou), _SCORE_DIGITS))
        for mask, iou in zip(cut.masks, cut.predicted_ious, strict=True)
    ]
    return Detection(
        key=key,
        boxes=tuple(boxes[index] for index in order),
        counterfactual_boxes=() if shadow is None else best_boxes(shadow, class_ids),
        masks=tuple(masks[index] for index in order) if masks else (),
        uncertain=written_uncertain(found.uncertain),
    )


def written_uncertain(pixels: Bool[np.ndarray, "height width"] | None) -> str:
    """Pixels that a labeller does not decide about, as records have them; empty for none."""
    return encode_rle(pixels) if pixels is not None and pixels.any() else ""


def _not_finite(
    key: str, role: Role, found: FoundObjects, shadow: FoundBoxes | None
) -> Rejected | None:
    """Drop a sample of whose models some value is no number."""
    if not all(is_finite(boxes) for boxes in (found.boxes, shadow) if boxes is not None):
        return drop_not_finite(key, Stage.DETECTIONS, role, "boxes or scores")
    if not (found.cuts.finite and are_finite(found.cuts.predicted_ious)):
        return drop_not_finite(key, Stage.DETECTIONS, role, "masks")
    return None


def _refusal(
    key: str,
    found: FoundBoxes,
    shadow: FoundBoxes | None,
    phrases: Sequence[str],
    rules: DetectionRules,
) -> Rejected | None:
    """Say why a sample does not pass; its counterfactual was looked at only if its image does."""
    refused = _refused(found, phrases, rules)
    if refused is not None:
        return _rejected(key, *refused)
    presence = "" if shadow is None else presence_of(shadow, phrases)
    if presence and rules.counterfactual == "reject":
        return _rejected(key, Reason.CLASS_IN_COUNTERFACTUAL, presence)
    return None


def is_finite(found: FoundBoxes) -> bool:
    """Whether all numbers of what was found are."""
    return found.finite and are_finite(found.xyxy, found.scores, found.best_scores)


def phrases_of(class_ids: Sequence[int], vocabulary: Vocabulary) -> tuple[str, ...]:
    """What the detector is asked for."""
    return tuple(vocabulary[class_id].detector_phrase for class_id in class_ids)


def _refused(
    found: FoundBoxes, phrases: Sequence[str], rules: DetectionRules
) -> tuple[Reason, str] | None:
    """Say why what was found in an image is not good enough."""
    absence = _absence(found, phrases, rules)
    if absence:
        return Reason.CLASS_NOT_FOUND, absence
    for index, phrase in enumerate(phrases):
        number = int((found.phrases == index).sum())
        if rules.max_boxes is not None and number > rules.max_boxes:
            return Reason.TOO_MANY_BOXES, f"{phrase} {number} times, at most {rules.max_boxes}"
    return None


def _absence(found: FoundBoxes, phrases: Sequence[str], rules: DetectionRules) -> str:
    """Say which phrases were not found, or nothing if enough were."""
    present = set(found.phrases.tolist())
    enough = len(present) == len(phrases) if rules.require == "all" else bool(present)
    if enough:
        return ""
    return ", ".join(
        f"{phrase} {'found' if index in present else 'not found'} "
        f"(best score {found.best_scores[index]:.2f})"
        for index, phrase in enumerate(phrases)
    )


def presence_of(found: FoundBoxes, phrases: Sequence[str]) -> str:
    """Say which phrases were found, or nothing if none was."""
    return ", ".join(
        f"{phrases[index]} (best score {found.best_scores[index]:.2f})"
        for index in sorted(set(found.phrases.tolist()))
    )


def _boxes(found: FoundBoxes, class_ids: Sequence[int]) -> list[Box]:
    return [
        Box(
            class_id=class_ids[phrase],
            score=round(float(score), _SCORE_DIGITS),
            xyxy=(left, top, right, bottom),
        )
        for (left, top, right, bottom), score, phrase in zip(
            found.xyxy.astype(float).round(_PIXEL_DIGITS).tolist(),
            found.scores,
            found.phrases.tolist(),
            strict=True,
        )
    ]


def best_boxes(found: FoundBoxes, class_ids: Sequence[int]) -> tuple[Box, ...]:
    """The boxes that were found, best score first, with the ids of the classes asked for."""
    boxes = _boxes(found, class_ids)
    return tuple(boxes[index] for index in _best_first(boxes))


def _best_first(boxes: Sequence[Box]) -> list[int]:
    def place(index: int) -> tuple[float, int, tuple[float, ...]]:
        box = boxes[index]
        return -box.score, box.class_id, box.xyxy

    return sorted(range(len(boxes)), key=place)


def _rejected(key: str, reason: Reason, detail: str) -> Rejected:
    return Rejected(key=key, stage=Stage.DETECTIONS, reason=reason, detail=detail)


def stored_images(work: PieceWork, *, twins: bool = True) -> Iterator[PaintedSample]:
    """The stored images: what later stages see is what readers of the dataset will see.

    Args:
        work: The piece.
        twins: Whether counterfactuals are looked at too.
    """
    for pair in work.pictures(Stage.PAIRS):
        name = f"{pair.source}: {pair.key}"
        image, twin = decode_image(pair.image_bytes, name=name), None
        if twins and pair.counterfactual_bytes:
            twin = decode_image(pair.counterfactual_bytes, name=f"{name}.cf")
        maps = unpack_maps(pair.maps_bytes, name=f"{name}.attention") if pair.maps_bytes else None
        yield PaintedSample(pair.key, image, twin, maps)


def finder_of(recipe: Recipe) -> Any:
    """The configuration of the model that finds."""
    return finding_part(recipe.profile.labeller)


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    return {
        "vocabulary": load_vocabulary(recipe.profile.vocabulary).digest,
        kind_of(finder_of(recipe)).role.value: finder_of(recipe).identity(),
        "rules": _image_rules(recipe),
    }


def _image_rules(recipe: Recipe) -> dict[str, Any]:
    rules = recipe.detections.identity()
    if recipe.paints_images_alone:  # counterfactuals are judged by a stage of their own
        del rules["counterfactual"]
    return rules


def _make(work: PieceWork) -> Made:
    config, rules = finder_of(work.recipe), work.recipe.detections
    vocabulary = load_vocabulary(work.recipe.profile.vocabulary)
    classes = {sample.key: sample.class_ids for sample in work.samples}
    detector = work.machine.models.model(config, work.store.objects)

    def detect(step: Sequence[PaintedSample]) -> list[Detection | Rejected]:
        return detect_objects(step, classes, vocabulary, detector, rules, work.pipeline.turn)

    steps = work.pipeline.run(stored_images(work), BATCHES_A_STEP * config.batch_size, detect)
    return Made.of_steps(steps)


DECLARATION = Declaration(
    stage=Stage.DETECTIONS,
    version=1,
    inputs=(Stage.PAIRS,),
    role=Role.DETECTOR,
    model=finder_of,
    depends_on=_depends_on,
    make=_make,
    about="every class must be found in the image, and none in a counterfactual that is painted "
    "with it",
)
