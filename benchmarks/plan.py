"""Planning 380,000 samples over 1,205 classes, beside drawing them one by one as the release does.

The peer draws one or two classes at random for each sample and keeps no balance; it is the least
work that gives every sample classes and a seed.
"""

import random
from collections import Counter

from benchmarks.measurement import compare
from benchmarks.results_file import write_results
from storage.plan import DatasetSpec, count_shards, plan_shard
from storage.slices import resolve_slice
from storage.vocabulary import load_vocabulary

SAMPLES = 380_000


def main() -> None:
    """Time both and say how even the classes come out."""
    vocabulary = load_vocabulary("lvis1205")
    classes = resolve_slice(vocabulary, "all")
    spec = DatasetSpec(vocabulary="lvis1205")

    def ours() -> Counter[int]:
        return Counter(
            class_id
            for index in range(count_shards(spec, SAMPLES))
            for sample in plan_shard(spec, classes, index, SAMPLES).samples
            for class_id in sample.class_ids
        )

    def peer() -> Counter[int]:
        generator = random.Random(0)  # noqa: S311 - a benchmark, not a secret
        counts: Counter[int] = Counter()
        for _ in range(SAMPLES):
            counts.update(generator.sample(classes.class_ids, generator.randint(1, 2)))
            generator.getrandbits(63)
        return counts

    rows = compare({"ours": ours, "independent draws": peer}, repeats=2)
    for row, counts in zip(rows, (ours(), peer()), strict=True):
        row["samples_of_rarest_class"] = min(counts.values())
        row["samples_of_commonest_class"] = max(counts.values())
    write_results("plan", rows, ("magicseg-engine", "pydantic"), setting={"samples": SAMPLES})


if __name__ == "__main__":
    main()
