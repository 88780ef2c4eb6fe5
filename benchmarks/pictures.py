"""Drawn pictures of 512 pixels that compress about as generated ones do, and their samples."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from storage.codecs import encode_image, encode_label_map, encode_rle
from storage.records import Instance, Mention
from storage.shards import Sample
from storage.vocabulary import Vocabulary

SIDE = 512

_WAVES = 12
_DIFFERENT = 8


def picture(
    rng: np.random.Generator, shapes: Bool[np.ndarray, "shapes side side"]
) -> UInt8[np.ndarray, "side side 3"]:
    """Draw waves of all lengths, and shapes of another colour upon them."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE
    levels = np.full((SIDE, SIDE, 3), 128, np.float32)
    for _ in range(_WAVES):
        across, down = rng.normal(size=2) * 2 ** rng.uniform(0, 6.5)
        wave = np.sin(2 * np.pi * (across * columns + down * rows) + rng.uniform(0, 2 * np.pi))
        # Fine waves are faint, as they are in photographs.
        levels += (wave / (1 + 0.08 * np.hypot(across, down)))[..., None] * rng.uniform(10, 40, 3)
    for shape in shapes:
        levels[shape] = levels[shape] / 2 + rng.uniform(0, 127, 3)
    return levels.clip(0, 255).astype(np.uint8)


def discs(rng: np.random.Generator, count: int) -> Bool[np.ndarray, "count side side"]:
    """Draw discs that may overlap."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    places = rng.uniform(0.25, 0.75, (count, 2))
    radii = rng.uniform(0.1, 0.3, count)
    return np.stack(
        [
            np.hypot(rows - top, columns - left) < radius
            for (top, left), radius in zip(places, radii, strict=True)
        ]
    )


def label_map(
    shapes: Bool[np.ndarray, "shapes side side"], class_ids: tuple[int, ...]
) -> UInt16[np.ndarray, "side side"]:
    """Give each shape the label of its class; later shapes lie above."""
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for shape, class_id in zip(shapes, class_ids, strict=True):
        labels[shape] = class_id + 1
    return labels


def draw_samples(count: int, vocabulary: Vocabulary) -> list[Sample]:
    """Make samples with one or two classes; every eighth shows the same pictures again."""
    rng = np.random.default_rng(0)
    drawn = [_sample(rng, vocabulary, 1 + number % 2) for number in range(_DIFFERENT)]
    return [
        replace(drawn[index % _DIFFERENT], key=f"{index:016d}", index=index, seed=index)
        for index in range(count)
    ]


def _sample(rng: np.random.Generator, vocabulary: Vocabulary, count: int) -> Sample:
    class_ids = tuple(int(i) for i in rng.choice(len(vocabulary), count, replace=False))
    names = tuple(vocabulary[class_id].name for class_id in class_ids)
    shapes = discs(rng, count)
    text = " and ".join(names)
    return Sample(
        key="",
        index=0,
        seed=0,
        text=text,
        counterfactual_text="nothing",
        class_ids=class_ids,
        class_names=names,
        mentions=tuple(
            Mention(class_id=i, start=text.index(name), end=text.index(name) + len(name))
            for i, name in zip(class_ids, names, strict=True)
        ),
        instances=tuple(
            Instance(
                class_id=class_id,
                score=0.9,
                predicted_iou=0.9,
                xyxy=_box(shape),
                area=int(shape.sum()),
                rle=encode_rle(shape),
            )
            for class_id, shape in zip(class_ids, shapes, strict=True)
        ),
        image_bytes=encode_image(picture(rng, shapes), "jpg"),
        counterfactual_bytes=encode_image(picture(rng, shapes[:0]), "jpg"),
        mask_bytes=encode_label_map(label_map(shapes, class_ids)),
    )


def _box(shape: Bool[np.ndarray, "side side"]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    return (
        float(columns[0]),
        float(rows[0]),
        float(columns[-1] + 1),
        float(rows[-1] + 1),
    )
