"""Painter, detector and segmenter in a chain, through the same code as in a generation run."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.miniature.scenes import DrawnScene
from models.miniature.scorecard.pairs import Order, Painted, paint
from models.miniature.world import CLASSES
from models.profiles import load_profile
from models.protocols import Detector, FoundBoxes, Segmenter
from models.registry import build


def detections(painted: Painted, weights: Path) -> dict[str, float]:
    """What the detector finds in painted pairs, at the thresholds of the profile.

    Returns:
        `detector_found`: share of the objects asked for that it finds in positives;
        `detector_false`: share of the counterfactuals in which it finds a removed class.
    """
    positive, negative = (
        np.array([len(set(boxes.phrases.tolist())) for boxes in found])
        for found in _search(painted, weights)
    )
    return {
        "detector_found": float(positive.sum() / sum(len(o.class_ids) for o in painted.orders)),
        "detector_false": float((negative > 0).mean()),
    }


def seconds_for(weights: Path, wanted: Sequence[Order]) -> float:
    """Measure how long it takes to paint pairs, search both pictures and cut out what is found.

    Loading the models is part of it, writing texts and shards is not.
    """
    started = time.monotonic()
    painted = paint(weights, wanted)
    found, _ = _search(painted, weights)
    full = [(p.image, b.xyxy) for p, b in zip(painted.pairs, found, strict=True) if len(b.xyxy)]
    images, boxes = zip(*full, strict=True)
    _segmenter(weights).segment(images, boxes)
    return time.monotonic() - started


def chain_iou(weights: Path, scenes: Sequence[DrawnScene]) -> dict[str, float]:
    """Cut out each thing of drawn scenes along the detector's best box.

    Returns:
        `detected`: share of the visible things that have a box; `iou_detector_boxes`: mean IoU of
        the masks of those that have one.
    """
    detector, segmenter = _detector(weights), _segmenter(weights)
    asked = [tuple(CLASSES[t.class_id] for t in drawn.scene.things) for drawn in scenes]
    overlaps, missing = [], 0
    for drawn, found in zip(
        scenes, detector.detect([drawn.picture for drawn in scenes], asked), strict=True
    ):
        for number, class_id in enumerate(drawn.class_ids):
            candidates = np.flatnonzero(found.phrases == number)
            if class_id < 0 or not candidates.size:
                missing += class_id >= 0
                continue
            best = candidates[found.scores[candidates].argmax()]
            (cut,) = segmenter.segment([drawn.picture], [found.xyxy[[best]]])
            both = (cut.masks[0] & drawn.masks[number]).sum()
            overlaps.append(float(both / (cut.masks[0] | drawn.masks[number]).sum()))
    return {
        "detected": len(overlaps) / (len(overlaps) + missing),
        "iou_detector_boxes": float(np.mean(overlaps)),
    }


def _search(painted: Painted, weights: Path) -> tuple[Sequence[FoundBoxes], Sequence[FoundBoxes]]:
    """Find the classes asked for, in the positives and in the counterfactuals."""
    detector = _detector(weights)
    asked = [tuple(CLASSES[i] for i in order.class_ids) for order in painted.orders]
    return (
        detector.detect([pair.image for pair in painted.pairs], asked),
        detector.detect([pair.counterfactual for pair in painted.pairs], asked),
    )


def _detector(weights: Path) -> Detector:
    settings = load_profile("miniature").labeller.detector
    return build(settings.model_copy(update={"model": str(weights / "detector")}))


def _segmenter(weights: Path) -> Segmenter:
    settings = load_profile("miniature").labeller.segmenter
    return build(settings.model_copy(update={"model": str(weights / "segmenter")}))
