import json

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast

from models.miniature import world
from storage.codecs import encode_image, encode_label_map
from storage.commits import Counts
from storage.manifest import ManifestRow, encode_manifest
from storage.payloads import Payload
from storage.records import Mention, Reason, Stage
from storage.shards import Sample, pack
from training.batch_room import Batch


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A tiny CLIP with random weights and a tokenizer that spells words letter by letter."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(97, 123)] + ["."]
    tokens = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizerFast(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=40
    ).save_pretrained(folder)
    torch.manual_seed(0)
    text = {
        "vocab_size": len(tokens),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 40,
        "bos_token_id": len(tokens) - 2,
        "eos_token_id": len(tokens) - 1,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))
    clip.save_pretrained(folder)
    return folder


def drawn_sample(number):
    rng = np.random.default_rng(number)
    scene = world.sample_scene(rng, num_things=1)
    labels = np.zeros((world.CANVAS, world.CANVAS), np.uint16)
    for thing, mask in zip(scene.things, world.masks(scene), strict=True):
        labels[mask] = thing.class_id + 1
    ids = tuple(thing.class_id for thing in scene.things)
    return Sample(
        key=f"{number:016x}",
        index=number,
        text="a drawing",
        counterfactual_text="nothing",
        class_ids=ids,
        class_names=tuple(world.CLASSES[i] for i in ids),
        mentions=tuple(Mention(class_id=i, start=0, end=1) for i in ids),
        seed=number,
        instances=(),
        image_bytes=encode_image(world.render(scene), "png"),
        counterfactual_bytes=encode_image(world.render(scene, things=False), "png"),
        mask_bytes=encode_label_map(labels),
        writer="test",
    )


@pytest.fixture
def draw():
    """Draws a sample by its number."""
    return drawn_sample


@pytest.fixture(scope="session")
def tars(tmp_path_factory):
    """Two tars of drawn scenes, five samples each."""
    folder = tmp_path_factory.mktemp("tars")
    for number in range(2):
        samples = [drawn_sample(10 * number + i) for i in range(5)]
        (folder / f"train-{number}.tar").write_bytes(pack(samples))
    return folder


def committed_shard(store, number, samples, num_lost):
    shard = f"0badcafe-{number:06d}"
    rows = [
        ManifestRow(
            key=samples[i].key if i < len(samples) else f"{number}{i:015x}",
            shard=shard,
            index=i,
            seed=i,
            status="written" if i < len(samples) else "rejected",
            class_ids=samples[i].class_ids if i < len(samples) else (0,),
            class_names=samples[i].class_names if i < len(samples) else ("balloon",),
        )
        for i in range(len(samples) + num_lost)
    ]
    counts = Counts(
        requested=len(rows),
        written=len(samples),
        rejected={Reason.BLANK_IMAGE: num_lost} if num_lost else {},
    )
    payload = Payload(pack(samples) if samples else b"", encode_manifest(rows))
    with store.lease(Stage.SHARDS, shard):
        store.commit(Stage.SHARDS, shard, f"{number:064x}", payload, counts)


@pytest.fixture
def commit_shard():
    """Commits a shard: store, number, samples, and how many more were lost."""
    return committed_shard


def kept_batches(stream):
    """All batches of a stream, copied: the room of each is used again."""
    return [
        Batch(**{name: part.clone() for name, part in vars(batch).items()})
        for step in stream
        for batch in step
    ]


@pytest.fixture
def kept():
    """Copies all batches of a stream into a list."""
    return kept_batches


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    """An empty root of a dataset: on the disk, and behind the S3 protocol."""
    if request.param == "local":
        return str(tmp_path / "dataset")
    return request.getfixturevalue("bucket").root


@pytest.fixture
def settings(clip_folder, tars, tmp_path):
    """Fields of a run that takes a second."""
    return {
        "dataset": str(tars),
        "out": str(tmp_path / "run"),
        "vocabulary": "miniature",
        "student": {
            "clip": str(clip_folder),
            "image_size": 32,
            "num_prompt_tokens": 2,
            "decoder_heads": 2,
        },
        "classes_per_image": 5,
        "optimiser": {"steps": 6, "batch_size": 4, "warmup_steps": 2, "learning_rate": 1e-3},
        "checkpoint_every": 2,
        "threads": 0,
        "device": "cpu",
    }
