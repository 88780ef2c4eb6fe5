"""Generate, train and score from Python, as the deployments do it.

    python examples/run_flows.py runs/from-python 24

Prefect's server is the one that PREFECT_API_URL names, else a temporary one. Run it again and
nothing is done twice.
"""

import sys
from pathlib import Path

from evaluation.benchmarks.contract import BenchmarkConfig
from flows.generate_dataset import generate_dataset
from flows.generation_form import form_values
from flows.generation_parameters import GenerationParameters
from flows.train_and_evaluate import train_and_evaluate
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark


def main(folder: str, samples: str) -> None:
    """Make a small dataset, train the miniature student for some steps, and score it."""
    root, benchmark = Path(folder, "dataset"), Path(folder, "benchmark")
    generation = GenerationParameters(
        root=str(root),
        samples=int(samples),
        slice="cat,star,balloon",
        samples_per_shard=int(samples),
        texts_per_class_set=1,
        min_yield=0.0,
    )
    generated = generate_dataset(**form_values(generation))
    print(f"{generated.written} of {generated.requested} samples, dropped: {generated.dropped}")
    if not benchmark.exists():
        write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=4, num_test=0), benchmark)
    summary = train_and_evaluate(
        dataset=str(root),
        out=str(Path(folder, "run")),
        training={"optimiser": {"steps": 3, "batch_size": 4}},
        benchmarks=(BenchmarkConfig(root=benchmark),),
        baseline=False,
    )
    print(f"{len(summary.scores)} scores, {len(summary.executed)} steps executed: {summary.report}")


if __name__ == "__main__":
    main(*sys.argv[1:])
