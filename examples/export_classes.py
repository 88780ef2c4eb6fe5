"""Write the samples of some classes as images and 8-bit label maps, for other trainers.

    python examples/export_classes.py runs/demo/dataset cat,boat runs/export

Run it again after the dataset has grown: only new shards are exported.
"""

import sys
from pathlib import Path

from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import export_shards
from storage.store import Store
from storage.vocabulary import load_vocabulary


def main(root: str, classes: str, out: str) -> None:
    """Export and say what was written."""
    store = Store.open(root)
    vocabulary = load_vocabulary(store.vocabulary)
    tars = {shard.path: shard.sha256 for shard in store.shards() if shard.path is not None}
    exported = export_shards(tars, resolve_closed_set(vocabulary, classes), Path(out))
    for label, name in enumerate(exported.labels):
        print(f"{label} {name}: {exported.samples_by_class.get(name, exported.num_samples)} images")
    print(f"{exported.num_samples} samples")


if __name__ == "__main__":
    main(*sys.argv[1:])
