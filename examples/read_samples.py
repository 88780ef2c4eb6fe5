"""Read a dataset with the engine's own reader: only shards that are committed, sample by sample.

Masks that people have corrected are read as corrected. Run it on any dataset, for one
the demonstration's:

    python examples/read_samples.py runs/demo/dataset
"""

import sys

import numpy as np

from storage.codecs import decode_image, decode_label_map, decode_rle
from storage.current_samples import CurrentSamples
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL
from storage.shards import Sample
from storage.store import Store


def describe(sample: Sample) -> str:
    """Say what a sample shows."""
    image = decode_image(sample.image_bytes)
    labels = decode_label_map(sample.mask_bytes)  # class id + 1 at each pixel
    height, width = labels.shape
    known = labels != IGNORE_LABEL
    share = np.mean(labels[known] != BACKGROUND_LABEL)
    largest = max(decode_rle(each.rle, height, width).sum() for each in sample.instances)
    return (
        f"{sample.key}: {image.shape[1]} x {image.shape[0]}, {' and '.join(sample.class_names)}, "
        f"{share:.0%} of the pixels, largest object {largest} pixels: {sample.text}"
    )


def main(root: str) -> None:
    """Print a line for each sample."""
    count = 0
    for sample in CurrentSamples(Store.open(root)):
        print(describe(sample))
        count += 1
    print(f"{count} samples")


if __name__ == "__main__":
    main(*sys.argv[1:])
