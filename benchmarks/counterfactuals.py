"""Counterfactuals made in three ways, from the same texts and seeds: what stays, what is left.

A dataset of the miniature world is made in each way. `nothing` and `remove` paint a second picture
from the same noise, with the word "nothing" or a gap for the class; `inpaint` paints the object
over. Told are how alike image and counterfactual are outside the object, in how many of these the
detector still finds a class, and what a student learns from the dataset. Counterfactuals with a
class are recorded here, not rejected. `--out` keeps datasets and runs; what is there is not made
again.
"""

import argparse
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.results_file import write_results
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.results import Scores
from flows.generation_parameters import GenerationParameters
from flows.local_runs import generate_locally
from flows.local_steps import evaluate_locally, train_locally
from flows.training_parameters import TrainAndEvaluateParameters
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from storage.codecs import decode_image, decode_label_map, decode_rle, encode_image
from storage.shards import Sample, iterate
from storage.store import Store
from tasks.regions import blend, soft_region
from tasks.rules import TwinRules

WAYS: Mapping[str, dict[str, Any]] = {
    "inpaint": {"twins": {"way": "inpaint"}},
    "nothing": {"prompts": {"counterfactual": "nothing"}},
    "remove": {"prompts": {"counterfactual": "remove"}},
}
"""The settings of each way."""


def generate(root: Path, way: str, samples: int, console: Console) -> list[Sample]:
    """Make a dataset in one way, or find it."""
    document = {
        "root": str(root),
        "samples": samples,
        "samples_per_shard": samples,
        "two_class_share": 0.25,
        "detections": {"counterfactual": "record"},
        **WAYS[way],
    }
    generate_locally(GenerationParameters.model_validate(document), console)
    shards = [shard.path for shard in Store.open(root).shards() if shard.path is not None]
    return [sample for path in shards for sample in iterate(path)]


def likeness(samples: list[Sample]) -> dict[str, Any]:
    """How alike images and their counterfactuals are, and what is still found in these."""
    rules = TwinRules()
    outside, beyond, beyond_as_jpeg = [], [], []
    for sample in samples:
        image = decode_image(sample.image_bytes)
        twin = decode_image(sample.counterfactual_bytes)
        objects = np.any(list(_masks(sample)), axis=0)
        side = min(image.shape[:2])
        region = soft_region(objects, round(rules.grow * side), round(rules.feather * side))
        far = region == 0
        outside.append(psnr(image, twin, decode_label_map(sample.mask_bytes) == 0))
        if far.any():
            beyond.append(psnr(image, twin, far))
            beyond_as_jpeg.append(_as_jpeg(image, twin, far))
    found = sum(bool(sample.counterfactual_boxes) for sample in samples)
    return {
        "samples": len(samples),
        "psnr_outside_objects": _rounded(median(outside)),
        "psnr_outside_region": _rounded(median(beyond)),
        "psnr_outside_region_as_jpeg": _rounded(median(beyond_as_jpeg)),
        "still_detected": round(found / len(samples), 4),
    }


def psnr(first: np.ndarray, second: np.ndarray, where: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over some pixels; infinite if they are equal."""
    squares = (first.astype(float) - second)[where] ** 2
    return 10 * math.log10(255**2 / squares.mean()) if squares.any() else math.inf


def _as_jpeg(image: np.ndarray, twin: np.ndarray, far: np.ndarray) -> float:
    """The same if pictures were stored as JPEG: what is laid over is what was stored."""
    stored = decode_image(encode_image(image, "jpg"))
    if np.array_equal(image[far], twin[far]):
        twin = blend(stored, twin, (~far).astype(np.float32))
    return psnr(stored, decode_image(encode_image(twin, "jpg")), far)


def _masks(sample: Sample) -> Iterator[np.ndarray]:
    height, width = decode_label_map(sample.mask_bytes).shape
    for instance in sample.instances:
        yield decode_rle(instance.rle, height, width)


def _rounded(value: float) -> float | str:
    return round(value, 2) if math.isfinite(value) else "equal"


def score(root: Path, out: Path, benchmark: Path, console: Console) -> dict[str, Any]:
    """Train the profile's student on a dataset, and score it on the drawn benchmark."""
    parameters = TrainAndEvaluateParameters(
        dataset=str(root),
        out=str(out),
        benchmarks=(BenchmarkConfig(root=benchmark, split="val"),),
        untrained=False,
        baseline=False,
    )
    train_locally(parameters, console)
    [scores] = evaluate_locally(parameters, console)
    assert isinstance(scores, Scores)
    return {
        "student_miou": round(100 * scores.miou, 2),
        "student_foreground_miou": round(100 * (scores.foreground_miou or 0.0), 2),
    }


def main() -> None:
    """Make and measure all ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/counterfactuals"))
    parser.add_argument("--samples", type=int, default=200)
    arguments = parser.parse_args()
    out, console = arguments.out, Console()
    rows: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        rows[way] = likeness(generate(out / way, way, arguments.samples, console))
        print(way, rows[way], flush=True)
    benchmark = write_benchmark(DrawnBenchmarkConfig(), out / "benchmark")
    for way, row in rows.items():
        row |= score(out / way, out / f"{way}-run", benchmark, console)
    write_results(
        "counterfactuals",
        [{"way": way, **row} for way, row in rows.items()],
        ("magicseg-engine", "torch", "diffusers"),
        setting={"samples_planned": arguments.samples, "seed": 0},
    )


if __name__ == "__main__":
    main()
