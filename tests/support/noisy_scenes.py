"""Datasets of drawn scenes, in which some masks may be those of other scenes."""

import numpy as np

from models.miniature import world
from storage.codecs import encode_image, encode_label_map
from storage.commits import Counts
from storage.identity import derive_seed
from storage.manifest import describe_samples, encode_manifest
from storage.payloads import Payload
from storage.records import PlannedSample, PlannedShard, Stage
from storage.shards import Sample, pack
from storage.store import Store
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("miniature")
SLICE = "0badcafe"
WRONG = 5
"""Each so many-th sample has the mask and the class of the scene after the next."""


def scene_of(index):
    rng = np.random.default_rng(derive_seed("noise", index))
    return world.sample_scene(rng, class_ids=[index % 14])


def is_wrong(index):
    return index % WRONG == 3


def drawn_sample(index, *, planted):
    """A drawn scene; every fifth has the labels of another scene, if that is wanted."""
    scene = scene_of(index)
    shape = scene_of(index + 2) if planted and is_wrong(index) else scene
    class_id = shape.things[0].class_id
    labels = np.where(world.masks(shape)[0], class_id + 1, 0)
    return Sample(
        key=f"{SLICE}{index:08d}",
        index=index,
        text="a drawing",
        counterfactual_text="nothing",
        class_ids=(class_id,),
        class_names=(VOCABULARY[class_id].name,),
        mentions=(),
        seed=index,
        instances=(),
        image_bytes=encode_image(world.render(scene), "png"),
        counterfactual_bytes=encode_image(world.render(scene, things=False), "png"),
        mask_bytes=encode_label_map(labels.astype(np.uint16)),
    )


def commit_scenes(root, counts, *, planted=True):
    """A dataset of drawn scenes in so many shards."""
    plan = {"vocabulary": "miniature", "seed": 0, "samples_per_shard": max(counts)}
    store = Store.create(root, {"plan": plan, "vocabulary": VOCABULARY.digest, "min_yield": 0.5})
    first = 0
    for number, count in enumerate(counts):
        own = [drawn_sample(index, planted=planted) for index in range(first, first + count)]
        planned = tuple(
            PlannedSample(key=each.key, index=each.index, class_ids=each.class_ids, seed=each.seed)
            for each in own
        )
        shard = PlannedShard(slice_id=SLICE, index=number, samples=planned)
        names = {record.class_id: record.name for record in VOCABULARY}
        rows = describe_samples(shard, names, samples=own, dropped=[])
        about = {"start": first, "stop": first + count}
        payload = Payload(pack(own), encode_manifest(rows), about=about)
        key = f"{number:016x}"
        store.commit(Stage.SHARDS, shard.name, key, payload, Counts.of(count, count, []))
        first += count
    return store
