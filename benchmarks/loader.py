"""Shards to batches of training, beside torch's DataLoader with one worker.

One peer makes the very same samples one by one and has them collated; the other makes them by
mmsegmentation's steps and the released loop over names. The limits are decoding alone, and decoding
and random views without anything else. Times are CPU time a pair, children included: a second
thread should add nothing to them.
"""

import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.augment import PADDING, transformed
from benchmarks.measurement import compare
from benchmarks.pictures import SIDE, draw_samples
from benchmarks.results_file import write_results
from storage.shards import pack
from storage.vocabulary import load_vocabulary
from training.augmentation import augment
from training.batch_room import Batch
from training.config import AugmentationConfig, NegativesConfig
from training.data import Batches, BatchPlan, SampleFiles, find_shards
from training.sampling import BACKGROUND, IGNORE

SAMPLES = 64
BATCH = 16
NAMES = 100

PLAN = BatchPlan(
    side=SIDE,
    classes_per_image=NAMES,
    negatives=NegativesConfig(),
    augmentation=AugmentationConfig(),
    padding=PADDING,
    seed=0,
)

Item = dict[str, Tensor]


class Samples(Dataset[Item]):
    """Samples by position, as a DataLoader asks for them.

    Args:
        make: Makes the sample of a position.
    """

    def __init__(self, make: Callable[[int], Item]) -> None:
        self.make = make

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, position: int) -> Item:
        return self.make(position)


def batch_item(batch: Batch) -> Item:
    """What a batch holds, without the count."""
    names = ("image", "counterfactual", "targets", "class_ids", "active")
    return {name: getattr(batch, name) for name in names}


def released_item(samples: SampleFiles, position: int) -> Item:
    """Make a sample as the release does."""
    stored = samples[position]
    view = transformed(
        stored.pair, SIDE, AugmentationConfig(), np.random.default_rng((0, position))
    )
    rest = [i for i in torch.arange(len(samples.vocabulary)) if i not in stored.class_ids]
    generator = random.Random(position)  # noqa: S311 - a benchmark, not a secret
    drawn = generator.sample(rest, NAMES - len(stored.class_ids))
    names = [*stored.class_ids, *(int(i) for i in drawn)]
    targets = np.full((SIDE, SIDE), BACKGROUND, np.int16)
    targets[view.labels == np.iinfo(np.uint16).max] = IGNORE
    for place, class_id in enumerate(stored.class_ids):
        targets[view.labels == class_id + 1] = place
    images = {
        name: torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        for name, pixels in (("image", view.image), ("counterfactual", view.counterfactual))
    }
    return {**images, "targets": torch.from_numpy(targets), "class_ids": torch.tensor(names)}


def loaded(make: Callable[[int], Item]) -> list[Item]:
    """Have one worker make all samples and collate them."""
    return list(DataLoader(Samples(make), batch_size=BATCH, num_workers=1))


def streamed(batches: Batches, threads: int) -> list[Item]:
    """Make the same batches by ours."""
    firsts = ([first] for first in range(0, SAMPLES, BATCH))
    return [batch_item(batch) for [batch] in batches.stream(firsts, BATCH, threads)]


def all_ways(samples: SampleFiles) -> dict[str, Callable[[], list[Item] | None]]:
    """Name all ways."""
    batches = Batches(samples, PLAN)

    def same(position: int) -> Item:
        return {name: part[0] for name, part in batch_item(batches.batch(position, 1)).items()}

    def views() -> None:
        for position in range(SAMPLES):
            rng = np.random.default_rng((0, position))
            augment(samples[position].pair, SIDE, PLAN.augmentation, rng, padding=PADDING)

    def decoded() -> None:
        for position in range(SAMPLES):
            samples[position]

    return {
        "ours, 1 thread": lambda: streamed(batches, 1),
        "ours, 2 threads": lambda: streamed(batches, 2),
        "DataLoader": lambda: loaded(same),
        "DataLoader, released steps": lambda: loaded(partial(released_item, samples)),
        "limit: decoding": decoded,
        "limit: decoding and views": views,
    }


def main() -> None:
    """Make a shard, check that ours equals the first peer, and time."""
    vocabulary = load_vocabulary("lvis1205")
    with tempfile.TemporaryDirectory() as folder:
        shard = pack(draw_samples(SAMPLES, vocabulary))
        (Path(folder) / "train-000000.tar").write_bytes(shard)
        ways = all_ways(SampleFiles(find_shards(folder), vocabulary))
        found = [ways[name]() for name in ("ours, 1 thread", "ours, 2 threads", "DataLoader")]
        for own, other, peer in zip(*found, strict=True):
            for name, part in own.items():
                assert torch.equal(part, other[name]), name
                assert torch.equal(part, peer[name]), name
        rows = compare(ways, repeats=1, items=SAMPLES)
    setting = {"samples": SAMPLES, "batch": BATCH, "side": SIDE, "names": NAMES}
    packages = ("magicseg-engine", "numpy", "pillow", "torch")
    write_results("loader", rows, packages, setting=setting)


if __name__ == "__main__":
    main()
