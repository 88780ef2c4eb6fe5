"""Detections: the classes of a sample must be in its image and not in its counterfactual."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from models.labellers import finding_part
from models.protocols import CutMasks, Detector, FoundBoxes, FoundObjects, Labeller
from models.registry import Role, kind_of
from storage.codecs import decode_image, encode_rle
from storage.records import Box, BoxMask, Detection, Reason, Record, Rejected, Stage
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.declarations import BATCHES_A_STEP, Declaration, Made, PieceWork
from tasks.finiteness import are_finite, drop_not_finite
from tasks.pairs import PaintedSample
from tasks.recipe import Recipe
from tasks.rules import DetectionRules

__all__ = ["detect_objects"]

_PIXEL_DIGITS = 2
_SCORE_DIGITS = 4
_NO_MASKS = CutMasks(np.zeros((0, 0, 0), np.bool_), np.zeros(0, np.float32))


def detect_objects(
    pairs: Sequence[PaintedSample],
    classes: Mapping[str, tuple[int, ...]],
    vocabulary: Vocabulary,
    detector: Detector,
    rules: DetectionRules,
) -> list[Detection | Rejected]:
    """Find each sample's classes in its image, and look for them in its counterfactual.

    Counterfactuals are looked at only where the image passes.

    Args:
        pairs: The images.
        classes: Class ids by sample key.
        vocabulary: Gives the phrase that the detector is asked for.
        detector: Finds; makes its own batches. What a `Labeller` cuts out in the same pass is
            kept beside the boxes.
        rules: What passes.

    Returns:
        One result a pair, in order: boxes of the classes that were found, best score first, or why
        the sample was dropped. Pixels are rounded to hundredths and scores to four digits, so that
        the last bits of the arithmetic do not reach the records.
    """
    phrases = [_phrases(classes[pair.key], vocabulary) for pair in pairs]
    role = Role.LABELLER if isinstance(detector, Labeller) else Role.DETECTOR
    found, cuts = _find(detector, [pair.image for pair in pairs], phrases)
    passed = [
        index
        for index, boxes in enumerate(found)
        if _is_finite(boxes) and _refused(boxes, phrases[index], rules) is None
    ]
    shadows = detector.detect(
        [pairs[index].counterfactual for index in passed], [phrases[index] for index in passed]
    )
    shadow_of = dict(zip(passed, shadows, strict=True))
    results: list[Detection | Rejected] = []
    for index, pair in enumerate(pairs):
        dropped = _not_finite(pair.key, role, found[index], shadow_of.get(index), cuts[index])
        dropped = dropped or _refusal(
            pair.key, found[index], shadow_of.get(index), phrases[index], rules
        )
        results.append(
            dropped
            or _detection(pair.key, found[index], shadow_of[index], cuts[index], classes[pair.key])
        )
    return results


def _find(
    detector: Detector, images: Sequence[Any], phrases: Sequence[tuple[str, ...]]
) -> tuple[list[FoundBoxes], list[CutMasks]]:
    """The boxes of each image, and what was cut out along them, which may be nothing."""
    if isinstance(detector, Labeller):
        labelled: list[FoundObjects] = detector.label(images, phrases)
        return [each.boxes for each in labelled], [each.cuts for each in labelled]
    return detector.detect(images, phrases), [_NO_MASKS] * len(images)


def _detection(
    key: str, found: FoundBoxes, shadow: FoundBoxes, cut: CutMasks, class_ids: Sequence[int]
) -> Detection:
    boxes = _boxes(found, class_ids)
    order = _best_first(boxes)
    masks = [
        BoxMask(rle=encode_rle(mask), predicted_iou=round(float(iou), _SCORE_DIGITS))
        for mask, iou in zip(cut.masks, cut.predicted_ious, strict=True)
    ]
    shadows = _boxes(shadow, class_ids)
    return Detection(
        key=key,
        boxes=tuple(boxes[index] for index in order),
        counterfactual_boxes=tuple(shadows[index] for index in _best_first(shadows)),
        masks=tuple(masks[index] for index in order) if masks else (),
    )


def _not_finite(
    key: str, role: Role, found: FoundBoxes, shadow: FoundBoxes | None, cut: CutMasks
) -> Rejected | None:
    """Drop a sample of whose models some value is no number."""
    if not all(_is_finite(boxes) for boxes in (found, shadow) if boxes is not None):
        return drop_not_finite(key, Stage.DETECTIONS, role, "boxes or scores")
    if not (cut.finite and are_finite(cut.predicted_ious)):
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
    presence = "" if shadow is None else _presence(shadow, phrases)
    if presence and rules.counterfactual == "reject":
        return _rejected(key, Reason.CLASS_IN_COUNTERFACTUAL, presence)
    return None


def _is_finite(found: FoundBoxes) -> bool:
    return found.finite and are_finite(found.xyxy, found.scores, found.best_scores)


def _phrases(class_ids: Sequence[int], vocabulary: Vocabulary) -> tuple[str, ...]:
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


def _presence(found: FoundBoxes, phrases: Sequence[str]) -> str:
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


def _best_first(boxes: Sequence[Box]) -> list[int]:
    def place(index: int) -> tuple[float, int, tuple[float, ...]]:
        box = boxes[index]
        return -box.score, box.class_id, box.xyxy

    return sorted(range(len(boxes)), key=place)


def _rejected(key: str, reason: Reason, detail: str) -> Rejected:
    return Rejected(key=key, stage=Stage.DETECTIONS, reason=reason, detail=detail)


def stored_images(work: PieceWork) -> Iterator[PaintedSample]:
    """The stored images: what later stages see is what readers of the dataset will see."""
    for pair in work.pairs():
        name = f"{pair.source}: {pair.key}"
        image = decode_image(pair.image_bytes, name=name)
        yield PaintedSample(
            pair.key, image, decode_image(pair.counterfactual_bytes, name=f"{name}.cf")
        )


def _finder(recipe: Recipe) -> Any:
    return finding_part(recipe.profile.labeller)


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    return {
        "vocabulary": load_vocabulary(recipe.profile.vocabulary).digest,
        kind_of(_finder(recipe)).role.value: _finder(recipe).identity(),
        "rules": recipe.detections.identity(),
    }


def _make(work: PieceWork) -> Made:
    config, rules = _finder(work.recipe), work.recipe.detections
    vocabulary = load_vocabulary(work.recipe.profile.vocabulary)
    classes = {sample.key: sample.class_ids for sample in work.samples}
    detector = work.machine.models.model(config, work.store.objects)
    rows: list[Record] = []
    for step in work.in_steps(stored_images(work), BATCHES_A_STEP * config.batch_size):
        rows += detect_objects(step, classes, vocabulary, detector, rules)
    return Made.of_rows(rows)


DECLARATION = Declaration(
    stage=Stage.DETECTIONS,
    version=1,
    inputs=(Stage.PAIRS,),
    role=Role.DETECTOR,
    model=_finder,
    depends_on=_depends_on,
    make=_make,
    about="every class must be found in the image, and none in the counterfactual",
)
