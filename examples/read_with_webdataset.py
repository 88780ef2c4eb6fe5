"""Read a dataset with plain webdataset, without a line of the engine.

    python examples/read_with_webdataset.py runs/demo/dataset

The label map is read with Pillow: webdataset's own decoder would turn its 16 bits into colours.
"""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
from PIL import Image


def samples(root: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]]:
    """Image, counterfactual, label map (class id + 1) and description of each sample."""
    tars = sorted(str(path) for path in Path(root, "data").glob("*.tar"))
    for members in wds.WebDataset(tars, shardshuffle=False):
        suffix = "png" if "png" in members else "jpg"
        names = (suffix, f"cf.{suffix}", "mask.png")
        image, twin, labels = (np.array(Image.open(io.BytesIO(members[name]))) for name in names)
        yield image, twin, labels, json.loads(members["json"])


def main(root: str) -> None:
    """Print how much of each picture the counterfactual changed."""
    count = 0
    for image, twin, labels, about in samples(root):
        changed = np.any(image != twin, axis=2)[labels == about["class_ids"][0] + 1]
        share = changed.mean() if changed.size else 0.0
        print(f"{about['key']}: {about['class_names'][0]}, {share:.0%} of its pixels differ")
        count += 1
    print(f"{count} samples")


if __name__ == "__main__":
    main(*sys.argv[1:])
