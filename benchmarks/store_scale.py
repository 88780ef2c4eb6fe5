"""What a large dataset costs to look at: status, verify, generate with nothing to do, the card.

The dataset is fabricated: every shard has a record as a run writes it, with the classes of its
1,000 samples, and a tiny tar and manifest. `before` is what version 0.1 took, on another day and a
machine of this kind; its card read every manifest, after every shard.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measurement import cpu_seconds, peak_megabytes
from benchmarks.results_file import write_results
from flows.generation_parameters import GenerationParameters
from flows.generation_plan import describe_plan
from flows.generation_run import prepare
from storage.card import render_card, write_card
from storage.checked_tars import open_tar
from storage.commit_log import record_path
from storage.commits import Counts
from storage.layout import manifest_path, shard_path
from storage.payloads import Payload, describe_payload
from storage.records import Reason, Stage
from storage.store import Store
from storage.verification import verify_records

SHARDS = (400, 10_000)
SAMPLES = 1000
WRITTEN = SAMPLES - 60
BEFORE = {
    ("status", 400): {"seconds": 0.11},
    ("verify", 400): {"seconds": 0.14},
    ("generate, nothing to do", 400): {"seconds": 12.4},
    ("generate, nothing to do", 10_000): {"megabytes": 6900},
    ("card", 400): {"seconds": 1.48, "each": "after every shard"},
}
_HASHED_BYTES = 2**30


def fabricate(
    root: Path, shards: int, tar: bytes = bytes(1024), manifest: bytes = bytes(512)
) -> GenerationParameters:
    """Write a dataset of finished shards, as if the miniature profile had made them.

    Args:
        root: Where.
        shards: How many.
        tar: The tar of each of them, once on the disk.
        manifest: Its manifest, likewise.
    """
    parameters = GenerationParameters(
        root=str(root), samples=shards * SAMPLES, samples_per_shard=SAMPLES
    )
    with prepare(parameters) as run:
        classes = {i: {"planned": 150, "written": 140} for i in run.classes.class_ids}
        counts = Counts(
            requested=SAMPLES, written=WRITTEN, rejected={Reason.CLASS_NOT_FOUND: SAMPLES - WRITTEN}
        )
        payload = Payload(tar, manifest, seconds=1.5)
        files: dict[str, Path] = {}
        for wanted in run.planned:
            work = run.work(wanted)
            about = {
                "start": wanted.start,
                "stop": wanted.stop,
                "classes": classes,
                "stage_seconds": dict.fromkeys(list(Stage)[:-1], 12.5),
            }
            record = describe_payload(
                Stage.SHARDS,
                wanted.name,
                work.key,
                Payload(payload.data, payload.manifest, seconds=1.5, about=about),
                counts,
            )
            _write(root / record_path(record), record.encode())
            for path, data in (
                (root / shard_path(wanted.name), tar),
                (root / manifest_path(wanted.name), manifest),
            ):
                _link(files.setdefault(path.suffix, path), path, data)
    return parameters


def _write(path: Path, data: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _link(first: Path, path: Path, data: bytes) -> None:
    """Write a file, or give it another name."""
    if first == path:
        _write(path, data)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(first)


def measure(shards: int, folder: Path) -> list[dict[str, Any]]:
    """A row for each question."""
    parameters = fabricate(folder, shards)
    store = Store.open(folder)

    def generate() -> None:
        with prepare(parameters) as run:
            assert not run.todo
            run.bring_card_up_to_date()

    questions: dict[str, Callable[[], object]] = {
        "card": lambda: render_card(store),
        "generate, nothing to do": generate,
        "status": store.status,
        "verify": lambda: verify_records(store),
    }
    write_card(store)
    rows: list[dict[str, Any]] = []
    for what, ask in questions.items():
        seconds: list[float] = []

        def timed(ask: Callable[[], object] = ask, seconds: list[float] = seconds) -> None:
            began = cpu_seconds()
            ask()
            seconds.append(cpu_seconds() - began)

        megabytes = peak_megabytes(timed)
        row = {
            "what": what,
            "shards": shards,
            "cpu_seconds": round(seconds[0], 3),
            "megabytes": megabytes,
        }
        rows.append(row | {"before": BEFORE.get((what, shards), {})})
    assert verify_records(store) == []
    return rows


def plan_hundred_million(folder: Path) -> dict[str, Any]:
    """`magicseg plan --samples 100000000` beside no dataset; version 0.1 gave no answer in 60 s."""
    parameters = GenerationParameters(root=str(folder / "none"), samples=100_000_000)
    seconds: list[float] = []

    def ask() -> None:
        began = cpu_seconds()
        describe_plan(parameters)
        seconds.append(cpu_seconds() - began)

    megabytes = peak_megabytes(ask)
    return {
        "what": "plan of 100,000,000 samples",
        "cpu_seconds": round(seconds[0], 3),
        "megabytes": megabytes,
        "before": {"seconds": "over 60"},
    }


def hash_tars(folder: Path) -> dict[str, Any]:
    """Opening a tar through its digest: the first time, and when it is known."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    tar = folder / "large.tar"
    block = os.urandom(2**20)
    with tar.open("wb") as file:
        for _ in range(_HASHED_BYTES // len(block)):
            file.write(block)
    import hashlib

    with tar.open("rb") as file:
        identity = hashlib.file_digest(file, "sha256").hexdigest()
    began = cpu_seconds()
    open_tar(tar, identity).close()
    first = cpu_seconds() - began
    began = cpu_seconds()
    for _ in range(1000):
        open_tar(tar, identity).close()
    known = (cpu_seconds() - began) / 1000
    return {
        "what": "opening a tar through its digest",
        "megabytes_a_second": round(_HASHED_BYTES / 1e6 / first),
        "seconds_of_10_gb": round(1e10 / _HASHED_BYTES * first, 1),
        "microseconds_when_known": round(1e6 * known, 1),
    }


def main() -> None:
    """Measure both sizes."""
    rows: list[dict[str, Any]] = []
    for shards in SHARDS:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(shards, Path(folder) / "d")
    with tempfile.TemporaryDirectory() as folder:
        rows += [plan_hundred_million(Path(folder)), hash_tars(Path(folder))]
    write_results(
        "store_scale",
        rows,
        ("magicseg-engine", "pydantic"),
        setting={"samples_per_shard": SAMPLES, "classes": 14},
    )


if __name__ == "__main__":
    main()
