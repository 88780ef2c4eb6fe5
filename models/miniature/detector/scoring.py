"""What the miniature Grounding DINO finds in held-out scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from models.miniature.boxes import box_iou, corners
from models.miniature.detector.network import SPECIAL
from models.miniature.detector.prompts import prompt
from models.miniature.scenes import DrawnScene, as_pictures, collate, held_out
from models.miniature.world import CANVAS, CLASSES

BOX_THRESHOLD = 0.30
"""A class counts as found where its score passes this, as in Grounded-SAM's command line."""


def score(folder: Path, num_scenes: int, seed: int) -> dict[str, float]:
    """Score a trained folder on held-out scenes, through the ordinary processor.

    Args:
        folder: A `from_pretrained` folder.
        num_scenes: Scenes of each kind.
        seed: Of the held-out scenes.

    Returns:
        Shares in [0, 1]. Recall at IoU 0.5 of one-object and of two-object scenes (`recall_one`,
        `recall_two`; the prompt names the present classes), of one-object scenes with all classes
        in the prompt (`recall_all_asked`), of damaged two-object scenes (`recall_damaged`); mean
        IoU of the found boxes (`box_iou`); how often an absent class is found when it is asked for
        alone in the object-free twin (`false_twin`), alone beside another object (`false_alone`),
        and among all classes (`false_among_all`).
    """
    detector = Finder.load(folder)
    one = held_out(num_scenes, seed, num_things=1)
    two = held_out(num_scenes, seed, num_things=2)
    found = {name: detector.recall(scenes) for name, scenes in (("one", one), ("two", two))}
    every = list(range(len(CLASSES)))
    metrics = {f"recall_{name}": recall for name, (recall, _) in found.items()}
    metrics["recall_all_asked"] = detector.recall(one, [every] * len(one))[0]
    metrics["recall_damaged"] = detector.recall(two, damage=seed)[0]
    metrics["box_iou"] = sum(iou for _, iou in found.values()) / len(found)
    count = len(CLASSES)
    asked = [[(item.class_ids[0] + 1 + i % (count - 1)) % count] for i, item in enumerate(one)]
    metrics["false_twin"] = detector.false(one, [i.class_ids for i in one], twin=True)
    metrics["false_alone"] = detector.false(one, asked)
    metrics["false_among_all"] = detector.false(one + two, [every] * (len(one) + len(two)))
    return metrics


@dataclass(frozen=True)
class Finder:
    """Finds classes in scenes with a loaded network, by closed-set span scores.

    Attributes:
        network: The detector.
        processor: Its text and image processor.
    """

    network: GroundingDinoForObjectDetection
    processor: Any

    @classmethod
    def load(cls, folder: Path) -> "Finder":
        """Load a `from_pretrained` folder."""
        network = GroundingDinoForObjectDetection.from_pretrained(folder, dtype=torch.float32)
        return cls(network.eval(), GroundingDinoProcessor.from_pretrained(folder))

    def recall(
        self,
        scenes: Sequence[DrawnScene],
        asked: Sequence[Sequence[int]] | None = None,
        damage: int | None = None,
    ) -> tuple[float, float]:
        """Share of the visible objects found, and the mean IoU of the boxes that found them.

        Args:
            scenes: What to look at.
            asked: Classes in each scene's prompt; those of the scene when None.
            damage: Seed of bending and degrading the pictures first; None leaves them clean.
        """
        batch = collate(scenes)
        if damage is not None:
            batch = batch.damaged(torch.Generator().manual_seed(damage))
        present = [[int(c) for c in row if c >= 0] for row in batch.class_ids]
        questions = present if asked is None else asked
        overlaps = []
        for row, answer in enumerate(self.find(batch.images, questions)):
            for truth, class_id in zip(
                batch.boxes()[row], batch.class_ids[row].tolist(), strict=True
            ):
                if class_id >= 0:
                    boxes = answer.get(class_id, torch.zeros(1, 4))
                    overlaps.append(float(box_iou(boxes, truth).max()))
        hits = [overlap for overlap in overlaps if overlap >= 0.5]
        return len(hits) / len(overlaps), sum(hits) / max(1, len(hits))

    def false(
        self, scenes: Sequence[DrawnScene], asked: Sequence[Sequence[int]], *, twin: bool = False
    ) -> float:
        """Share of the questions for an absent class that are answered with a box."""
        batch = collate(scenes, [twin] * len(scenes))
        wrong = total = 0
        answers = self.find(batch.images, asked)
        for answer, question, present in zip(answers, asked, batch.class_ids.tolist(), strict=True):
            absent = set(question) - set(present)
            total += len(absent)
            wrong += len(absent & set(answer))
        return wrong / total

    @torch.no_grad()
    def find(self, images: Tensor, asked: Sequence[Sequence[int]]) -> list[dict[int, Tensor]]:
        """Boxes in pixels by class, float (boxes, 4), surest first, that pass the threshold."""
        pictures = as_pictures(images)
        answers = []
        for start in range(0, len(pictures), 50):
            part = slice(start, start + 50)
            inputs = self.processor(
                images=pictures[part],
                text=[prompt(question) for question in asked[part]],
                padding=True,
                return_tensors="pt",
            )
            result = self.network(**inputs)
            for row, question in enumerate(asked[part]):
                chances = result.logits[row].sigmoid()  # (predictions, tokens)
                boxes = corners(result.pred_boxes[row]) * CANVAS  # (predictions, 4)
                answers.append(_select(chances, boxes, inputs["input_ids"][row].tolist(), question))
        return answers


def _select(
    chances: Tensor, boxes: Tensor, ids: Sequence[int], question: Sequence[int]
) -> dict[int, Tensor]:
    """Boxes by class; a class's score is the mean over its tokens.

    Args:
        chances: Float (predictions, tokens) in [0, 1].
        boxes: Float (predictions, 4).
        ids: Token ids of the text.
        question: The classes that the text asks for, in its order.
    """
    ends = [i for i, token in enumerate(ids) if token in (SPECIAL["[CLS]"], SPECIAL["."])]
    found = {}
    for class_id, (start, stop) in zip(question, pairwise(ends), strict=True):
        scores = chances[:, start + 1 : stop].mean(-1)  # (predictions)
        order = scores.argsort(descending=True)[: int((scores >= BOX_THRESHOLD).sum())]
        if len(order):
            found[class_id] = boxes[order]
    return found
