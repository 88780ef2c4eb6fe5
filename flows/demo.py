"""The demonstration: the whole engine on the models that ship with it, in minutes on a CPU."""

import time
from pathlib import Path

from rich.console import Console

from evaluation.benchmarks import BenchmarkConfig
from evaluation.report import write_report
from flows.local_runs import evaluate_locally, generate_locally, train_locally
from flows.parameters import GenerationParameters, TrainAndEvaluateParameters
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark

SAMPLES = 160
SAMPLES_PER_SHARD = 32


def demo_generation(root: Path, seed: int) -> GenerationParameters:
    """What the demonstration generates."""
    return GenerationParameters(
        root=str(root),
        samples=SAMPLES,
        seed=seed,
        samples_per_shard=SAMPLES_PER_SHARD,
        two_class_share=0.25,
        texts_per_class_set=1,
    )


def run_demo(out: Path, seed: int, console: Console) -> Path:
    """Generate quadruplets, train on them, score the student, and write a report.

    Args:
        out: Folder for everything. A demonstration that was interrupted goes on, and one that is
            over is only reported again.
        seed: Root of every random choice.
        console: Where progress is shown.

    Returns:
        The report.
    """
    started = time.monotonic()
    dataset, run, benchmark = out / "dataset", out / "run", out / "benchmark"
    console.rule("generate", align="left")
    generate_locally(demo_generation(dataset, seed), console)
    console.rule("train", align="left")
    parameters = TrainAndEvaluateParameters(
        dataset=str(dataset),
        out=str(run),
        training={"seed": seed},
        benchmarks=(BenchmarkConfig(name="miniature", root=benchmark),),
    )
    train_locally(parameters, console)
    console.rule("evaluate", align="left")
    write_benchmark(DrawnBenchmarkConfig(), benchmark)
    evaluate_locally(parameters, console)
    report = write_report(str(dataset), [run], out / "report.html")
    console.print(f"{time.monotonic() - started:.0f} s")
    console.print(f"report: {report.absolute()}", markup=False, soft_wrap=True)
    return report
