"""Looking through 100,000 samples: opening the table, filters, words, and one sample of a tar.

The dataset is fabricated: every shard has a record and a manifest of 1,000 samples of its own. The
peer scans the same columns of the same manifests with pyarrow.dataset, which keeps nothing between
two questions and checks no digest; the limit reads the manifests' bytes. A tar has 1,000 samples of
four members of 20 kB; the peers list all of its members, and hash it, which reading it from its
begin would need.
"""

import hashlib
import io
import random
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
from pyarrow import parquet

from benchmarks.measurement import compare
from benchmarks.results_file import write_results
from storage.archive_search import ArchiveSearch
from storage.archives import index_archive, write_archive
from storage.commit_log import record_path
from storage.commits import Counts
from storage.layout import manifest_path
from storage.manifest import SCHEMA
from storage.objects import open_objects
from storage.payloads import Payload, describe_payload
from storage.records import Reason, Stage
from storage.sample_queries import SampleQuery
from storage.sample_table import SampleTable
from storage.store import Store

SHARDS = 100
SAMPLES = 1000
CLASSES = 80
MEMBER_BYTES = 20_000
SLICE = "0badcafe"
WORDS = ("boat", "cat", "field", "kitchen", "old", "photo", "red", "small", "street", "two")
KINDS = ("jpg", "cf.jpg", "mask.png", "json")
DROPPED = 0.2


def fabricate_samples(root: Path, shards: int) -> Store:
    """A dataset of finished shards, of which there are records and manifests alone."""
    store = Store.create(root, {"plan": {"vocabulary": "miniature"}, "min_yield": 0.1})
    for number in range(shards):
        name = f"{SLICE}-{number:06d}"
        rows = [_row(name, number * SAMPLES + place) for place in range(SAMPLES)]
        buffer = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer, compression="zstd")
        payload = Payload(b"x", buffer.getvalue(), seconds=1.0)
        written = sum(row["status"] == "written" for row in rows)
        counts = Counts(
            requested=SAMPLES, written=written, rejected={Reason.CLASS_NOT_FOUND: SAMPLES - written}
        )
        key = hashlib.sha256(name.encode()).hexdigest()
        record = describe_payload(Stage.SHARDS, name, key, payload, counts)
        for path, data in (
            (record_path(record), record.encode()),
            (manifest_path(name), payload.manifest),
        ):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    return store


def _row(shard: str, index: int) -> dict[str, Any]:
    draw = random.Random(index)  # noqa: S311 - a benchmark, not a secret
    classes = draw.sample(range(CLASSES), draw.choice([1, 2]))
    is_written = draw.random() > DROPPED
    scores = [draw.random() for _ in classes] if is_written else []
    drop = ("", "", "") if is_written else ("detections", "class-not-found", "best score 0.1")
    return {
        "key": f"{SLICE}{index:08d}",
        "shard": shard,
        "index": index,
        "seed": index,
        "status": "written" if is_written else "rejected",
        **dict(zip(("stage", "reason", "detail"), drop, strict=True)),
        "class_ids": classes,
        "class_names": [f"class {each}" for each in classes],
        "text": f"number {index}: {' '.join(draw.choices(WORDS, k=8))}",
        "counterfactual_text": " ".join(draw.choices(WORDS, k=8)),
        "writer": "benchmark",
        "width": 512 if is_written else 0,
        "height": 512 if is_written else 0,
        **{
            f"{name}_sha256": hashlib.sha256(f"{name}{index}".encode()).hexdigest()
            for name in ("image", "counterfactual", "mask")
        },
        "mask_class_ids": classes if is_written else [],
        "mask_areas": [draw.randrange(1000, 80_000) for _ in scores],
        "instance_class_ids": classes if is_written else [],
        "instance_scores": scores,
        "instance_ious": [draw.random() for _ in scores],
    }


def filter_ways(store: Store, root: Path) -> dict[str, dict[str, Callable[[], object]]]:
    """Ways to ask for written samples of a class whose worst box is not too good."""
    manifests = sorted(root.glob(".engine/manifests/*.parquet"))
    columns = ["key", "status", "class_ids", "instance_scores"]
    asked = count()
    table = SampleTable(store)
    table.refresh()

    def query(**more: Any) -> SampleQuery:
        # another one each time: what was found before is remembered
        most = 0.5 + next(asked) * 1e-9
        return SampleQuery(
            classes=(7,), fates=("written",), most={"score": most}, order="score", **more
        )

    def opened() -> int:
        fresh = SampleTable(store)
        fresh.refresh()
        return fresh.find(query(), 0, 60)[0]

    def scanned(*more: str, word: str = "") -> int:
        wanted = pads.field("status") == "written"
        found = pads.dataset(manifests).to_table(columns=[*columns, *more], filter=wanted)
        rows = zip(
            found["class_ids"].to_pylist(),
            found["instance_scores"].to_pylist(),
            found["text"].to_pylist() if more else [""] * len(found),
            strict=True,
        )
        return sum(7 in ids and min(scores) <= 0.5 and word in text for ids, scores, text in rows)

    def with_words() -> int:
        return table.find(query(words="kitchen"), 0, 60)[0]

    assert opened() == table.find(query(), 0, 60)[0] == scanned()
    assert with_words() == scanned("text", word="kitchen")
    limit = {"limit: the manifests' bytes": lambda: [path.read_bytes() for path in manifests]}
    scan = {"pyarrow.dataset, the same columns": scanned}
    return {
        "open the table and filter": {"ours": opened, **scan, **limit},
        "filter and sort again": {
            "ours": lambda: table.find(query(), 0, 60),
            **scan,
        },
        "words of texts again": {
            "ours": with_words,
            "pyarrow.dataset, the same columns": partial(scanned, "text", word="kitchen"),
        },
    }


def sample_ways(root: Path) -> dict[str, Callable[[], object]]:
    """Ways to read one sample of a tar."""
    draw = random.Random(0)  # noqa: S311 - a benchmark, not a secret
    keys = [f"{SLICE}{index:08d}" for index in range(SAMPLES)]
    sizes = [round(MEMBER_BYTES * draw.uniform(0.5, 1.5)) for _ in range(len(keys) * len(KINDS))]
    names = [f"{key}.{kind}" for key in keys for kind in KINDS]
    data = write_archive(
        (name, draw.randbytes(size)) for name, size in zip(names, sizes, strict=True)
    )
    objects = open_objects(root)
    objects.write_new("a.tar", data)
    size = len(data)
    asked = count()

    def found() -> None:
        key = keys[(next(asked) * 337) % len(keys)]
        assert len(ArchiveSearch(objects, "a.tar", size, keys).members(key)) == len(KINDS)

    def listed() -> None:
        with objects.open("a.tar") as file:
            assert len(list(index_archive(file, "a.tar"))) == len(names)

    def hashed() -> None:
        with objects.open("a.tar") as file:
            hashlib.file_digest(file, "sha256")

    return {"ours": found, "all members listed": listed, "the tar hashed": hashed}


def main() -> None:
    """Fabricate, check that all ways find the same, and time."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "d"
        for what, ways in filter_ways(fabricate_samples(root, SHARDS), root).items():
            rows += [{"question": what, **row} for row in compare(ways, repeats=2)]
        ways = sample_ways(Path(folder) / "tars")
        for way in ways.values():
            way()
        rows += [{"question": "one sample of a tar", **row} for row in compare(ways, repeats=3)]
    setting = {"shards": SHARDS, "samples_per_shard": SAMPLES, "classes": CLASSES}
    write_results("explore", rows, ("magicseg-engine", "numpy", "pyarrow"), setting=setting)


if __name__ == "__main__":
    main()
