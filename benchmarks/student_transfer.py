"""The miniature student on generated shards, beside the same student on drawn scenes.

Drawn scenes have exact masks, so they say what the student could learn at best from as many
samples with the same settings. Both are scored on the drawn benchmark, beside the untrained student
and the detector with the segmenter. `--out` keeps datasets and runs; what is there is not made
again.
"""

import argparse
from collections.abc import Collection
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.console import Console

from benchmarks.results_file import write_results
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.results import Scores
from flows.demo import demo_generation
from flows.local_runs import generate_locally
from flows.local_steps import evaluate_locally, train_locally
from flows.training_parameters import TrainAndEvaluateParameters
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.miniature.captions import caption
from models.miniature.world import CLASSES, Scene, masks, render, sample_scene
from storage.codecs import encode_image, encode_label_map
from storage.identity import derive_seed
from storage.records import Mention
from storage.shards import Sample, pack

SPLITS = ("val", "test")


def draw_dataset(folder: Path, count: int, seed: int) -> None:
    """Write a tar of drawn scenes, with as many pairs of things as the demonstration asks for."""
    samples = [_sample(*draw_scene(seed, index), index) for index in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "drawn.tar").write_bytes(pack(samples))


def draw_scene(
    seed: int, index: int, exclude: Collection[tuple[int, str]] = ()
) -> tuple[Scene, np.random.Generator]:
    """A scene of `draw_dataset`, and the generator that goes on to its caption.

    Args:
        seed: Seed of the dataset.
        index: Number of the scene.
        exclude: Pairs (class id, background) that it must not show.
    """
    rng = np.random.default_rng(derive_seed("drawn", seed, index))
    return sample_scene(rng, num_things=1 + (index % 4 == 3), hard=0.35, exclude=exclude), rng


def _sample(scene: Scene, rng: np.random.Generator, index: int) -> Sample:
    text, twin_text, spans = caption(scene, rng)
    labels = np.zeros((64, 64), np.uint16)
    for thing, mask in zip(scene.things, masks(scene), strict=True):
        labels[mask] = thing.class_id + 1
    class_ids = tuple(dict.fromkeys(thing.class_id for thing in scene.things))
    mentions = tuple(
        Mention(class_id=thing.class_id, start=start, end=end)
        for thing, (start, end) in zip(scene.things, spans, strict=True)
    )
    return Sample(
        key=f"{index:016d}",
        index=index,
        text=text,
        counterfactual_text=twin_text,
        class_ids=class_ids,
        class_names=tuple(CLASSES[class_id] for class_id in class_ids),
        mentions=mentions,
        seed=index,
        instances=(),
        image_bytes=encode_image(render(scene), "png"),
        counterfactual_bytes=encode_image(render(scene, things=False), "png"),
        mask_bytes=encode_label_map(labels),
    )


def measure(out: Path, seed: int, console: Console) -> list[dict[str, object]]:
    """Make, train and score everything of one seed; one row for each subject and split."""
    root = out / f"seed{seed}"
    generation = demo_generation(root / "generated", seed)
    generate_locally(generation, console)
    drawn = root / "drawn"
    if not drawn.exists():
        draw_dataset(drawn, generation.samples, seed)
    benchmark = write_benchmark(DrawnBenchmarkConfig(), out / "benchmark")
    rows: list[dict[str, object]] = []
    for source, dataset in (("generated", root / "generated"), ("drawn", drawn)):
        parameters = TrainAndEvaluateParameters(
            dataset=str(dataset),
            out=str(root / f"{source}-run"),
            training={"seed": seed},
            benchmarks=tuple(BenchmarkConfig(root=benchmark, split=split) for split in SPLITS),
            untrained=source == "generated",
            baseline=source == "generated",
        )
        train_locally(parameters, console)
        for scores in evaluate_locally(parameters, console):
            assert isinstance(scores, Scores)
            kind = scores.subject.kind
            rows.append(
                {
                    "seed": seed,
                    "subject": f"student on {source}" if kind == "student" else kind,
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
    kinds = dict.fromkeys((row["subject"], row["split"]) for row in rows)
    for subject, split in kinds:
        own = [row for row in rows if (row["subject"], row["split"]) == (subject, split)]
        means = {
            name: round(fmean(float(str(row[name])) for row in own), 2)
            for name in ("miou", "foreground_miou")
        }
        rows.append({"seed": "mean", "subject": subject, "split": split, **means})
    write_results("student_transfer", rows, ("magicseg-engine", "torch", "transformers"))


if __name__ == "__main__":
    main()
