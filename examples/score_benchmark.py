"""Score a trained student on a benchmark that the engine knows, here the drawn one.

    python -m models.miniature.benchmark --out runs/benchmark
    python examples/score_benchmark.py runs/demo/run runs/benchmark runs/my-scores

The command line does the same and more: magicseg evaluate.
"""

import sys
from pathlib import Path

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig
from evaluation.scoring.on_labels import score_student
from evaluation.scoring.results import Subject
from evaluation.segment import scoring_settings
from models.student.text_embeddings import TextEncoder
from models.student.trained import load_student


def main(run: str, folder: str, out: str) -> None:
    """Score, and print the classes from the worst to the best."""
    benchmark = open_benchmark(BenchmarkConfig(name="miniature", root=Path(folder), split="val"))
    assert isinstance(benchmark, Benchmark)  # open_images has points instead of label maps
    student, about = load_student(run)
    scores = score_student(
        student,
        TextEncoder.load(about["config"]["student"]["clip"]),
        benchmark,
        subject=Subject(kind="student", name="student", fingerprint=about["fingerprint"]),
        config=scoring_settings("miniature"),
        out=Path(out),
    )
    for each in sorted(scores.classes, key=lambda each: each.iou or 0.0):
        print(f"{each.name}: {'-' if each.iou is None else f'{each.iou:.3f}'}")
    print(f"mIoU {scores.miou:.3f} on {len(benchmark)} images")


if __name__ == "__main__":
    main(*sys.argv[1:])
