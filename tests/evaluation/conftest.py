"""A dataset of drawn scenes, committed through the real store, and a baseline that is told
what to find."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from evaluation.benchmarks.contract import Benchmark
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.on_labels import score_baseline
from evaluation.scoring.results import Scores, Subject
from models.labellers import Grounded
from models.miniature.captions import caption
from models.miniature.world import CLASSES, Scene, boxes, masks, render, sample_scene
from models.protocols import CutMasks, FoundBoxes
from storage.codecs import encode_image, encode_label_map, encode_rle
from storage.commits import Counts
from storage.manifest import describe_samples, encode_manifest
from storage.payloads import Payload
from storage.records import (
    Instance,
    Mention,
    PlannedSample,
    PlannedShard,
    Reason,
    Rejected,
    Stage,
)
from storage.shards import Sample, pack
from storage.store import Store

SPEC = {
    "seed": 7,
    "vocabulary": "miniature",
    "painter": {"model": "weights:painter", "revision": None, "steps": 20, "guidance": 3.0},
    "detector": {"model": "weights:detector", "box_threshold": 0.3, "text_threshold": 0.25},
    "note": "<script>alert('spec')</script>",
}

LOSSES = (
    (Stage.PROMPTS, Reason.TEXT_TOO_LONG),
    (Stage.DETECTIONS, Reason.CLASS_NOT_FOUND),
    (Stage.PROMPTS, Reason.WRITER_FAILED),
    (Stage.DETECTIONS, Reason.CLASS_IN_COUNTERFACTUAL),
    (Stage.MASKS, Reason.MASK_TOO_SMALL),
)


def instances_of(scene: Scene) -> tuple[Instance, ...]:
    found = zip(scene.things, masks(scene), boxes(scene).tolist(), strict=True)
    return tuple(
        Instance(
            class_id=thing.class_id,
            score=0.8,
            predicted_iou=0.9,
            xyxy=tuple(box),
            area=int(mask.sum()),
            rle=encode_rle(mask),
        )
        for thing, mask, box in found
    )


def drawn_sample(planned: PlannedSample, rng: np.random.Generator) -> Sample:
    scene = sample_scene(
        rng, num_things=len(planned.class_ids), class_ids=planned.class_ids, hard=0.3
    )
    text, twin_text, spans = caption(scene, rng)
    ids = tuple(thing.class_id for thing in scene.things)
    labels = np.zeros((64, 64), np.uint16)
    for thing, mask in zip(scene.things, masks(scene), strict=True):
        labels[mask] = thing.class_id + 1
    return Sample(
        key=planned.key,
        index=planned.index,
        text=text,
        counterfactual_text=twin_text,
        class_ids=ids,
        class_names=tuple(CLASSES[class_id] for class_id in ids),
        mentions=tuple(
            Mention(class_id=class_id, start=start, end=end)
            for class_id, (start, end) in zip(ids, spans, strict=True)
        ),
        seed=planned.seed,
        instances=instances_of(scene),
        image_bytes=encode_image(render(scene), "png"),
        counterfactual_bytes=encode_image(render(scene, things=False), "png"),
        mask_bytes=encode_label_map(labels),
        writer="template:miniature",
    )


def same(sample: Sample) -> Sample:
    return sample


def commit_shard(
    store: Store,
    index: int,
    planned: int,
    dropped: int,
    change: Callable[[Sample], Sample] = same,
) -> None:
    """Commit a shard of which the first samples were dropped, for each reason in turn."""
    rng = np.random.default_rng((7, index))
    plan = []
    for offset in range(planned):
        number = index * planned + offset
        first = number % len(CLASSES)
        second = (first + 5) % len(CLASSES)
        ids = (first, second) if number % 4 == 3 else (first,)
        plan.append(
            PlannedSample(key=f"0123abcd{number:08x}", index=number, class_ids=ids, seed=number)
        )
    shard = PlannedShard(slice_id="0123abcd", index=index, samples=tuple(plan))
    lost = [
        Rejected(key=each.key, stage=stage, reason=reason, detail="fabricated")
        for position, each in enumerate(plan[:dropped])
        for stage, reason in (LOSSES[(position + index) % len(LOSSES)],)
    ]
    samples = [change(drawn_sample(each, rng)) for each in plan[dropped:]]
    names = dict(enumerate(CLASSES))
    rows = describe_samples(shard, names, samples=samples, dropped=lost)
    payload = Payload(data=pack(samples) if samples else b"", manifest=encode_manifest(rows))
    counts = Counts.of(planned, len(samples), lost)
    store.commit(Stage.SHARDS, shard.name, f"{index:016x}", payload, counts)


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Make a dataset with so many shards; in each some of the planned samples were dropped."""

    def make(
        *,
        shards: int = 2,
        planned: int = 9,
        dropped: int = 2,
        change: Callable[[Sample], Sample] = same,
    ) -> Path:
        root = tmp_path / "drawn-set"
        store = Store.create(root, SPEC)
        for index in range(shards):
            commit_shard(store, index, planned, dropped, change)
        return root

    return make


class Told:
    """A detector and segmenter that find given labels, image after image, in scoring order."""

    def __init__(self, benchmark: Benchmark, predicted: Sequence[Sequence[Sequence[int]]]) -> None:
        first = 1 if benchmark.classes.background else 0
        preferred = [own[0] for own in benchmark.classes.phrases]
        self._labels = {phrase: label for label, phrase in enumerate(preferred, start=first)}
        self._predicted = iter(predicted)
        self._masks = np.zeros((0, 0, 0), dtype=bool)

    def detect(
        self, images: Sequence[np.ndarray], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        [image], [asked] = images, phrases
        predicted = np.asarray(next(self._predicted))
        assert predicted.shape == image.shape[:2]
        wanted = np.asarray([self._labels[phrase] for phrase in asked], dtype=np.int64)
        masks = predicted == wanted[:, None, None]
        found = np.flatnonzero(masks.any(axis=(1, 2)))
        self._masks = masks[found]
        scores = masks.any(axis=(1, 2)).astype(np.float32)
        boxes = np.zeros((len(found), 4), np.float32)
        return [FoundBoxes(boxes, scores[found], found, scores)]

    def segment(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[CutMasks]:
        return [CutMasks(self._masks, np.ones(len(self._masks), np.float32))]


@pytest.fixture
def score_labels(tmp_path: Path) -> Callable[..., Scores]:
    """Score predicted labels, one map for each image of a benchmark."""

    def score_them(benchmark: Benchmark, *predicted: Sequence[Sequence[int]]) -> Scores:
        told = Told(benchmark, predicted)
        subject = Subject(kind="baseline", name="told", fingerprint="0")
        return score_baseline(
            Grounded(told, told),
            benchmark,
            subject=subject,
            config=ScoringConfig(),
            out=tmp_path / "scores",
        )

    return score_them


@pytest.fixture
def ious() -> Callable[[Scores], dict[str, float]]:
    """Look up the IoU of each class that occurs."""

    def look_up(scores: Scores) -> dict[str, float]:
        return {row.name: row.iou for row in scores.classes if row.iou is not None}

    return look_up
