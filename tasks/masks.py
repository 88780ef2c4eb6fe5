"""Masks: boxes become instance masks, and instance masks a label map."""

import dataclasses
from collections.abc import Mapping, Sequence
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
    Record,
    Rejected,
    Stage,
)
from storage.rows import split_rows
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.declarations import BATCHES_A_STEP, Declaration, Made, PieceWork
from tasks.detections import phrases_of, recorded_scene, stored_images, written_uncertain
from tasks.finiteness import are_finite, drop_not_finite
from tasks.pairs import PaintedSample
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
) -> list[MaskSample | Rejected]:
    """Cut every detected object out of its positive image.

    Args:
        pairs: The images; may hold more than the detections need.
        detections: What to cut.
        segmenter: Cuts; makes its own batches.
        rules: What passes.

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
    cuts = segmenter.segment(
        [images[detection.key] for detection in detections],
        [
            np.array([box.xyxy for box in detection.boxes], dtype=np.float32)
            for detection in detections
        ],
    )
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
    classes: Mapping[str, tuple[int, ...]],
    vocabulary: Vocabulary,
    labeller: AttentionLabeller,
    rules: MaskRules,
) -> list[MaskSample | Rejected]:
    """Cut the classes that a detector found out of what was recorded of their painting.

    Args:
        pairs: The images, with maps of all classes of their samples.
        detections: What was found in each, in the same order.
        classes: Class ids by sample key, in the order of the maps.
        vocabulary: Names the classes.
        labeller: Cuts; makes its own batches.
        rules: What passes.

    Returns:
        One result a detection, in order: one instance a class, with the score of its best box and
        the box around its mask; or why the sample was dropped.
    """
    scenes = [
        _scene_of(pair, detection, classes[pair.key], vocabulary)
        for pair, detection in zip(pairs, detections, strict=True)
    ]
    return [
        _checked(
            _of_masks(detection, found, classes[detection.key]),
            found.cuts,
            rules,
            written_uncertain(found.uncertain),
        )
        for detection, found in zip(detections, labeller.label_scenes(scenes), strict=True)
    ]


def _scene_of(
    pair: PaintedSample, detection: Detection, class_ids: Sequence[int], vocabulary: Vocabulary
) -> RecordedScene:
    found = {box.class_id for box in detection.boxes}
    present = frozenset(index for index, each in enumerate(class_ids) if each in found)
    scene = recorded_scene(pair, phrases_of(class_ids, vocabulary))
    return dataclasses.replace(scene, present=present)


def _of_masks(detection: Detection, found: FoundObjects, class_ids: Sequence[int]) -> Detection:
    """A detection with the boxes of the masks: one a class, with the score of its best box."""
    scores = {box.class_id: box.score for box in reversed(detection.boxes)}
    boxes = [
        Box(class_id=class_ids[position], score=scores[class_ids[position]], xyxy=tuple(xyxy))
        for position, xyxy in zip(
            found.boxes.phrases.tolist(), found.boxes.xyxy.tolist(), strict=True
        )
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
    labels = np.full((sample.height, sample.width), BACKGROUND_LABEL, dtype=np.uint16)
    if sample.uncertain:
        unsure = decode_rle(sample.uncertain, sample.height, sample.width, name=sample.key)
        labels[unsure] = IGNORE_LABEL
    best_first = sorted(sample.instances, key=lambda instance: -instance.score)
    for instance in reversed(best_first):
        labels[decode_rle(instance.rle, sample.height, sample.width, name=sample.key)] = (
            instance.class_id + 1
        )
    return labels


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
            area=int(mask.sum()),
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
        share = float((labels == class_id + 1).mean())
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
    rows: list[Record] = []
    if isinstance(config, AttentionConfig):
        return Made.of_rows(_cut_recorded(work, config, found))
    if config is None:
        sizes = {pair.key: pair for pair in split_rows(work.rows(Stage.PAIRS).values(), Pair)[0]}
        for own in work.in_steps(found, _STEP):
            rows += [take_masks(each, _size(sizes[each.key]), rules) for each in own]
        return Made.of_rows(rows)
    boxes = {detection.key: detection for detection in found}
    segmenter = work.machine.models.model(config, work.store.objects)
    for step in work.in_steps(stored_images(work), BATCHES_A_STEP * config.batch_size):
        rows += cut_masks(step, [boxes[pair.key] for pair in step], segmenter, rules)
    return Made.of_rows(rows)


def _cut_recorded(
    work: PieceWork, config: AttentionConfig, found: Sequence[Detection]
) -> list[Record]:
    boxes = {detection.key: detection for detection in found}
    classes = {sample.key: sample.class_ids for sample in work.samples}
    vocabulary = load_vocabulary(work.recipe.profile.vocabulary)
    labeller = work.machine.models.model(config, work.store.objects)
    rows: list[Record] = []
    for step in work.in_steps(stored_images(work), BATCHES_A_STEP * config.batch_size):
        own = [boxes[pair.key] for pair in step]
        rows += cut_scenes(step, own, classes, vocabulary, labeller, work.recipe.masks)
    return rows


def _size(pair: Pair) -> tuple[int, int]:
    return pair.height, pair.width


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
