"""Choose samples by class and detector score from the manifests, and read those alone.

    python examples/filter_samples.py runs/demo/dataset cat 0.5

The manifests hold a row for every planned sample, so no tar is opened before the choice is made;
what was dropped stands there too, with the reason.
"""

import sys
from collections import Counter

from storage.current_samples import CurrentSamples
from storage.manifest import ManifestRow
from storage.store import Store


def is_wanted(row: ManifestRow, name: str, least: float) -> bool:
    """Whether a sample was written, shows a class, and all its objects score enough."""
    return (
        row.status == "written"
        and name in row.class_names
        and min(row.instance_scores, default=0.0) >= least
    )


def main(root: str, name: str, least: str) -> None:
    """Print the texts of the chosen samples, and why others of the class were dropped."""
    store = Store.open(root)
    current = CurrentSamples(store)  # with what people have corrected
    dropped: Counter[str] = Counter()
    count = 0
    for shard in store.shards():
        rows = current.rows(shard)
        dropped.update(row.reason for row in rows if row.reason and name in row.class_names)
        keys = {row.key for row in rows if is_wanted(row, name, float(least))}
        if not keys:
            continue
        for sample in current.of(shard):
            if sample.key in keys:
                print(f"{sample.key}: {sample.text}")
                count += 1
    print(f"{count} samples; dropped: {dict(dropped)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
