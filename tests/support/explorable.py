"""Datasets to look through: drawn samples that were written, and others that were dropped."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.miniature import world
from storage.codecs import encode_image, encode_label_map, encode_rle
from storage.commits import Counts, Verdict
from storage.layout import cell_name
from storage.manifest import describe_samples, encode_manifest
from storage.pairs import EncodedPair, pack_pairs
from storage.payloads import Payload
from storage.records import (
    Box,
    Detection,
    Instance,
    MaskSample,
    Mention,
    PlannedSample,
    PlannedShard,
    Prompt,
    Reason,
    Rejected,
    Stage,
)
from storage.rows import write_rows
from storage.shards import Sample, pack
from storage.store import Store

__all__ = [
    "NAMES",
    "SLICE",
    "Dropped",
    "add_open",
    "add_shard",
    "draw",
    "drop",
    "explorable",
    "key_of",
]

SLICE = "0badcafe"
NAMES = dict(enumerate(world.CLASSES)) | {
    3: '"><img src=x onerror="document.title=1">',
    4: "قارب",
    5: "🚀 rocket & 'co'",
}
"""Class names, some of them of a hostile world."""


def key_of(index: int) -> str:
    """The key of a sample."""
    return f"{SLICE}{index:08d}"


def draw(index: int, class_ids: Sequence[int] = (), *, text: str = "", score: float = 0.5):
    """A drawn sample with one object."""
    class_id = (class_ids or [index % 6])[0]
    scene = world.sample_scene(np.random.default_rng(index), class_ids=[class_id])
    image = world.render(scene)
    mask = world.masks(scene)[0]
    left, top, right, bottom = (float(each) for each in world.boxes(scene)[0])
    name = NAMES[class_id]
    words = text or f"a drawing of {name}"
    start = words.find(name)
    found = start >= 0
    return Sample(
        key=key_of(index),
        index=index,
        text=words,
        counterfactual_text=words.replace(name, "nothing"),
        class_ids=(class_id,),
        class_names=(name,),
        mentions=(Mention(class_id=class_id, start=start, end=start + len(name)),) if found else (),
        seed=index,
        instances=(
            Instance(
                class_id=class_id,
                score=score,
                predicted_iou=0.9,
                xyxy=(left, top, right, bottom),
                area=int(mask.sum()),
                rle=encode_rle(mask),
            ),
        ),
        image_bytes=encode_image(image, "png"),
        counterfactual_bytes=encode_image(world.render(scene, things=False), "png"),
        mask_bytes=encode_label_map(np.where(mask, class_id + 1, 0).astype(np.uint16)),
        writer="test",
    )


class Dropped:
    """A sample that was painted and then dropped.

    Args:
        index: Its position in the slice.
        stage: Where.
        reason: Why.
    """

    def __init__(self, index: int, stage: Stage, reason: Reason) -> None:
        self.sample = draw(index)
        self.row = Rejected(key=key_of(index), stage=stage, reason=reason, detail="0.01 < 0.02")
        self.prompt = Prompt(
            key=key_of(index),
            text=self.sample.text,
            counterfactual_text=self.sample.counterfactual_text,
            mentions=self.sample.mentions,
            writer="test",
        )


def drop(*indices: int) -> list[Dropped]:
    """Samples that are dropped by the detector, the masks' rules and the text rules, in turn."""
    kinds = [
        (Stage.DETECTIONS, Reason.CLASS_NOT_FOUND),
        (Stage.MASKS, Reason.MASK_TOO_SMALL),
        (Stage.PROMPTS, Reason.NEAR_DUPLICATE),
    ]
    return [Dropped(index, *kinds[place % 3]) for place, index in enumerate(indices)]


def explorable(root: str | Path) -> Store:
    """An empty dataset."""
    plan = {"vocabulary": "miniature", "seed": 1, "samples_per_shard": 8}
    return Store.create(root, {"plan": plan, "min_yield": 0.1})


def add_shard(
    store: Store, number: int, samples: Sequence[Sample], dropped: Sequence[Dropped] = ()
) -> str:
    """Commit a shard with its pieces; returns its name."""
    planned = sorted([*samples, *(each.sample for each in dropped)], key=lambda each: each.index)
    shard = PlannedShard(
        slice_id=SLICE,
        index=number,
        samples=tuple(
            PlannedSample(key=each.key, index=each.index, class_ids=each.class_ids, seed=each.seed)
            for each in planned
        ),
    )
    rows = [each.row for each in dropped]
    manifest = encode_manifest(
        describe_samples(
            shard,
            NAMES,
            samples=samples,
            dropped=rows,
            prompts=[each.prompt for each in dropped],
        )
    )
    data = pack(samples) if samples else b""
    counts = Counts.of(len(planned), len(samples), rows)
    about = {"start": planned[0].index, "stop": planned[-1].index + 1}
    key = hashlib.sha256(repr((number, [each.key for each in samples])).encode()).hexdigest()
    payload = Payload(data, manifest, seconds=1.0, about=about)
    store.commit(Stage.SHARDS, shard.name, key, payload, counts)
    for each in dropped:
        _add_pieces(store, each)
    return shard.name


def _add_pieces(store: Store, dropped: Dropped) -> None:
    """Commit what the stages made of a sample before it was dropped."""
    sample, stages = dropped.sample, list(Stage)
    passed = stages[: stages.index(dropped.row.stage)]
    (instance,) = sample.instances
    box = Box(class_id=instance.class_id, score=instance.score, xyxy=instance.xyxy)
    pair = EncodedPair(sample.key, sample.image_bytes, sample.counterfactual_bytes)
    found = Detection(key=sample.key, boxes=(box,), counterfactual_boxes=())
    outputs = {
        Stage.PROMPTS: write_rows([dropped.prompt]),
        Stage.PAIRS: pack_pairs([pair], []),
        Stage.DETECTIONS: write_rows([found]),
    }
    cell = cell_name(SLICE, sample.index // store.cell_samples)
    for stage in passed:
        if stage in outputs:
            about = {"verdicts": {sample.key: Verdict(key="0" * 16, output="1" * 16)}}
            key = hashlib.sha256(f"{stage}{sample.key}".encode()).hexdigest()
            payload = Payload(outputs[stage], about=about)
            store.commit(stage, cell, key, payload, Counts.of(1, 1, []))


def add_open(
    store: Store, samples: Sequence[Sample], last: Stage, dropped: Sequence[Rejected] = ()
) -> None:
    """Commit what the stages made of samples of a shard that is not packed yet.

    Args:
        store: The dataset.
        samples: All of one cell.
        last: The last stage that was at work.
        dropped: Which of them were dropped, and where.
    """
    lost = {row.key: row for row in dropped}
    left = [*samples]
    cell = cell_name(SLICE, samples[0].index // store.cell_samples)
    stages = [stage for stage in store.specification.stages if stage is not Stage.SHARDS]
    for stage in stages[: stages.index(last) + 1]:
        rows = [row for row in dropped if row.stage is stage]
        kept = [each for each in left if each.key not in {row.key for row in rows}]
        verdicts = {
            each.key: Verdict(key="0" * 16, output="1" * 16 if each in kept else "")
            for each in left
        }
        key = hashlib.sha256(f"{stage}{samples[0].key}".encode()).hexdigest()
        data = _made(stage, kept, rows)
        counts = Counts.of(len(left), len(kept), rows)
        store.commit(stage, cell, key, Payload(data, about={"verdicts": verdicts}), counts)
        left = [each for each in kept if each.key not in lost or lost[each.key].stage is not stage]


def _made(stage: Stage, samples: Sequence[Sample], dropped: Sequence[Rejected]) -> bytes:
    """What a stage makes of samples."""
    match stage:
        case Stage.PROMPTS:
            made = [
                Prompt(
                    key=each.key,
                    text=each.text,
                    counterfactual_text=each.counterfactual_text,
                    mentions=each.mentions,
                    writer="test",
                )
                for each in samples
            ]
        case Stage.PAIRS:
            pairs = [EncodedPair(e.key, e.image_bytes, e.counterfactual_bytes) for e in samples]
            return bytes(pack_pairs(pairs, dropped))
        case Stage.DETECTIONS:
            made = [
                Detection(
                    key=each.key, boxes=tuple(map(_box, each.instances)), counterfactual_boxes=()
                )
                for each in samples
            ]
        case _:
            made = [
                MaskSample(key=each.key, width=64, height=64, instances=each.instances)
                for each in samples
            ]
    return write_rows([*made, *dropped])


def _box(instance: Instance) -> Box:
    return Box(class_id=instance.class_id, score=instance.score, xyxy=instance.xyxy)
