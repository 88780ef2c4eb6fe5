"""Drawing the names that 64 images are trained against, beside the released loop.

The release walks over the vocabulary once an image, one element of a tensor after another, each
compared with what the image has, and draws from what is left. The limit is one random number a
(image, class) pair and a top-k. The second part turns stored labels into positions of what was
drawn, beside one comparison of the whole map a name; its limit is one gather from a table that is
ready.
"""

import random

import numpy as np
import torch

from benchmarks.measurement import Row, compare
from benchmarks.results_file import write_results
from training.sampling import BACKGROUND, Subsets, remap, sample_subsets

BATCH = 64
NAMES = 100
SIDE = 512
VOCABULARY = 1_205

Own = list[tuple[int, ...]]


def released(own: Own, generator: random.Random) -> list[list[int]]:
    """Draw as the release does: what the image has, then a sample of all else."""
    subsets = []
    for known in own:
        rest = [index for index in torch.arange(VOCABULARY) if index not in known]
        drawn = generator.sample(rest, NAMES - len(known))
        subsets.append([*known, *(int(index) for index in drawn)])
    return subsets


def top_keys(own: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw by one random key a pair, own classes first."""
    keys = torch.rand(BATCH, VOCABULARY, generator=generator)
    keys.scatter_(1, own, 1.0)
    return keys.topk(NAMES, dim=1).indices


def compared(labels: np.ndarray, subsets: Subsets) -> np.ndarray:
    """Find each name's pixels by a comparison of the whole map."""
    targets = np.full(labels.shape, BACKGROUND, np.int16)
    for own, image, found in zip(subsets.class_ids, labels, targets, strict=True):
        for position, class_id in enumerate(own):
            found[image == class_id + 1] = position
    return targets


def measure_names(own: Own) -> list[Row]:
    """Check what every way must hold, then time them."""
    seeds = np.random.default_rng(0).integers(2**63, size=BATCH, dtype=np.uint64)
    numbers, keys = random.Random(0), torch.Generator().manual_seed(0)  # noqa: S311
    first = torch.tensor(own)
    for drawn in (
        sample_subsets(own, VOCABULARY, NAMES, seeds).class_ids.tolist(),
        released(own, numbers),
        top_keys(first, keys).tolist(),
    ):
        for known, names in zip(own, drawn, strict=True):
            assert set(names[: len(known)]) == set(known)
            assert len(set(names)) == NAMES
            assert 0 <= min(names) <= max(names) < VOCABULARY
    return compare(
        {
            "ours": lambda: sample_subsets(own, VOCABULARY, NAMES, seeds),
            "released loop": lambda: released(own, numbers),
            "limit: random keys, top-k": lambda: top_keys(first, keys),
        },
        repeats=3,
        items=BATCH,
    )


def measure_labels(own: Own) -> list[Row]:
    """Check that both ways agree, then time them."""
    seeds = np.arange(BATCH, dtype=np.uint64)
    subsets = sample_subsets(own, VOCABULARY, NAMES, seeds)
    labels = np.zeros((BATCH, SIDE, SIDE), np.uint16)
    for image, class_ids in zip(labels, own, strict=True):
        for place, class_id in enumerate(class_ids):
            image[place * 200 : place * 200 + 150, 100:400] = class_id + 1
    targets = np.empty(labels.shape, np.int16)

    def ours() -> np.ndarray:
        for image, names, out in zip(labels, subsets.class_ids, targets, strict=True):
            remap(image, names, VOCABULARY, out)
        return targets

    assert np.array_equal(ours(), compared(labels, subsets))
    table = np.arange(2**16).astype(np.int16)

    def gathered() -> None:
        for image, out in zip(labels, targets, strict=True):
            np.take(table, image, out=out, mode="wrap")

    return compare(
        {
            "ours": ours,
            "comparison a name": lambda: compared(labels, subsets),
            "limit: gather": gathered,
        },
        repeats=2,
        items=BATCH,
    )


def main() -> None:
    """Measure names and labels."""
    rng = np.random.default_rng(0)
    own = [tuple(rng.choice(VOCABULARY, 2, replace=False).tolist()) for _ in range(BATCH)]
    rows = [{"part": "names", **row} for row in measure_names(own)]
    rows += [{"part": "labels", **row} for row in measure_labels(own)]
    setting = {"batch": BATCH, "names": NAMES, "vocabulary": VOCABULARY, "side": SIDE}
    packages = ("magicseg-engine", "numpy", "torch")
    write_results("train_sampling", rows, packages, setting=setting)


if __name__ == "__main__":
    main()
