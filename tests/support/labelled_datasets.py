"""A small dataset of the drawn world's vocabulary, with overlapping objects and ignored pixels."""

import hashlib

import numpy as np

from storage.codecs import encode_image, encode_label_map, encode_rle
from storage.commits import Counts
from storage.manifest import describe_samples, encode_manifest
from storage.payloads import Payload
from storage.records import Instance, PlannedSample, PlannedShard, Stage
from storage.shards import Sample, pack
from storage.store import Store
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("miniature")
SLICE = "0badcafe"
HEIGHT, WIDTH = 12, 20
TEXT = 'a "bus" & <cat>, größer'


def key_of(index):
    return f"{SLICE}{index:08x}"


def drawn_sample(index, *, fmt="png"):
    """A sample of two classes: a ring with a hole, two parts, an overlap, ignored pixels."""
    image = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    first, second = VOCABULARY[index % 5], VOCABULARY[index % 5 + 3]
    ring = np.zeros((HEIGHT, WIDTH), bool)
    ring[1:8, 1:8] = True
    ring[3:5, 3:5] = False
    ring[10, 0 : index % 4 + 1] = True
    block = np.zeros((HEIGHT, WIDTH), bool)
    block[5:11, 5:15] = True
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[0, -3:] = 65535
    labels[ring] = first.class_id + 1
    labels[block] = second.class_id + 1  # the better score wins where both lie
    return Sample(
        key=key_of(index),
        index=index,
        text=TEXT,
        counterfactual_text="nothing",
        class_ids=(first.class_id, second.class_id),
        class_names=(first.name, second.name),
        mentions=(),
        seed=index,
        instances=tuple(
            Instance(
                class_id=each.class_id,
                score=score,
                predicted_iou=0.75,
                xyxy=(1.0, 1.0, 8.0, 8.0),
                area=int(mask.sum()),
                rle=encode_rle(mask),
            )
            for each, mask, score in ((first, ring, 0.5), (second, block, 0.9))
        ),
        image_bytes=encode_image(image, fmt),
        counterfactual_bytes=encode_image(image[::-1].copy(), fmt),
        mask_bytes=encode_label_map(labels),
    )


def commit_samples(root, *counts, first=0):
    """Commit shards of so many samples each; returns the store."""
    plan = {"vocabulary": "miniature", "seed": 1, "samples_per_shard": 5}
    spec = {"plan": plan, "vocabulary": VOCABULARY.digest, "min_yield": 0.5}
    store = Store.create(root, spec)
    index = first
    for count in counts:
        samples = [drawn_sample(number) for number in range(index, index + count)]
        planned = PlannedShard(
            slice_id=SLICE,
            index=index,
            samples=tuple(
                PlannedSample(key=s.key, index=s.index, class_ids=s.class_ids, seed=s.seed)
                for s in samples
            ),
        )
        names = {each.class_id: each.name for each in VOCABULARY}
        rows = describe_samples(planned, names, samples=samples, dropped=[])
        about = {"start": index, "stop": index + count}
        payload = Payload(pack(samples), encode_manifest(rows), about=about)
        key = hashlib.sha256(str(index).encode()).hexdigest()
        store.commit(Stage.SHARDS, planned.name, key, payload, Counts.of(count, count, []))
        index += count
    return store
