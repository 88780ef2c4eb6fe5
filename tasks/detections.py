"""Detections: the classes of a sample must be in its image and not in its counterfactual."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.protocols import Detector, FoundBoxes
from models.registry import Role
from storage.codecs import decode_image
from storage.records import Box, Detection, Reason, Record, Rejected, Stage
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.declarations import BATCHES_A_STEP, Declaration, Made, PieceWork
from tasks.finiteness import are_finite, drop_not_finite
from tasks.pairs import PaintedSample
from tasks.recipe import Recipe
from tasks.rules import DetectionRules

__all__ = ["detect_objects"]

_PIXEL_DIGITS = 2
_SCORE_DIGITS = 4


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
    passed = [
        index
        for index, boxes in enumerate(found)
        if _is_finite(boxes) and not _absence(boxes, phrases[index], rules)
    ]
    shadows = detector.detect(
        [pairs[index].counterfactual for index in passed], [phrases[index] for index in passed]
    )
    shadow_of = dict(zip(passed, shadows, strict=True))
    results: list[Detection | Rejected] = []
    for index, pair in enumerate(pairs):
        dropped = _dropped(pair.key, found[index], shadow_of.get(index), phrases[index], rules)
        if dropped is not None:
            results.append(dropped)
            continue
        boxes, shadow = (_boxes(own, classes[pair.key]) for own in (found[index], shadow_of[index]))
        results.append(Detection(key=pair.key, boxes=boxes, counterfactual_boxes=shadow))
    return results


def _dropped(
    key: str,
    found: FoundBoxes,
    shadow: FoundBoxes | None,
    phrases: Sequence[str],
    rules: DetectionRules,
) -> Rejected | None:
    """Say why a sample does not pass; its counterfactual was looked at only if its image does."""
    if not all(_is_finite(boxes) for boxes in (found, shadow) if boxes is not None):
        return drop_not_finite(key, Stage.DETECTIONS, Role.DETECTOR, "boxes or scores")
    if shadow is None:
        return _rejected(key, Reason.CLASS_NOT_FOUND, _absence(found, phrases, rules))
    presence = _presence(shadow, phrases)
    if presence and rules.counterfactual == "reject":
        return _rejected(key, Reason.CLASS_IN_COUNTERFACTUAL, presence)
    return None


def _is_finite(found: FoundBoxes) -> bool:
    return found.finite and are_finite(found.xyxy, found.scores, found.best_scores)


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


def stored_images(work: PieceWork) -> Iterator[PaintedSample]:
    """The stored images: what later stages see is what readers of the dataset will see."""
    for pair in work.pairs():
        name = f"{pair.source}: {pair.key}"
        image = decode_image(pair.image_bytes, name=name)
        yield PaintedSample(
            pair.key, image, decode_image(pair.counterfactual_bytes, name=f"{name}.cf")
        )


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    return {
        "vocabulary": load_vocabulary(recipe.profile.vocabulary).digest,
        "detector": recipe.profile.detector.identity(),
        "rules": recipe.detections,
    }


def _make(work: PieceWork) -> Made:
    config, rules = work.recipe.profile.detector, work.recipe.detections
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
    depends_on=_depends_on,
    make=_make,
    about="every class must be found in the image, and none in the counterfactual",
)
