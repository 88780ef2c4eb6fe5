"""Read a dataset with Hugging Face's datasets, which finds the tars through the dataset's card.

    python examples/read_with_datasets.py runs/demo/dataset

It needs `pip install datasets`; the engine itself does not.
"""

import json
import sys

import datasets
import numpy as np


def main(root: str) -> None:
    """Print the classes and the mentions of each sample."""
    rows = datasets.load_dataset(root, split="train")
    for row in rows:
        about = row["json"]
        labels = np.array(row["mask.png"])  # class id + 1; 0 background, 65535 ignored
        found = sorted(set(np.unique(labels).tolist()) - {0, 65535})
        mentions = json.loads(about["mentions"])  # what varies in shape is a JSON string
        words = [about["text"][each["start"] : each["end"]] for each in mentions]
        print(f"{about['key']}: labels {found}, named in the text as {', '.join(words)}")
    print(f"{len(rows)} samples")


if __name__ == "__main__":
    main(*sys.argv[1:])
