"""Small finished shards to store, read and break."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from processes import end_processes
from storage.codecs import encode_image, encode_label_map, encode_rle
from storage.commits import Commit, Counts
from storage.manifest import describe_samples, encode_manifest
from storage.payloads import Payload
from storage.records import (
    Instance,
    Mention,
    PlannedSample,
    PlannedShard,
    Prompt,
    Reason,
    Rejected,
    Stage,
)
from storage.rows import write_rows
from storage.shards import Sample, pack
from storage.store import Store

SLICE = "0badcafe"
NAMES = {0: "train", 1204: "cat"}
SIZE = 16
KEY = "a" * 64
PROMPTS = [
    Prompt(
        key=f"k{number}",
        text="a cat",
        counterfactual_text="nothing",
        mentions=(Mention(class_id=0, start=2, end=5),),
        writer="test",
    )
    for number in range(3)
]
LOST = Rejected(key="k9", stage=Stage.PROMPTS, reason=Reason.TEXT_TOO_LONG, detail="80 > 77")
ROWS = Payload(write_rows([*PROMPTS, LOST]), seconds=2.0)
ROW_COUNTS = Counts.of(4, 3, [LOST])


def make_sample(index: int, *, class_id: int = 1204, seed: int = 7, fmt: str = "png") -> Sample:
    pixels = np.random.default_rng([seed, index])
    image = pixels.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    counterfactual = image.copy()
    counterfactual[4:8, 4:8] = 0
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[4:8, 4:8] = True
    labels = np.where(mask, class_id + 1, 0).astype(np.uint16)
    labels[0, 0] = 65535
    return Sample(
        key=f"{SLICE}{index:08x}",
        index=index,
        text="a photo of it",
        counterfactual_text="a photo of nothing",
        class_ids=(class_id,),
        class_names=(NAMES[class_id],),
        mentions=(Mention(class_id=class_id, start=11, end=13),),
        seed=seed + index,
        instances=(
            Instance(
                class_id=class_id,
                score=0.5,
                predicted_iou=0.75,
                xyxy=(4.0, 4.0, 8.0, 8.0),
                area=16,
                rle=encode_rle(mask),
            ),
        ),
        image_bytes=encode_image(image, fmt),
        counterfactual_bytes=encode_image(counterfactual, fmt),
        mask_bytes=encode_label_map(labels),
        writer="test",
    )


def make_plan(samples: list[Sample], num_lost: int = 0, *, index: int = 0) -> PlannedShard:
    kept = [
        PlannedSample(key=each.key, index=each.index, class_ids=each.class_ids, seed=each.seed)
        for each in samples
    ]
    lost = [
        PlannedSample(key=f"{SLICE}{900 + i:08x}", index=900 + i, class_ids=(0,), seed=i)
        for i in range(num_lost)
    ]
    return PlannedShard(slice_id=SLICE, index=index, samples=tuple(kept + lost))


def make_dropped(plan: PlannedShard, samples: list[Sample]) -> list[Rejected]:
    written = {sample.key for sample in samples}
    return [
        Rejected(key=each.key, stage=Stage.DETECTIONS, reason=Reason.CLASS_NOT_FOUND, detail="0.1")
        for each in plan.samples
        if each.key not in written
    ]


def make_payload(samples: list[Sample], num_lost: int = 1) -> tuple[Payload, Counts]:
    """What the last stage commits: the tar, the manifest and the counts."""
    plan = make_plan(samples, num_lost)
    dropped = make_dropped(plan, samples)
    rows = describe_samples(plan, NAMES, samples=samples, dropped=dropped)
    data = pack(samples) if samples else b""
    counts = Counts.of(len(plan.samples), len(samples), dropped)
    return Payload(data, encode_manifest(rows), seconds=1.5), counts


@pytest.fixture(scope="session")
def sample() -> Callable[..., Sample]:
    return make_sample


@pytest.fixture
def payload() -> Callable[..., tuple[Payload, Counts]]:
    return make_payload


@pytest.fixture
def rows() -> tuple[Payload, Counts]:
    """Four texts, of which one was rejected."""
    return ROWS, ROW_COUNTS


@pytest.fixture
def commit_rows() -> Callable[..., Commit]:
    """Commits the same four texts, of which one was rejected, under any key."""

    def commit(store: Store, key: str = KEY) -> Commit:
        return store.commit(Stage.PROMPTS, f"{SLICE}-000000", key, ROWS, ROW_COUNTS)

    return commit


@pytest.fixture
def heal() -> Callable[..., Commit | None]:
    """Looks for an output and mends what is broken, as a worker does."""

    def look(store: Store, stage: Stage, shard: str, key: str, *, deep: bool = False):
        with store.lease(stage, shard):
            return store.heal(stage, shard, key, deep=deep)

    return look


@pytest.fixture
def in_quarantine() -> Callable[[Store], list[str]]:
    """Lists what was put aside, under its old name."""

    def listed(store: Store) -> list[str]:
        return [path.split("/", 3)[-1] for path in store.objects.paths(".engine/quarantine")]

    return listed


@pytest.fixture
def plan_of() -> Callable[..., PlannedShard]:
    return make_plan


@pytest.fixture
def dropped_of() -> Callable[..., list[Rejected]]:
    return make_dropped


@pytest.fixture
def names() -> dict[int, str]:
    return NAMES


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty root: on the disk, in memory, and behind the S3 protocol."""
    if request.param == "s3":
        return request.getfixturevalue("bucket").root
    return str(tmp_path / "root") if request.param == "local" else f"memory://{uuid4().hex}"


@pytest.fixture
def in_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code in a process of its own, with this file's helpers to import."""
    processes: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        here = Path(__file__).parent
        helpers = os.pathsep.join(map(str, (here, here.parent / "support")))
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": helpers, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    end_processes(processes)
