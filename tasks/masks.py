"""Masks: boxes become instance masks, and instance masks a label map."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from jaxtyping import UInt16

from models.labellers import cutting_part
from models.labelling.attention.config import AttentionConfig
from models.masks import PackedMasks
from models.protocols import (
    AttentionLabeller,
    CutMasks,
    FoundObjects,
    RecordedScene,
    Segmenter,
)
from models.registry import Role, kind_of
from storage.codecs import decode_rle, encode_rle
from storage.errors import DataError
from storage.records import (
    BACKGROUND_LABEL,
    IGNORE_LABEL,
    Box,
    Detection,
    Instance,
    MaskSample,
    Pair,
    Reason,
    Rejected,
    Stage,
)
from storage.rows import split_rows
from storage.vocabulary import ClassRecord, load_vocabulary
from tasks.declarations import BATCHES_A_STEP, Declaration, Made, PieceWork
from tasks.detections import recorded_scene, stored_images, written_uncertain
from tasks.finiteness import are_finite, drop_not_finite
from tasks.pairs import PaintedSample
from tasks.pipeline import HoldDevice
from tasks.recipe import Recipe
from tasks.rules import MaskRules

__all__ = ["cut_masks", "cut_scenes", "label_map", "take_masks"]

_IOU_DIGITS = 4
_STEP = 64
"""Samples between two looks at whether the run is to stop, where masks are only read."""


def cut_masks(
    pairs: Sequence[PaintedSample],
    detections: Sequence[Detection],
    segmenter: Segmenter,
    rules: MaskRules,
    hold: HoldDevice = nullcontext,
) -> list[MaskSample | Rejected]:
    """Cut every detected object out of its positive image.

    Args:
        pairs: The images; may hold more than the detections need.
        detections: What to cut.
        segmenter: Cuts; makes its own batches.
        rules: What passes.
        hold: Holds the device while the segmenter computes.

    Returns:
        One result a detection, in order: instances in the order of the boxes, or why the sample
        was dropped. An instance without pixels is left out; the area rules speak about each
        class's share of the label map, so a class hidden behind another is too small.

    Raises:
        DataError: If a detection has no pair.
    """
    images = {pair.key: pair.image for pair in pairs}
    strangers = [detection.key for detection in detections if detection.key not in images]
    if strangers:
        message = f"detections of {strangers[:3]} have no pair; {len(images)} pairs were given"
        raise DataError(message)
    own = [images[detection.key] for detection in detections]
    boxes = [
        np.array([box.xyxy for box in detection.boxes], dtype=np.float32)
        for detection in detections
    ]
    with hold():
        cuts = segmenter.segment(own, boxes)
    return [
        _checked(detection, cut, rules) for detection, cut in zip(detections, cuts, strict=True)
    ]


def take_masks(
    detection: Detection, size: tuple[int, int], rules: MaskRules
) -> MaskSample | Rejected:
    """Take the masks that came with the boxes; the rules are those of masks that are cut.

    Args:
        detection: Boxes and their masks.
        size: Height and width of the image in pixels.
        rules: What passes.

    Raises:
        DataError: If there are no masks, or one is not of that size.
    """
    if not detection.masks:
        message = (
            f"{detection.key} has boxes and no masks, expected both from one labeller; verify the "
            "dataset"
        )
        raise DataError(message)
    masks = PackedMasks.joined(
        [
            PackedMasks.of(decode_rle(each.rle, *size, name=detection.key)[None])
            for each in detection.masks
        ]
    )
    ious = np.array([each.predicted_iou for each in detection.masks], dtype=np.float32)
    return _checked(detection, CutMasks(masks, ious), rules, detection.uncertain)


def cut_scenes(
    pairs: Sequence[PaintedSample],
    detections: Sequence[Detection],
    classes: Mapping[str, tuple[ClassRecord, ...]],
    labeller: AttentionLabeller,
    rules: MaskRules,
    hold: HoldDevice = nullcontext,
) -> list[MaskSample | Rejected]:
    """Cut the classes that a detector found out of what was recorded of their painting.

    Args:
        pairs: The images, with maps of all classes of their samples.
        detections: What was found in each, in the same order.
        classes: Classes by sample key, in the order of the maps.
        labeller: Cuts; makes its own batches.
        rules: What passes.
        hold: Holds the device while the labeller computes.

    Returns:
        One result a detection, in order: one instance a class, with the score of its best box and
        the box around its mask; or why the sample was dropped.
    """
    scenes = [
        _scene_of(pair, detection, classes[pair.key])
        for pair, detection in zip(pairs, detections, strict=True)
    ]
    with hold():
        cut = labeller.label_scenes(scenes)
    return [
        _checked(
            _of_masks(detection, found, classes[detection.key]),
            found.cuts,
            rules,
            written_uncertain(found.uncertain),
        )
        for detection, found in zip(detections, cut, strict=True)
    ]


def _scene_of(
    pair: PaintedSample, detection: Detection, classes: Sequence[ClassRecord]
) -> RecordedScene:
    found = {box.class_id for box in detection.boxes}
    present = frozenset(index for index, each in enumerate(classes) if each.class_id in found)
    scene = recorded_scene(pair, tuple(each.detector_phrase for each in classes))
    return dataclasses.replace(scene, present=present)


def _of_masks(
    detection: Detection, found: FoundObjects, classes: Sequence[ClassRecord]
) -> Detection:
    """A detection with the boxes of the masks: one a class, with the score of its best box."""
    scores = {box.class_id: box.score for box in reversed(detection.boxes)}
    class_ids = [classes[position].class_id for position in found.boxes.phrases.tolist()]
    boxes = [
        Box(class_id=class_id, score=scores[class_id], xyxy=tuple(xyxy))
        for class_id, xyxy in zip(class_ids, found.boxes.xyxy.tolist(), strict=True)
    ]
    if not boxes:
        return detection  # every mask is empty, which the rules tell
    return detection.model_copy(update={"boxes": tuple(boxes)})


def label_map(sample: MaskSample) -> UInt16[np.ndarray, "height width"]:
    """Lay the instances over each other: where they overlap, the better detector score wins.

    Returns:
        ``class_id + 1``, and 0 where there is no instance, or 65535 where the labeller was not
        sure. Of equal scores the earlier wins.
    """
    # Run lengths go down the columns, and so does this map while it is filled.
    labels = np.full((sample.height, sample.width), BACKGROUND_LABEL, np.uint16, order="F")
    if sample.uncertain:
        unsure = decode_rle(sample.uncertain, sample.height, sample.width, name=sample.key)
        np.copyto(labels, IGNORE_LABEL, where=unsure)
    best_first = sorted(sample.instances, key=lambda instance: -instance.score)
    for instance in reversed(best_first):
        mask = decode_rle(instance.rle, sample.height, sample.width, name=sample.key)
        np.copyto(labels, np.uint16(instance.class_id + 1), where=mask)
    return np.ascontiguousarray(labels)


def _checked(
    detection: Detection, cut: CutMasks, rules: MaskRules, uncertain: str = ""
) -> MaskSample | Rejected:
    if not (cut.finite and are_finite(cut.predicted_ious)):
        return drop_not_finite(detection.key, Stage.MASKS, Role.SEGMENTER, "masks")
    height, width = cut.masks.shape[1:]
    instances = tuple(
        Instance(
            class_id=box.class_id,
            score=box.score,
            predicted_iou=round(float(iou), _IOU_DIGITS),
            xyxy=box.xyxy,
            area=int(np.count_nonzero(mask)),
            rle=encode_rle(mask),
        )
        for box, mask, iou in zip(detection.boxes, cut.masks, cut.predicted_ious, strict=True)
        if mask.any()
    )
    if not instances:
        return _rejected(detection.key, Reason.MASK_TOO_SMALL, "all masks are empty")
    sample = MaskSample(
        key=detection.key, width=width, height=height, instances=instances, uncertain=uncertain
    )
    return _outside(sample, detection, rules) or sample


def _outside(sample: MaskSample, detection: Detection, rules: MaskRules) -> Rejected | None:
    """Reject a sample if one of its classes covers too little or too much."""
    labels = label_map(sample)
    for class_id in dict.fromkeys(box.class_id for box in detection.boxes):
        share = np.count_nonzero(labels == class_id + 1) / labels.size
        covers = f"class {class_id} covers {share:.4f} of the image, expected"
        if share < rules.min_area:
            detail = f"{covers} at least {rules.min_area:g}"
            return _rejected(sample.key, Reason.MASK_TOO_SMALL, detail)
        if share > rules.max_area:
            detail = f"{covers} at most {rules.max_area:g}"
            return _rejected(sample.key, Reason.MASK_TOO_LARGE, detail)
    return None


def _rejected(key: str, reason: Reason, detail: str) -> Rejected:
    return Rejected(key=key, stage=Stage.MASKS, reason=reason, detail=detail)


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    config = _cutter(recipe)
    cutter = {} if config is None else {kind_of(config).role.value: config.identity()}
    return {**cutter, "rules": recipe.masks.identity()}


def _cutter(recipe: Recipe) -> Any:
    return cutting_part(recipe.profile.labeller)


def _make(work: PieceWork) -> Made:
    found, _ = split_rows(work.rows(Stage.DETECTIONS).values(), Detection)
    config, rules = _cutter(work.recipe), work.recipe.masks
    if config is None:
        return _take(work, found)
    boxes = {detection.key: detection for detection in found}
    vocabulary = load_vocabulary(work.recipe.profile.vocabulary)
    classes = {each.key: tuple(vocabulary[i] for i in each.class_ids) for each in work.samples}
    model = work.machine.models.model(config, work.store.objects)

    def cut(step: Sequence[PaintedSample]) -> list[MaskSample | Rejected]:
        own, hold = [boxes[pair.key] for pair in step], work.pipeline.turn
        if isinstance(config, AttentionConfig):
            return cut_scenes(step, own, classes, model, rules, hold)
        return cut_masks(step, own, model, rules, hold)

    images = stored_images(work, twins=False)
    return Made.of_steps(work.pipeline.run(images, BATCHES_A_STEP * config.batch_size, cut))


def _take(work: PieceWork, found: Sequence[Detection]) -> Made:
    """Take the masks that came with the boxes."""
    pairs, _ = split_rows(work.rows(Stage.PAIRS).values(), Pair)
    sizes = {pair.key: (pair.height, pair.width) for pair in pairs}

    def take(step: Sequence[Detection]) -> list[MaskSample | Rejected]:
        return [take_masks(each, sizes[each.key], work.recipe.masks) for each in step]

    return Made.of_steps(work.pipeline.run(found, _STEP, take))


DECLARATION = Declaration(
    stage=Stage.MASKS,
    version=1,
    inputs=(Stage.PAIRS, Stage.DETECTIONS),
    role=Role.SEGMENTER,
    model=_cutter,
    depends_on=_depends_on,
    make=_make,
    about="a mask is cut for each box, unless it came with the box; where masks overlap the better "
    "box wins",
)
