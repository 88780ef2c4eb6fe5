"""The demonstration: the whole engine on the models that ship with it, in minutes on a CPU."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.reports.page import write_report
from flows.ablation_grid import AblationParameters, Grid
from flows.drawn_benchmarks import draw_missing_benchmarks
from flows.generation_parameters import GenerationParameters
from flows.labeller_comparison import ComparisonParameters
from flows.local_runs import generate_locally
from flows.local_steps import evaluate_locally, train_locally
from flows.training_parameters import TrainAndEvaluateParameters
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from storage.documents import validate
from storage.locks import hold_folder, refuse_other_files

_REPORT_NAME = "report.html"

_DETECTOR = {"kind": "grounding-dino", "model": "weights:detector", "nms_iou": 0.5}
ATTENTION_LABELLERS: Mapping[str, Any] = {
    "diffumask": {
        "kind": "diffumask",
        "cross_resolutions": {16: 1.0, 8: 1.0},
        "refine": "crf",
        "detector": _DETECTOR,
    },
    "dataset-diffusion": {
        "kind": "dataset-diffusion",
        "cross_resolution": 16,
        "cell_resolution": 8,
        "power": 1,
        "foreground": 0.5,
        "uncertain": 0.4,
        "refine": "crf",
        "detector": _DETECTOR,
    },
}
"""How masks are read from the attention of the miniature's painter. Dataset Diffusion has one pass
over its 8 x 8 cells: the paper's four, over 32 x 32, would blur two things into one here."""

SAMPLES = 160
SAMPLES_PER_SHARD = 32


def demo_generation(root: Path, seed: int) -> GenerationParameters:
    """What the demonstration generates."""
    document = {
        "root": str(root),
        "samples": SAMPLES,
        "seed": seed,
        "samples_per_shard": SAMPLES_PER_SHARD,
        "two_class_share": 0.25,
        "texts_per_class_set": 1,
    }
    return validate(GenerationParameters, document, "demonstration")


def demo_ablation(out: Path) -> AblationParameters:
    """The paper's comparisons of prompts, names an image and losses, on the demonstration's scale.

    Nothing is written: `draw_ablation_benchmark` draws its benchmark. Plain prompts are "a photo of
    a cat" and nothing else, so that equal ones are no fault; the rich ones are the profile's, with
    colour, size and place.

    Args:
        out: Folder for everything.
    """
    benchmark = out / "benchmark"
    plain = {
        "writer": {"kind": "template", "templates": "miniature_simple"},
        "prompts": {"duplicate_similarity": None},
    }
    generation = demo_generation(out, seed=0)
    return AblationParameters(
        out=str(out),
        prompts={"simple": plain, "rich": {}},
        generation=generation.model_dump(exclude_unset=True, exclude={"root", "seed"}),
        benchmarks=tuple(BenchmarkConfig(root=benchmark, split=split) for split in ("val", "test")),
    )


def demo_comparison(out: Path) -> ComparisonParameters:
    """Three labellers on the demonstration's scale, with what suits the miniature's painter.

    Its latents are 16 x 16, so that attention is there at 16, 8 and 4 cells.

    Args:
        out: Folder for everything.
    """
    generation = demo_generation(out, seed=0)
    return validate(
        ComparisonParameters,
        {
            "out": str(out),
            "labellers": {"grounded": None, **ATTENTION_LABELLERS},
            "generation": generation.model_dump(exclude_unset=True, exclude={"root", "seed"}),
            "benchmarks": [{"root": out / "benchmark", "split": each} for each in ("val", "test")],
            "closed_sets": [{"recipe": "deeplabv3_miniature", "classes": "miniature"}],
            "drawn_scenes": 96,
        },
        "comparison",
    )


def draw_ablation_benchmark(grid: Grid) -> None:
    """Draw the benchmark that a grid names, unless it is there.

    It comes after every check of the grid's parameters, because it is the first thing written.
    """
    draw_missing_benchmarks(grid.parameters.benchmarks)


def run_demo(out: Path, seed: int, console: Console) -> Path:
    """Generate quadruplets, train on them, score the student, and write a report.

    Args:
        out: Folder for everything. A demonstration that was interrupted goes on, and one that is
            over is only reported again.
        seed: Seed of every random choice.
        console: Where progress is shown.

    Returns:
        The report.

    Raises:
        InputError: The folder holds something else.
        LeaseHeldError: Somebody else runs a demonstration there.
    """
    marks = ("dataset", "run", "benchmark", _REPORT_NAME)
    refuse_other_files(out, "a demonstration", marks=marks)
    with hold_folder(out):
        return _run_demo(out, seed, console)


def _run_demo(out: Path, seed: int, console: Console) -> Path:
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
    report = write_report(str(dataset), [run], out / _REPORT_NAME)
    console.print(f"{time.monotonic() - started:.0f} s")
    console.print(f"report: {report.absolute()}", markup=False, soft_wrap=True)
    return report
