"""What a training reads before its first sample: 380 shards of 1,000 samples.

The dataset is fabricated: every shard has a record as a run writes it, and all have one tar and one
manifest, under many names; members are small, since headers alone are read. The peer reads the
headers of every tar, as the loader did before; what it took to hash the tars that nobody had hashed
yet comes on top of it, and was 37 s for 51 GB at 1.39 GB/s. The limit is reading the records.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measurement import cpu_seconds, peak_megabytes
from benchmarks.results_file import write_results
from benchmarks.store_scale import SAMPLES, WRITTEN, fabricate
from storage.archives import write_archive
from storage.manifest import ManifestRow, encode_manifest
from storage.shards import read_index
from storage.store import Store
from storage.vocabulary import load_vocabulary
from training.config import AugmentationConfig, NegativesConfig, TrainingConfig
from training.data import Batches, BatchPlan, SampleFiles, find_sources
from training.epochs import Epochs
from training.shard_index import ShardIndex

SHARDS = 380
VOCABULARY = load_vocabulary("miniature")
LEFT_OUT = (3,)
_ROUNDS = 2

PLAN = BatchPlan(
    side=512,
    classes_per_image=100,
    negatives=NegativesConfig(),
    augmentation=AugmentationConfig(),
    padding=(0, 0, 0),
    seed=0,
)


def keys() -> list[str]:
    """Keys of a shard's samples."""
    return [f"0badcafe{number:08d}" for number in range(WRITTEN)]


def tar() -> bytes:
    """A tar of small members, as many as a shard has."""
    kinds = ("jpg", "cf.jpg", "mask.png", "json")
    return bytes(write_archive((f"{key}.{kind}", b"-") for key in keys() for kind in kinds))


def manifest() -> bytes:
    """A row a sample, each with one of the classes."""
    return encode_manifest(
        [
            ManifestRow(
                key=key,
                shard="0badcafe-000000",
                index=number,
                seed=number,
                status="written",
                class_ids=(number % len(VOCABULARY),),
                class_names=(VOCABULARY[number % len(VOCABULARY)].name,),
                text="A drawing of a thing, as long as texts are.",
                image_sha256=f"{number:064x}",
            )
            for number, key in enumerate(keys())
        ]
    )


def ways(root: Path) -> dict[str, Callable[[], object]]:
    """What is measured, the first one ours."""
    config = TrainingConfig.model_validate(
        {
            "dataset": str(root),
            "out": str(root / "run"),
            "vocabulary": VOCABULARY.name,
            "student": {"clip": "none"},
        }
    )

    def ours(left_out: tuple[int, ...] = ()) -> Batches:
        [shards] = find_sources(config)
        found = Batches(SampleFiles(shards, VOCABULARY, left_out=left_out), PLAN)
        Epochs(PLAN.seed, found.samples.sizes, PLAN.mixed_shards).place(0)
        return found

    def headers() -> list[object]:
        [shards] = find_sources(config)
        return [read_index(shard.path, real=True) for shard in shards]

    def opened() -> list[object]:
        [shards] = find_sources(config)
        return [ShardIndex(read_index(shard.path, real=True)) for shard in shards]

    return {
        "ours": ours,
        "ours, a class left out": lambda: ours(LEFT_OUT),
        "all headers": headers,
        "all headers, kept as ours keeps them once all shards were opened": opened,
        "limit: all records": lambda: Store.open(root).shards(),
    }


def measure(root: Path) -> list[dict[str, Any]]:
    """Seconds and memory of each way, in turns."""
    found = ways(root)
    seconds: dict[str, list[float]] = {what: [] for what in found}
    megabytes: dict[str, list[float]] = {what: [] for what in found}
    kept: list[object] = []
    for _ in range(_ROUNDS):
        for what, way in found.items():

            def timed(what: str = what, way: Callable[[], object] = way) -> None:
                began = cpu_seconds()
                kept.append(way())
                seconds[what].append(cpu_seconds() - began)

            megabytes[what].append(peak_megabytes(timed))
            kept.clear()
    ours = min(seconds["ours"])
    return [
        {
            "what": what,
            "cpu_seconds": round(min(seconds[what]), 3),
            "times_ours": round(min(seconds[what]) / ours, 2),
            "megabytes": megabytes[what][0],
        }
        for what in found
    ]


def main() -> None:
    """Fabricate, check that all samples are known, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "d"
        fabricate(root, SHARDS, tar(), manifest())
        shown = ways(root)["ours"]()
        assert isinstance(shown, Batches)
        assert len(shown.samples) == SHARDS * WRITTEN
        rows = measure(root)
    write_results(
        "training_start",
        rows,
        ("magicseg-engine", "numpy", "pyarrow", "pydantic"),
        setting={"shards": SHARDS, "samples_per_shard": SAMPLES, "written": WRITTEN},
    )


if __name__ == "__main__":
    main()
