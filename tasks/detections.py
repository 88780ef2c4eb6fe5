"""Detections: the classes of a sample must be in its image and not in its counterfactual."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel

from models.protocols import Detector, FoundBoxes
from storage.records import Box, Detection, Reason, Rejected, Stage
from storage.vocabulary import Vocabulary
from tasks.pairs import PaintedSample

_PIXEL_DIGITS = 2
_SCORE_DIGITS = 4


class DetectionRules(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which detections are good enough; the detector has thresholds of its own."""

    require: Literal["all", "any"] = "all"
    """Whether every class of a sample must be found, or one is enough and the classes that are not
    found leave the sample."""
    counterfactual: Literal["reject", "record"] = "reject"
    """What happens when the detector finds a class of the sample in the counterfactual."""


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
        detector: Finds; makes its own batches.
        rules: What passes.

    Returns:
        One result a pair, in order: boxes of the classes that were found, best score first, or why
        the sample was dropped. Pixels are rounded to hundredths and scores to four digits, so that
        the last bits of the arithmetic do not reach the records.
    """
    phrases = [_phrases(classes[pair.key], vocabulary) for pair in pairs]
    found = detector.detect([pair.image for pair in pairs], phrases)
    absences = [_absence(boxes, own, rules) for boxes, own in zip(found, phrases, strict=True)]
    passed = [index for index, absence in enumerate(absences) if not absence]
    shadows = detector.detect(
        [pairs[index].counterfactual for index in passed], [phrases[index] for index in passed]
    )
    shadow_of = dict(zip(passed, shadows, strict=True))
    results: list[Detection | Rejected] = []
    for index, pair in enumerate(pairs):
        if index not in shadow_of:
            results.append(_rejected(pair.key, Reason.CLASS_NOT_FOUND, absences[index]))
            continue
        presence = _presence(shadow_of[index], phrases[index])
        if presence and rules.counterfactual == "reject":
            results.append(_rejected(pair.key, Reason.CLASS_IN_COUNTERFACTUAL, presence))
            continue
        boxes, shadow = (_boxes(own, classes[pair.key]) for own in (found[index], shadow_of[index]))
        results.append(Detection(key=pair.key, boxes=boxes, counterfactual_boxes=shadow))
    return results


def found_classes(detection: Detection) -> tuple[int, ...]:
    """Class ids that have a box in the image, by best score; the others left the sample."""
    return tuple(dict.fromkeys(box.class_id for box in detection.boxes))


def _phrases(class_ids: Sequence[int], vocabulary: Vocabulary) -> tuple[str, ...]:
    return tuple(vocabulary[class_id].detector_phrase for class_id in class_ids)


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


def _boxes(found: FoundBoxes, class_ids: Sequence[int]) -> tuple[Box, ...]:
    boxes = [
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
    return tuple(sorted(boxes, key=lambda box: (-box.score, box.class_id, box.xyxy)))


def _rejected(key: str, reason: Reason, detail: str) -> Rejected:
    return Rejected(key=key, stage=Stage.DETECTIONS, reason=reason, detail=detail)
