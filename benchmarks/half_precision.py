"""What half precision changes in boxes, masks and verdicts, on the miniature's trained networks.

Pictures are painted pairs of the miniature, of one thing and of two, in float32. The detector and
the segmenter label them in float32, in float16 and in bfloat16, by the rules of a run. Beside them
stands what float32 changes in itself when the batch has another size, which no recipe fixes. On a
CPU: a GPU adds up in another order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import models.miniature
from benchmarks.results_file import write_results
from models.arithmetic import Arithmetic
from models.miniature.scorecard.pairs import orders
from models.profiles import load_profile
from models.protocols import Detector, FoundBoxes, Segmenter
from models.registry import build
from storage.records import Detection, MaskSample, Rejected
from storage.vocabulary import load_vocabulary
from tasks.detections import detect_objects, phrases_of
from tasks.masks import cut_masks, label_map
from tasks.pairs import PaintedSample
from tasks.rules import DetectionRules, MaskRules

OF_ONE, OF_TWO = 16, 96
"""Pictures of each class alone, and of two classes."""
BATCH = 32
PROFILE = load_profile("miniature").labeller
VOCABULARY = load_vocabulary("miniature")
WEIGHTS = Path(models.miniature.__file__).parent / "weights"

Row = dict[str, Any]
Classes = dict[str, tuple[int, ...]]


def painted() -> tuple[list[PaintedSample], Classes]:
    """Paint the pairs; their classes by key."""
    wanted = orders(OF_ONE, OF_TWO, 0)
    pairs = build(load_profile("miniature").painter).paint([order.request for order in wanted])
    samples = [
        PaintedSample(str(number), pair.image, pair.counterfactual)
        for number, pair in enumerate(pairs)
    ]
    return samples, {str(number): order.class_ids for number, order in enumerate(wanted)}


def made(part: Any, dtype: Arithmetic, batch: int) -> Any:
    """A model of the miniature in another arithmetic."""
    return build(part.model_copy(update={"dtype": dtype, "batch_size": batch, "device": "cpu"}))


class Ways:
    """The models in one arithmetic, and what they make of the pictures.

    Args:
        dtype: The arithmetic.
        batch: How many pictures go through a network at once.
    """

    def __init__(self, dtype: Arithmetic, batch: int = BATCH) -> None:
        self.detector: Detector = made(PROFILE.detector, dtype, batch)
        self.segmenter: Segmenter = made(PROFILE.segmenter, dtype, batch)


def verdicts(
    samples: Sequence[PaintedSample], classes: Classes, detector: Detector, segmenter: Segmenter
) -> dict[str, MaskSample | Rejected]:
    """Label the pictures by the rules of a run: each sample's masks, or why it was dropped."""
    found = detect_objects(samples, classes, VOCABULARY, detector, DetectionRules())
    kept = [each for each in found if isinstance(each, Detection)]
    dropped = [each for each in found if isinstance(each, Rejected)]
    judged = [*dropped, *cut_masks(samples, kept, segmenter, MaskRules())]
    return {each.key: each for each in judged}


def of_boxes(expected: Sequence[FoundBoxes], found: Sequence[FoundBoxes]) -> Row:
    """How far boxes and scores are from those expected; a box is told by its phrase and place."""
    shifts: list[float] = []
    without = 0
    for one, other in zip(expected, found, strict=True):
        for box, phrase in zip(one.xyxy, one.phrases, strict=True):
            rivals = other.xyxy[other.phrases == phrase]
            distances = np.abs(rivals - box).max(axis=1, initial=0)
            near = distances[distances < NEAR]
            without += not near.size
            shifts += [float(near.min())] if near.size else []
    scores = np.concatenate(
        [abs(a.best_scores - b.best_scores) for a, b in zip(expected, found, strict=True)]
    )
    return {
        "boxes": sum(len(own.xyxy) for own in expected),
        "boxes_lost": without,
        "shift_mean": digits(np.mean(shifts)),
        "shift_max": digits(max(shifts)),
        "score_mean": digits(scores.mean()),
        "score_max": digits(scores.max()),
    }


NEAR = 8.0
"""Pixels of 64 beyond which a box is another one."""


def of_masks(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Row:
    """How far masks along the same boxes overlap with those expected."""
    overlaps = [
        float((a & b).sum() / max(1, (a | b).sum()))
        for own, other in zip(expected, found, strict=True)
        for a, b in zip(own, other, strict=True)
        if (a | b).any()
    ]
    return {
        "masks": len(overlaps),
        "iou_mean": digits(np.mean(overlaps), 5),
        "iou_min": digits(min(overlaps)),
    }


def of_findings(expected: Sequence[FoundBoxes], found: Sequence[FoundBoxes]) -> Row:
    """How often a class is found in a picture in one way alone, whether it was drawn or not."""
    changed = sum(
        len(set(one.phrases.tolist()) ^ set(other.phrases.tolist()))
        for one, other in zip(expected, found, strict=True)
    )
    return {
        "findings": sum(len(own.best_scores) for own in expected),
        "findings_changed": changed,
    }


def of_verdicts(
    expected: dict[str, MaskSample | Rejected], found: dict[str, MaskSample | Rejected]
) -> Row:
    """In how many samples the verdict is another one, and how many pixels of label maps."""
    both = [
        (one, other)
        for key, one in expected.items()
        if isinstance(one, MaskSample) and isinstance(other := found[key], MaskSample)
    ]
    changed = sum(reason(expected[key]) != reason(found[key]) for key in expected)
    pixels = [float((label_map(one) != label_map(other)).mean()) for one, other in both]
    return {
        "samples": len(expected),
        "passed": sum(isinstance(own, MaskSample) for own in found.values()),
        "verdicts_changed": changed,
        "pixels_changed": digits(np.mean(pixels)),
    }


def reason(verdict: MaskSample | Rejected) -> str:
    """Why a sample was dropped; nothing if it was not."""
    return verdict.reason.value if isinstance(verdict, Rejected) else ""


def digits(number: float | np.floating[Any], count: int = 3) -> float:
    """A figure, short."""
    return float(f"{number:.{count}g}")


def measure() -> list[Row]:
    """Label the same pictures in all ways."""
    torch.set_num_threads(1)
    samples, classes = painted()
    images = [sample.image for sample in samples]
    asked = [phrases_of(classes[sample.key], VOCABULARY) for sample in samples]
    plain = Ways("float32")
    everything = [sample.counterfactual for sample in samples if sample.counterfactual is not None]
    everything = [*images, *everything]
    all_classes = [phrases_of(range(len(VOCABULARY)), VOCABULARY)] * len(everything)
    boxes = plain.detector.detect(images, asked)
    findings = plain.detector.detect(everything, all_classes)
    full = [index for index, own in enumerate(boxes) if len(own.xyxy)]
    cut = [images[index] for index in full], [boxes[index].xyxy for index in full]
    masks = [own.masks for own in plain.segmenter.segment(*cut)]
    judged = verdicts(samples, classes, plain.detector, plain.segmenter)
    others = {
        "float32, a picture at a time": Ways("float32", batch=1),
        "float16": Ways("float16"),
        "bfloat16": Ways("bfloat16"),
    }
    rows: list[Row] = []
    for name, way in others.items():
        found = [own.masks for own in way.segmenter.segment(*cut)]
        row = {
            "what": name,
            **of_boxes(boxes, way.detector.detect(images, asked)),
            **of_findings(findings, way.detector.detect(everything, all_classes)),
            **of_masks(list(map(np.asarray, masks)), list(map(np.asarray, found))),
            **of_verdicts(judged, verdicts(samples, classes, way.detector, way.segmenter)),
        }
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, and write the figures."""
    setting = {"pairs_of_one": 14 * OF_ONE, "pairs_of_two": OF_TWO, "pixels": 64, "near": NEAR}
    packages = ("magicseg-engine", "torch", "transformers")
    write_results("half_precision", measure(), packages, setting=setting)


if __name__ == "__main__":
    main()
