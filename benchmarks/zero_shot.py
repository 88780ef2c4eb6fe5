"""Seen and unseen names: the miniature student trained with and without three of its names.

Drawn scenes are split as ZegCLIP (arXiv 2212.03588) splits PASCAL VOC: 11 names are trained on, 3
(cactus, cup, rocket) are not, though scenes show them. The ways are `all names` (its fully
supervised row), `inductive` (left out all along), `transductive` (known, without masks, in the
second half) and the same where only what scores 0.5 is named. Scored are the means over seen and
unseen names and their harmonic mean on the drawn benchmark, background ignored, with the offset of
0.1 for seen names and without it. `--out` keeps runs; what is there is not made again.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console

from benchmarks.results_file import write_results
from benchmarks.student_transfer import draw_dataset
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.results import Scores
from flows.local_steps import evaluate_locally, train_locally
from flows.training_parameters import TrainAndEvaluateParameters
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark

SPLIT = "miniature11_3"
WAYS: Mapping[str, dict[str, Any]] = {
    "all names": {},
    "inductive": {"left_out": [SPLIT]},
    "transductive": {"left_out": [SPLIT], "transductive": True},
    "transductive, sure": {"left_out": [SPLIT], "transductive": True, "least_score": 0.5},
}
"""The settings `training.zero_shot` of each way."""
OFFSETS = (0.0, 0.1)


def measure(out: Path, way: str, seed: int, benchmark: Path, samples: int) -> list[dict[str, Any]]:
    """Train and score one way with one seed; a row for each offset and split of the images."""
    drawn = out / f"drawn-{seed}"
    if not drawn.exists():
        draw_dataset(drawn, samples, seed)
    rows: list[dict[str, Any]] = []
    for offset in OFFSETS:
        parameters = TrainAndEvaluateParameters(
            dataset=str(drawn),
            out=str(out / f"{way.replace(',', '').replace(' ', '-')}-{seed}"),
            training={"seed": seed, "zero_shot": WAYS[way]},
            scoring={"preset": "miniature_zero_shot", "inference": {"seen_offset": offset}},
            benchmarks=(BenchmarkConfig(name="miniature14", root=benchmark, split="val"),),
            untrained=False,
            baseline=False,
        )
        train_locally(parameters, Console())
        [scores] = evaluate_locally(parameters, Console())
        assert isinstance(scores, Scores)
        means = {group.name: round(100 * (group.miou or 0.0), 2) for group in scores.groups}
        rows.append({"seed": seed, "way": way, "offset": offset, **means})
    return rows


def main() -> None:
    """Measure all ways with several seeds, and write their rows, means and deviations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/zero-shot"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=400)
    arguments = parser.parse_args()
    benchmark = write_benchmark(DrawnBenchmarkConfig(), arguments.out / "benchmark")
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for way in WAYS:
            rows += measure(arguments.out, way, seed, benchmark, arguments.samples)
            print(rows[-2:], flush=True)
    for way in WAYS:
        for offset in OFFSETS:
            own = [row for row in rows if (row["way"], row["offset"]) == (way, offset)]
            own = [row for row in own if row["seed"] in range(arguments.seeds)]
            summary: dict[str, Any] = {"seed": "mean", "way": way, "offset": offset}
            for name in ("seen", "unseen", "harmonic mean"):
                values = [row[name] for row in own]
                summary[name] = round(fmean(values), 2)
                if len(values) > 1:
                    summary[f"{name} deviation"] = round(stdev(values), 2)
            rows.append(summary)
    write_results(
        "zero_shot",
        rows,
        ("magicseg-engine", "torch", "transformers"),
        setting={"samples": arguments.samples, "seeds": arguments.seeds, "split": SPLIT},
    )


if __name__ == "__main__":
    main()
