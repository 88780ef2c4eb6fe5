"""The miniature student on a folder of real images, alone and mixed with generated samples.

The folder is the split `train` of the drawn benchmark in the layout of PASCAL VOC: images with
exact masks and without twins; as many images as a dataset of the demonstration has samples, twice
as many for twice the steps (as many pictures as its pairs have, each shown as often), and four
times as many for four times the steps. The scenes of `benchmarks.student_transfer` are written as a
folder too: what differs there is the way through the folder, and that no image has a twin. These
scenes show classes on the backgrounds that the split `train` keeps for `test`; written once more
without such, they say what that is worth.
`benchmarks.student_transfer` has the same student on generated samples, and on drawn pairs; its
datasets are used where `--out` names its folder. What is there is not made again.
"""

import argparse
from collections.abc import Collection
from pathlib import Path
from statistics import fmean

from PIL import Image
from rich.console import Console

from benchmarks.results_file import write_results
from benchmarks.student_transfer import draw_scene
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.results import Scores
from flows.data_sources import DataSource
from flows.demo import demo_generation
from flows.local_runs import generate_locally
from flows.local_steps import evaluate_locally, train_locally
from flows.training_parameters import TrainAndEvaluateParameters
from models.miniature.benchmark import (
    DrawnBenchmarkConfig,
    draw_labels,
    unseen_combinations,
    voc_palette,
    write_benchmark,
)
from models.miniature.world import render
from models.profiles import load_profile

SPLITS = ("val", "test")
MEANS = ("miou", "foreground_miou")


def write_scenes(
    folder: Path, count: int, seed: int, exclude: Collection[tuple[int, str]] = ()
) -> Path:
    """Write the scenes of the drawn dataset in the layout of PASCAL VOC, without their twins.

    Args:
        folder: Where to.
        count: Number of scenes.
        seed: Seed of the dataset.
        exclude: Pairs (class id, background) that no scene may show; others are drawn instead.
    """
    names = [f"scene_{index:06d}" for index in range(count)]
    for place in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        scene, _ = draw_scene(seed, index, exclude)
        Image.fromarray(render(scene)).save(folder / "JPEGImages" / f"{name}.png")
        labels = Image.fromarray(draw_labels(scene))
        labels.putpalette(voc_palette())
        labels.save(folder / "SegmentationClass" / f"{name}.png")
    listing = folder / "ImageSets" / "Segmentation" / "train.txt"
    listing.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return folder


def measure(out: Path, seed: int, console: Console) -> list[dict[str, object]]:
    """Train and score the students of one seed; one row for each subject and split."""
    root = out / f"seed{seed}"
    generation = demo_generation(root / "generated", seed)
    generate_locally(generation, console)
    count = generation.samples
    drawn = DrawnBenchmarkConfig()
    steps = load_profile("miniature").training["optimiser"]["steps"]
    splits = {
        times: write_benchmark(
            drawn.model_copy(update={"num_train": times * count}), out / f"real-{times * count}"
        )
        for times in (1, 2, 4)
    }
    same = write_scenes(root / "scenes", count, seed)
    kept = unseen_combinations(drawn.seed)
    without = write_scenes(root / "scenes-without", count, seed, kept)
    generated = DataSource(path=str(root / "generated"))

    def real(folder: Path) -> DataSource:
        return DataSource(path=str(folder), layout="miniature")

    def longer(times: int) -> str:
        return f"student on {times * count} real images, {times * steps} steps"

    rows: list[dict[str, object]] = []
    for name, subject, data, times in (
        ("few", f"student on {count} real images", (real(splits[1]),), 1),
        ("many", longer(2), (real(splits[2]),), 2),
        ("most", longer(4), (real(splits[4]),), 4),
        ("same", "student on the drawn scenes as a folder", (real(same),), 1),
        ("without", "student on drawn scenes without what test keeps", (real(without),), 1),
        ("both", "student on generated and real, 1 to 1", (generated, real(splits[1])), 1),
    ):
        parameters = TrainAndEvaluateParameters(
            data=data,
            imports=str(out / "imports"),
            out=str(root / f"real-{name}-run"),
            training={"seed": seed, "optimiser": {"steps": times * steps}},
            benchmarks=tuple(BenchmarkConfig(root=splits[1], split=split) for split in SPLITS),
            untrained=False,
            baseline=False,
        )
        train_locally(parameters, console)
        for scores in evaluate_locally(parameters, console):
            assert isinstance(scores, Scores)
            rows.append(
                {
                    "seed": seed,
                    "subject": subject,
                    "split": scores.protocol.split,
                    "miou": round(100 * scores.miou, 2),
                    "foreground_miou": round(100 * (scores.foreground_miou or 0.0), 2),
                }
            )
    return rows


def main() -> None:
    """Measure three seeds and write their rows and means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/student-transfer"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for seed in range(arguments.seeds):
        rows += measure(arguments.out, seed, Console())
    for subject, split in dict.fromkeys((row["subject"], row["split"]) for row in rows):
        own = [row for row in rows if (row["subject"], row["split"]) == (subject, split)]
        means = {name: round(fmean(float(str(row[name])) for row in own), 2) for name in MEANS}
        rows.append({"seed": "mean", "subject": subject, "split": split, **means})
    write_results("real_data", rows, ("magicseg-engine", "torch", "transformers"))


if __name__ == "__main__":
    main()
