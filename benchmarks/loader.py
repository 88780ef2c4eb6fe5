"""Shards to batches of training, beside torch's DataLoader with one worker, and webdataset.

One peer makes the very same samples one by one, by our own functions, and has them collated: what
is left between the two is batching alone. Others make them by mmsegmentation's steps, by OpenCV or
as before by Pillow, and the released loop over names; webdataset has no names to draw. The limits
are decoding alone, and decoding and random views without anything else. Times are CPU time a pair,
children included: a second thread should add nothing to them.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.augment import BEFORE, MMSEGMENTATION, PADDING, Steps
from benchmarks.measurement import compare
from benchmarks.pictures import SIDE, draw_samples
from benchmarks.results_file import write_results
from storage.codecs import decode_image, decode_label_map
from storage.shards import pack
from storage.vocabulary import load_vocabulary
from training.augmentation import LabelledPair, augment
from training.batch_room import Batch
from training.config import AugmentationConfig, NegativesConfig
from training.data import Batches, BatchPlan, SampleFiles, find_shards
from training.sampling import BACKGROUND, IGNORE

SAMPLES = 64
BATCH = 16
NAMES = 100
_SETTLED_SECONDS = 0.2

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


def released_item(samples: SampleFiles, steps: Steps, position: int) -> Item:
    """Make a sample as the release does."""
    stored = samples[position]
    rng = np.random.default_rng((0, position))
    view = steps.transformed(stored.pair, SIDE, AugmentationConfig(), rng)
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
    # A thread that is about to end may hold a lock of OpenCV, which a fork would keep for ever.
    time.sleep(_SETTLED_SECONDS)
    return list(DataLoader(Samples(make), batch_size=BATCH, num_workers=1))


def streamed(batches: Batches, threads: int) -> None:
    """Make the same batches by ours."""
    firsts = ([first] for first in range(0, SAMPLES, BATCH))
    for _ in batches.stream(firsts, BATCH, threads):
        pass


def kept(batches: Batches, threads: int) -> list[Item]:
    """Copies of the batches, whose memory is used again."""
    firsts = ([first] for first in range(0, SAMPLES, BATCH))
    return [
        {name: part.clone() for name, part in batch_item(batch).items()}
        for [batch] in batches.stream(firsts, BATCH, threads)
    ]


def webdataset_item(parts: dict[str, Any], positions: Iterator[int]) -> tuple[np.ndarray, ...]:
    """Decode the next sample and make its view by mmsegmentation's steps."""
    pair = LabelledPair(
        decode_image(parts["jpg"]),
        decode_image(parts["cf.jpg"]),
        decode_label_map(parts["mask.png"]),
    )
    rng = np.random.default_rng((0, next(positions)))
    view = MMSEGMENTATION.transformed(pair, SIDE, AugmentationConfig(), rng)
    images = (pixels.transpose(2, 0, 1).copy() for pixels in (view.image, view.counterfactual))
    return *images, view.labels


def of_webdataset(tar: Path) -> None:
    """Have webdataset read, decode, transform and collate all samples in this process."""
    dataset = webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
    make = partial(webdataset_item, positions=count())
    for _ in dataset.map(make).batched(BATCH):
        pass


def all_ways(samples: SampleFiles, tar: Path) -> dict[str, Callable[[], list[Item] | None]]:
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
        "DataLoader, released steps": lambda: loaded(
            partial(released_item, samples, MMSEGMENTATION)
        ),
        "DataLoader, released steps by Pillow": lambda: loaded(
            partial(released_item, samples, BEFORE)
        ),
        "webdataset, mmsegmentation's transforms": lambda: of_webdataset(tar),
        "limit: decoding": decoded,
        "limit: decoding and views": views,
    }


def main() -> None:
    """Make a shard, check that ours equals the first peer, and time."""
    vocabulary = load_vocabulary("lvis1205")
    with tempfile.TemporaryDirectory() as folder:
        tar = Path(folder) / "train-000000.tar"
        tar.write_bytes(pack(draw_samples(SAMPLES, vocabulary)))
        samples = SampleFiles(find_shards(folder), vocabulary)
        ways = all_ways(samples, tar)
        found = [kept(Batches(samples, PLAN), threads) for threads in (1, 2)]
        for own, other, peer in zip(*found, ways["DataLoader"]() or (), strict=True):
            for name, part in own.items():
                assert torch.equal(part, other[name]), name
                assert torch.equal(part, peer[name]), name
        rows = compare(ways, repeats=1, items=SAMPLES)
    setting = {"samples": SAMPLES, "batch": BATCH, "side": SIDE, "names": NAMES}
    packages = (
        "magicseg-engine",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "torch",
        "webdataset",
    )
    write_results("loader", rows, packages, setting=setting)


if __name__ == "__main__":
    main()
